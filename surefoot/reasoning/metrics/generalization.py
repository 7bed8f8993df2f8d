"""Older predictors of how well a model generalises, to compare pre-memorization accuracy with.

Reference: Kang et al. 2024, section on baselines: gradient variance (Jiang et al. 2019), distance from initialisation
(Nagarajan and Kolter 2019), average thresholded confidence (Garg et al. 2022).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ("atc_accuracy", "atc_threshold", "gradient_variance", "squared_distance")


def gradient_variance(gradients: Sequence[Sequence[Tensor]]) -> float:
    """Return the variance of gradients between batches, per coordinate, averaged over all coordinates.

    Args:
        gradients: For each of at least two batches the gradient of every parameter, in one order.

    Raises:
        ValueError: If there are fewer than two batches.
    """
    if len(gradients) < 2:
        raise ValueError(f"a variance takes at least two batches, got {len(gradients)}.")
    total, count = 0.0, 0
    for parts in zip(*gradients, strict=True):
        total += float(torch.stack(list(parts)).double().var(0).sum())
        count += parts[0].numel()
    return total / count


def squared_distance(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """Return the squared Euclidean distance of weights from where they started; only what ``start`` names counts."""
    return sum(
        float(((weights[name].detach().cpu() - value.cpu()).double() ** 2).sum()) for name, value in start.items()
    )


def atc_threshold(confidences: Float[Tensor, " examples"], accuracy: float) -> float:
    """Return the confidence that as large a share of examples exceeds as is known to be right.

    Args:
        confidences: Of each example's prediction.
        accuracy: Known accuracy, in [0, 1].
    """
    ordered = confidences.double().sort(descending=True).values
    n_above = round(accuracy * len(ordered))
    if n_above == 0:
        return float(ordered[0])
    if n_above == len(ordered):
        return float(ordered[-1]) - 1.0
    return float(ordered[n_above - 1] + ordered[n_above]) / 2


def atc_accuracy(confidences: Float[Tensor, " examples"], threshold: float) -> float:
    """Return the predicted accuracy: the share of examples whose confidence exceeds the threshold."""
    return float((confidences.double() > threshold).double().mean())
