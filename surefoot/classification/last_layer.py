"""Last-layer retraining on group-balanced features.

Reference: Kirichenko et al., ICLR 2023, arXiv 2204.02937.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from surefoot.errors import DataError

__all__ = ("LastLayer", "balanced_last_layer", "balanced_subset")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LastLayer(NamedTuple):
    """A linear layer from raw features to logits."""

    weight: Floats  # (classes, features)
    bias: Floats  # (classes,)
    inverse_strength: float


def balanced_subset(group: Ints, generator: np.random.Generator) -> Ints:
    """Draw as many examples of every group present as the smallest has; indices, shuffled."""
    counts = np.bincount(group)
    size = counts[counts > 0].min()
    parts = [generator.permutation(np.flatnonzero(group == g))[:size] for g in np.flatnonzero(counts)]
    return generator.permutation(np.concatenate(parts))


def _fit(features: Floats, target: Ints, inverse_strength: float) -> tuple[Floats, Floats]:
    """Fit an l1 logistic regression; weight ``(classes, features)`` and bias ``(classes,)``."""
    from sklearn.linear_model import LogisticRegression

    binary = len(np.unique(target)) == 2
    model = LogisticRegression(
        l1_ratio=1.0,
        C=inverse_strength,
        solver="liblinear" if binary else "saga",
        max_iter=2000,
        random_state=0,
    ).fit(features, target)
    if not binary:
        return model.coef_, model.intercept_
    return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


def _worst_group_accuracy(logits: Floats, target: Ints, group: Ints) -> float:
    correct = logits.argmax(1) == target
    return min(float(correct[group == g].mean()) for g in np.unique(group))


def _check_examples(target: Ints, group: Ints, n_classes: int) -> None:
    """Raise a `DataError` if a class is missing, or a group present has fewer than two examples."""
    missing = sorted(set(range(n_classes)) - set(target.tolist()))
    small = [g for g in np.unique(group).tolist() if (group == g).sum() < 2]
    if missing or n_classes < 2 or small:
        raise DataError(
            "last-layer retraining needs every class and at least two examples of each group in the held-out set;"
            f" classes {missing} are missing, groups {small} too small."
        )


def _best_strength(
    scaled: Floats, target: Ints, group: Ints, inverse_strengths: Sequence[float], generator: np.random.Generator
) -> float:
    """Return the strength whose fit on a balanced subset of one half suits the worst group of the other half best."""
    fitting = np.zeros(len(target), dtype=bool)
    for g in np.unique(group):
        members = generator.permutation(np.flatnonzero(group == g))
        fitting[members[: len(members) // 2]] = True
    scores = []
    subset = np.flatnonzero(fitting)[balanced_subset(group[fitting], generator)]
    for strength in inverse_strengths:
        weight, bias = _fit(scaled[subset], target[subset], strength)
        logits = scaled[~fitting] @ weight.T + bias
        scores.append(_worst_group_accuracy(logits, target[~fitting], group[~fitting]))
    return float(inverse_strengths[int(np.argmax(scores))])


def balanced_last_layer(
    features: NDArray[np.float32],
    target: Ints,
    group: Ints,
    n_subsets: int,
    inverse_strengths: Sequence[float],
    seed: int,
    n_classes: int | None = None,
) -> LastLayer:
    """Average l1 logistic regressions over balanced subsets, at the strength that suits the worst group best.

    Half of the examples chooses the strength: one fit on a balanced subset of the other half, per candidate.
    Features are standardised over all examples; the scaling is folded into the layer.

    Args:
        features: Encoder's features, ``(examples, features)``.
        target: Class per example, ``(examples,)``; every class must occur.
        group: Group per example, ``(examples,)``.
        n_subsets: Balanced subsets of all examples that are averaged.
        inverse_strengths: Candidates for C.
        seed: Seed of the halves and subsets.
        n_classes: Number of classes; the largest class plus one by default.

    Returns:
        The layer on raw features.

    Raises:
        DataError: If a class is missing, or a group present has fewer than two examples.
    """
    _check_examples(target, group, n_classes or int(target.max()) + 1)
    generator = np.random.default_rng(seed)
    center, scale = features.mean(0), features.std(0) + 1e-8
    scaled = ((features - center) / scale).astype(np.float64)

    best = _best_strength(scaled, target, group, inverse_strengths, generator)
    fits = []
    for _ in range(n_subsets):
        subset = balanced_subset(group, generator)
        fits.append(_fit(scaled[subset], target[subset], best))
    weight = np.mean([w for w, _ in fits], axis=0) / scale
    bias = np.mean([b for _, b in fits], axis=0) - weight @ center
    return LastLayer(weight, bias, best)
