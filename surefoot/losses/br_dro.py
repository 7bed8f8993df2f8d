"""BR-DRO: distributional robustness against an adversary of bounded bitrate.

The learner minimises a weighted loss; the adversary, which sees the label and a description of the example but not the
loss, chooses weights that are large where losses are high, at a cost for its complexity.

Reference: Setlur et al., ICLR 2023, arXiv 2302.02931.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = (
    "adversary_objective",
    "br_dro_example_weights",
    "br_dro_risk",
    "tail_classification_loss",
)


def adversary_objective(
    weights: Float[Tensor, " batch"],
    losses: Float[Tensor, " batch"],
    threshold: Float[Tensor, ""],
    complexity: Float[Tensor, ""],
    penalty: float,
) -> Float[Tensor, ""]:
    """Return what the adversary maximises, ``mean[w * (loss - eta)] - penalty * complexity``.

    Args:
        weights: The adversary's weights in [0, 1], ``(batch,)``.
        losses: Loss per example, ``(batch,)``; not differentiated.
        threshold: eta, in units of the loss; examples below it lower the objective.
        complexity: Complexity of the adversary (nats for a bottleneck, a norm otherwise).
        penalty: Cost of one unit of complexity, at least 0.

    Returns:
        The objective; larger is better for the adversary.
    """
    return (weights * (losses.detach() - threshold)).mean() - penalty * complexity


def tail_classification_loss(
    logits: Float[Tensor, " batch"], losses: Float[Tensor, " batch"], threshold: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return the class-balanced cross-entropy of separating losses above the threshold from the rest.

    The surrogate of the authors' code: both sides count half whatever their sizes; an empty side counts zero.

    Args:
        logits: The adversary's logits, ``(batch,)``.
        losses: Loss per example, ``(batch,)``; not differentiated.
        threshold: eta, in units of the loss.

    Returns:
        Balanced binary cross-entropy; smaller is better for the adversary.
    """
    tail = (losses.detach() > threshold).to(logits.dtype)
    errors = F.binary_cross_entropy_with_logits(logits, tail, reduction="none")
    in_tail = (errors * tail).sum() / tail.sum().clamp_min(1)
    in_bulk = (errors * (1 - tail)).sum() / (1 - tail).sum().clamp_min(1)
    return (in_tail + in_bulk) / 2


def br_dro_example_weights(
    weights: Float[Tensor, " batch"],
    level: float,
    normalisation: Literal["batch", "level"] = "batch",
    floor: float = 0.0,
) -> Float[Tensor, " batch"]:
    """Turn the adversary's weights into the learner's.

    Args:
        weights: The adversary's weights in [0, 1], ``(batch,)``; no gradient flows through them.
        level: Share of the examples in the tail, a0.
        normalisation: ``batch`` divides by the weights' sum, which is scale-free (the authors' images and first
            toy, which add 1e-3 where this takes it as the least sum); ``level`` divides by ``level * batch``, the
            Lagrangian itself (their second toy).
        floor: Smallest weight before normalisation, in [0, 1]; keeps a saturated adversary from freezing the learner.

    Returns:
        Weights whose weighted sum of losses is the learner's loss, ``(batch,)``.
    """
    weights = weights.detach().clamp_min(floor)
    if normalisation == "level":
        return weights / (level * len(weights))
    return weights / weights.sum().clamp_min(1e-3)


def br_dro_risk(
    weights: Float[Tensor, " batch"],
    losses: Float[Tensor, " batch"],
    threshold: Float[Tensor, ""],
    level: float,
) -> Float[Tensor, ""]:
    """Return ``eta + mean[w * (loss - eta)] / level``, CVaR when w is the unrestricted best response."""
    return threshold + (weights * (losses - threshold)).mean() / level
