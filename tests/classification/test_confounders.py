import pytest
import torch

from surefoot.classification.confounders import CONFOUNDERS, assign_attribute, flip_labels, paint, palette
from surefoot.errors import ConfigError


@pytest.mark.parametrize("n_values", [2, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5, 1.0])
def test_the_minority_has_its_exact_share_in_every_class(n_values: int, fraction: float) -> None:
    target = torch.arange(n_values).repeat_interleave(100)
    attribute = assign_attribute(target, n_values, fraction, torch.Generator().manual_seed(0))
    for label in range(n_values):
        members = target == label
        assert int((attribute[members] != label).sum()) == round(100 * fraction)
    assert 0 <= int(attribute.min()) <= int(attribute.max()) < n_values


def test_flipped_labels_are_wrong_and_only_among_candidates() -> None:
    target = torch.randint(0, 5, (1000,))
    candidates = torch.arange(1000) < 400
    noisy = flip_labels(target, 0.25, candidates, 5, torch.Generator().manual_seed(0))
    assert int((noisy != target).sum()) == 100
    assert not bool((noisy != target)[400:].any())


@pytest.mark.parametrize("kind", CONFOUNDERS)
@pytest.mark.parametrize("n_values", [2, 10])
def test_paint_stays_in_range_and_tells_values_apart(kind: str, n_values: int) -> None:
    images = torch.rand(n_values, 1, 8, 8).expand(-1, 3, -1, -1) * 0
    painted = paint(images, torch.arange(n_values), n_values, kind, 0.5)  # type: ignore[arg-type]
    assert 0 <= float(painted.min()) <= float(painted.max()) <= 1
    distances = torch.cdist(painted.flatten(1), painted.flatten(1)) + 9 * torch.eye(n_values)
    assert float(distances.min()) > 0.05
    assert float(images.abs().max()) == 0, "the argument is left alone"


def test_palette_is_saturated_and_distinct() -> None:
    colours = palette(6)
    assert colours.max(1).values.tolist() == [1.0] * 6
    torch.testing.assert_close(colours[0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_outside_the_unit_interval_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="must be in"):
        assign_attribute(torch.zeros(2, dtype=torch.long), 2, share, torch.Generator())
    with pytest.raises(ConfigError, match="must be in"):
        flip_labels(
            torch.zeros(2, dtype=torch.long),
            share,
            torch.ones(2, dtype=torch.bool),
            2,
            torch.Generator(),
        )
