"""Group DRO: the worst group's risk by online ascent on group weights.

Reference: Sagawa et al., ICLR 2020, arXiv 1911.08731, Algorithm 1.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.classification.groups import group_counts

__all__ = (
    "InitialWeights",
    "group_dro_example_weights",
    "initial_group_weights",
    "update_group_log_weights",
)


class InitialWeights(NamedTuple):
    """Where the group weights start, and what is added to each group's loss."""

    log_weights: Float[Tensor, " groups"]
    adjustments: Float[Tensor, " groups"]


def initial_group_weights(counts: Float[Tensor, " groups"], adjustment: float = 0.0) -> InitialWeights:
    """Return even weights over the groups that have training examples; the others have weight 0 for good.

    Args:
        counts: Training examples of each group, ``(groups,)``.
        adjustment: C of the generalisation adjustment C/sqrt(training examples of the group).

    Returns:
        Logarithms of the weights, minus infinity for a group without examples, and adjustments, 0 for it.

    Raises:
        ValueError: If no group has an example.
    """
    present = counts > 0
    if not present.any():
        raise ValueError(f"no group has a training example, got counts {counts.tolist()}.")
    start = torch.where(present, 0.0, -torch.inf).to(counts)
    adjusted = torch.where(present, adjustment / counts.clamp_min(1).sqrt(), 0.0)
    return InitialWeights(start.log_softmax(0), adjusted)


def update_group_log_weights(
    log_weights: Float[Tensor, " groups"], losses: Float[Tensor, " groups"], step_size: float
) -> Float[Tensor, " groups"]:
    """Take one exponentiated-gradient ascent step on the simplex, in logarithms so that nothing underflows.

    Args:
        log_weights: Logarithms of the group weights q, ``(groups,)``.
        losses: Mean loss per group with its adjustment C/sqrt(n), ``(groups,)``; 0 for a group that the batch lacks.
        step_size: Ascent rate per optimizer step.

    Returns:
        Logarithms of the new weights, which sum to one, ``(groups,)``.

    Raises:
        ValueError: If ``step_size`` is negative.
    """
    if step_size < 0:
        raise ValueError(f"step_size must be at least 0, got {step_size}.")
    return (log_weights + step_size * losses).log_softmax(0)


def group_dro_example_weights(
    log_weights: Float[Tensor, " groups"], group: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Spread each group's weight evenly over its examples in the batch.

    The weighted sum of the losses is then ``sum_g q_g * mean loss of g``; absent groups add nothing.

    Args:
        log_weights: Logarithms of the group weights, ``(groups,)``.
        group: Group index per example, ``(batch,)``.

    Returns:
        Weight per example, ``(batch,)``.
    """
    shares = log_weights.exp() / group_counts(group, len(log_weights)).clamp_min(1)
    return shares[group]
