"""How good predicted values of steps are: ranking, calibration, and the first wrong step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ("FirstErrors", "brier_score", "calibration_error", "first_error", "first_errors", "outcome_error", "ranking")


def brier_score(predicted: Float[Tensor, " prefixes"], values: Float[Tensor, " prefixes"]) -> float:
    """Return the mean squared difference of predicted and measured values. Reference: Brier 1950."""
    return float((predicted.double() - values.double()).square().mean())


def calibration_error(
    predicted: Float[Tensor, " prefixes"], values: Float[Tensor, " prefixes"], n_bins: int = 10
) -> float:
    """Return the expected calibration error: the mean distance of prediction and value over bins of equal width.

    Values may be shares: unlike for classes, a bin is right where its mean value is its mean prediction.

    Reference: Guo et al., ICML 2017, equation 3.
    """
    bins = (predicted.double() * n_bins).long().clamp(0, n_bins - 1)
    gaps = torch.zeros(n_bins, dtype=torch.double).index_add(0, bins, predicted.double() - values.double())
    return float(gaps.abs().sum() / len(predicted))


def ranking(predicted: Float[Tensor, " prefixes"], values: Float[Tensor, " prefixes"]) -> float:
    """Return the area under the ROC curve of predictions for values of at least 1/2; NaN where all are on one side.

    Args:
        predicted: Any numbers; their order counts.
        values: In [0, 1].
    """
    from torchmetrics.functional.classification import binary_auroc

    above = (values >= 0.5).long()
    if above.min() == above.max():
        return float("nan")
    levels, ranks = predicted.unique(return_inverse=True)  # numbers outside [0, 1] would be squashed, and become ties
    return float(binary_auroc(ranks.double() / len(levels), above))


def outcome_error(predicted: Float[Tensor, " prefixes"], outcomes: Float[Tensor, " prefixes"]) -> float:
    """Return how often a completion's outcome is not the one that a prefix's value predicts: right from 1/2 on.

    Args:
        predicted: Value of each prefix.
        outcomes: Of the whole completion that it begins, 1 for right and 0 for wrong.

    Reference: Setlur et al. 2024, arXiv 2410.08146, figure 10.
    """
    return float(((predicted >= 0.5) != (outcomes >= 0.5)).double().mean())


def first_error(values: Sequence[float], threshold: float) -> int:
    """Return the first step after which the predicted value is below a threshold, -1 if there is none.

    Args:
        values: After each step.
        threshold: In (0, 1].
    """
    return next((step for step, value in enumerate(values) if value < threshold), -1)


class FirstErrors(NamedTuple):
    """How often first wrong steps are found, as ProcessBench counts. Reference: Zheng et al. 2024, arXiv 2412.06559."""

    accuracy_wrong: float  # share of the solutions with a wrong step whose first one is found
    accuracy_right: float  # share of the solutions without one of which that is said
    f1: float  # harmonic mean of the two


def first_errors(found: Int[Tensor, " solutions"], truth: Int[Tensor, " solutions"]) -> FirstErrors:
    """Return how well first wrong steps are found.

    Args:
        found: Number of the first wrong step as predicted, -1 for none.
        truth: As it is.

    Raises:
        ValueError: If no solution has a wrong step, or all have.
    """
    wrong = truth >= 0
    if not wrong.any() or wrong.all():
        raise ValueError("first errors are judged on solutions of which some have a wrong step and some have none.")
    hits = (found == truth).double()
    on_wrong, on_right = float(hits[wrong].mean()), float(hits[~wrong].mean())
    return FirstErrors(on_wrong, on_right, 2 * on_wrong * on_right / max(on_wrong + on_right, 1e-12))
