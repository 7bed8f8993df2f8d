"""Group DRO: the worst group's risk by online ascent on group weights.

Reference: Sagawa et al., ICLR 2020, arXiv 1911.08731, Algorithm 1.
"""

from jaxtyping import Float, Int
from torch import Tensor

from surefoot.groups import group_counts

__all__ = ("group_dro_example_weights", "update_group_log_weights")


def update_group_log_weights(
    log_weights: Float[Tensor, " groups"], losses: Float[Tensor, " groups"], step_size: float
) -> Float[Tensor, " groups"]:
    """Take one exponentiated-gradient ascent step on the simplex, in logarithms so that nothing underflows.

    Args:
        log_weights: Logarithms of the group weights q, ``(groups,)``.
        losses: Mean loss per group with its adjustment C/sqrt(n), ``(groups,)``; 0 for an absent group.
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
