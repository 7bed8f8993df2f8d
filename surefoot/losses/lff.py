"""LfF: a biased network's losses weight those of a debiased one.

Reference: Nam et al., NeurIPS 2020, arXiv 2007.02561, Algorithm 1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ("class_maximum", "generalized_cross_entropy", "relative_difficulty")


def generalized_cross_entropy(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], q: float = 0.7
) -> Float[Tensor, " batch"]:
    """Return cross-entropy scaled by ``q * p_y**q`` with p_y detached, as in the authors' code.

    Its gradient is q times that of ``(1 - p_y**q) / q``: examples that the network already predicts well weigh more.

    Args:
        logits: Class scores, ``(batch, classes)``.
        target: Class per example, ``(batch,)``.
        q: Exponent in (0, 1].

    Returns:
        Loss per example, ``(batch,)``.

    Raises:
        ValueError: If ``q`` is outside (0, 1].
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must be in (0, 1], got {q}.")
    losses = F.cross_entropy(logits, target, reduction="none")
    return losses * (q * (-losses.detach()).exp() ** q)


def class_maximum(
    losses: Float[Tensor, " examples"], target: Int[Tensor, " examples"], n_classes: int
) -> Float[Tensor, " classes"]:
    """Return the largest value within each class, at least 0, ``(classes,)``."""
    return torch.zeros(n_classes, dtype=losses.dtype, device=losses.device).scatter_reduce(0, target, losses, "amax")


def relative_difficulty(biased: Float[Tensor, " batch"], debiased: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return ``biased / (biased + debiased)`` in [0, 1], 1/2 where the two losses are equal (zero ones too)."""
    return (biased + 5e-9) / (biased + debiased + 1e-8)
