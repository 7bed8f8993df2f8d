import numpy as np
import pytest

from surefoot.classification.last_layer import balanced_last_layer, balanced_subset
from surefoot.errors import DataError


def spurious(n: int, n_classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Core and spurious features; the spurious one agrees in 90% and is the stronger one."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, n_classes, n)
    agrees = rng.random(n) < 0.9
    attribute = np.where(agrees, target, (target + 1) % n_classes)
    core = np.eye(n_classes)[target] + 0.3 * rng.normal(size=(n, n_classes))
    shortcut = 2 * np.eye(n_classes)[attribute] + 0.1 * rng.normal(size=(n, n_classes))
    return np.concatenate([core, shortcut], 1).astype(np.float32), target, target * 2 + agrees


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_worst_group_gains_over_a_plain_fit(n_classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    features, target, group = spurious(2000, n_classes)
    layer = balanced_last_layer(features, target, group, 3, (1.0, 0.1), seed=0)
    right = (features @ layer.weight.T + layer.bias).argmax(1) == target
    plain = LogisticRegression(max_iter=500).fit(features, target).predict(features) == target
    worst = min(right[group == g].mean() for g in np.unique(group))
    assert worst > min(plain[group == g].mean() for g in np.unique(group))
    assert worst > 0.9
    assert layer.weight.shape == (n_classes, features.shape[1])


def test_subsets_hold_every_group_equally() -> None:
    group = np.array([0] * 50 + [1] * 5 + [3] * 9)
    chosen = balanced_subset(group, np.random.default_rng(0))
    assert np.bincount(group[chosen]).tolist() == [5, 5, 0, 5]


def test_missing_classes_and_tiny_groups_are_named() -> None:
    features, target, group = spurious(400)
    with pytest.raises(DataError, match=r"classes \[0\] are missing"):
        balanced_last_layer(features, np.ones_like(target), group, 1, (1.0,), 0)
    group[0] = 9
    with pytest.raises(DataError, match=r"groups \[9\] too small"):
        balanced_last_layer(features, target, group, 1, (1.0,), 0)


def test_a_class_that_the_network_has_and_the_held_out_set_lacks_is_named() -> None:
    features, target, group = spurious(400)
    with pytest.raises(DataError, match=r"classes \[2\] are missing"):
        balanced_last_layer(features, target, group, 1, (1.0,), 0, n_classes=3)
