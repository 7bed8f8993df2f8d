"""CVaR-DRO: the mean loss of the worst share of the examples.

References: Duchi & Namkoong, arXiv 1810.08750; Levy et al., NeurIPS 2020, arXiv 2010.05893 (batch estimator).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ("cvar_dual_loss", "cvar_example_weights", "loss_quantile")


def _check_level(level: float) -> None:
    if not 0 < level <= 1:
        raise ValueError(f"level must be in (0, 1], got {level}.")


def cvar_example_weights(losses: Float[Tensor, " batch"], level: float) -> Float[Tensor, " batch"]:
    """Return the maximiser of the weighted loss over ``0 <= w <= 1/(level*batch)``, ``sum w = 1``.

    The ``floor(level*batch)`` highest losses get ``1/(level*batch)`` and the next one the remainder. The mean
    over a mini-batch underestimates the tail when ``level*batch`` is below about 5.

    Args:
        losses: Loss per example, ``(batch,)``; not differentiated.
        level: Share of the examples in the tail, in (0, 1]; 1 is ERM.

    Returns:
        Weights that sum to one, ``(batch,)``.

    Raises:
        ValueError: If ``level`` is outside (0, 1].
    """
    _check_level(level)
    size = level * len(losses)
    n_full = math.floor(size + 1e-9)
    order = losses.detach().argsort(descending=True, stable=True)
    sorted_weights = losses.new_zeros(len(losses))
    sorted_weights[:n_full] = 1 / size
    if n_full < len(losses):
        sorted_weights[n_full] = max(0.0, 1 - n_full / size)
    return torch.zeros_like(losses).scatter(0, order, sorted_weights)


def cvar_dual_loss(losses: Float[Tensor, " batch"], threshold: Float[Tensor, ""], level: float) -> Float[Tensor, ""]:
    """Return ``eta + mean(max(loss - eta, 0)) / level``, whose minimum over eta is CVaR.

    Args:
        losses: Loss per example, ``(batch,)``.
        threshold: The dual variable eta, in units of the loss.
        level: Share of the examples in the tail, in (0, 1].

    Returns:
        The dual objective.

    Raises:
        ValueError: If ``level`` is outside (0, 1].
    """
    _check_level(level)
    return threshold + (losses - threshold).relu().mean() / level


def loss_quantile(losses: Float[Tensor, " batch"], level: float) -> Float[Tensor, ""]:
    """Return the threshold eta above which a share ``level`` of the losses lies.

    It is the largest loss that CVaR's best response does not weight fully, so a best response to
    ``loss - eta`` over weights in [0, 1] marks exactly the ``floor(level*batch)`` highest distinct losses.

    Args:
        losses: Loss per example, ``(batch,)``.
        level: Share of the examples above the threshold, in (0, 1].

    Returns:
        The ``(1 - level)`` quantile, one of the losses, or just below the lowest for ``level = 1``.

    Raises:
        ValueError: If ``level`` is outside (0, 1].
    """
    _check_level(level)
    n_above = math.floor(level * len(losses) + 1e-9)
    descending = losses.detach().sort(descending=True).values
    if n_above >= len(losses):
        return descending[-1] - 1
    return descending[n_above]
