"""Direct preference optimisation."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ("PreferenceLoss", "dpo_loss")


class PreferenceLoss(NamedTuple):
    """Losses of pairs and the implicit rewards, which have no gradient."""

    losses: Tensor  # (pairs,)
    chosen_rewards: Tensor  # beta times the log-ratio to the reference, nats, (pairs,)
    rejected_rewards: Tensor  # (pairs,)


def dpo_loss(
    chosen_logprobs: Float[Tensor, " pairs"],
    rejected_logprobs: Float[Tensor, " pairs"],
    reference_chosen_logprobs: Float[Tensor, " pairs"],
    reference_rejected_logprobs: Float[Tensor, " pairs"],
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """Return the sigmoid loss of each pair.

    Args:
        chosen_logprobs: Summed over the preferred completion's tokens, nats.
        rejected_logprobs: Summed over the other completion's tokens.
        reference_chosen_logprobs: The same under the reference policy.
        reference_rejected_logprobs: The same under the reference policy.
        beta: Strength of the implied KL penalty.
        label_smoothing: Assumed probability that a preference is the wrong way round, in [0, 0.5).

    Raises:
        ValueError: If beta is not positive and finite, or the smoothing outside its range.

    Reference: Rafailov et al., NeurIPS 2023, eq. 7; Mitchell 2023 for the smoothing.
    """
    if not 0 < beta < math.inf or not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"expected a finite beta > 0 and label_smoothing in [0, 0.5), got {beta} and {label_smoothing}."
        )
    chosen = beta * (chosen_logprobs - reference_chosen_logprobs)
    rejected = beta * (rejected_logprobs - reference_rejected_logprobs)
    margin = chosen - rejected
    losses = -(1 - label_smoothing) * F.logsigmoid(margin)
    if label_smoothing:
        losses = losses - label_smoothing * F.logsigmoid(-margin)
    return PreferenceLoss(losses, *(torch.stack((chosen, rejected)).detach()))
