"""Direct preference optimisation, by the sigmoid loss or by that of IPO."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import ConfigError

__all__ = ("PreferenceKind", "PreferenceLoss", "check_preference", "dpo_loss")

PreferenceKind = Literal["sigmoid", "ipo"]


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
    kind: PreferenceKind = "sigmoid",
) -> PreferenceLoss:
    """Return the loss of each pair.

    With the margin h, the log-ratio to the reference of the chosen completion less that of the rejected one:
    ``-log sigmoid(beta h)``, or for ``ipo`` ``(h - 1 / (2 beta))^2``, which is least at a finite margin. Log-ratios are
    sums over tokens for both, as in the papers, where a completion is one action; with means over tokens, as some
    libraries have it, the margin that IPO asks for would grow with the completions' length.

    Args:
        chosen_logprobs: Summed over the preferred completion's tokens, nats.
        rejected_logprobs: Summed over the other completion's tokens.
        reference_chosen_logprobs: The same under the reference policy.
        reference_rejected_logprobs: The same under the reference policy.
        beta: Strength of the implied KL penalty.
        label_smoothing: Assumed probability that a preference is the wrong way round, in [0, 0.5); of ``sigmoid`` only.
        kind: Whose loss: sigmoid (DPO) or ipo.

    Raises:
        ConfigError: If an argument is out of range.

    Reference: Rafailov et al., NeurIPS 2023, eq. 7; Mitchell 2023 for the smoothing; Azar et al. 2023, arXiv
    2310.12036, eq. 17, whose tau is beta.
    """
    check_preference(beta, label_smoothing, kind)
    chosen = beta * (chosen_logprobs - reference_chosen_logprobs)
    rejected = beta * (rejected_logprobs - reference_rejected_logprobs)
    margin = chosen - rejected
    losses = ((margin - 0.5) / beta).square() if kind == "ipo" else _sigmoid_losses(margin, label_smoothing)
    return PreferenceLoss(losses, *(torch.stack((chosen, rejected)).detach()))


def _sigmoid_losses(margin: Tensor, label_smoothing: float) -> Tensor:
    losses = -(1 - label_smoothing) * F.logsigmoid(margin)
    return losses - label_smoothing * F.logsigmoid(-margin) if label_smoothing else losses


def check_preference(beta: float, label_smoothing: float, kind: PreferenceKind) -> None:
    """Raise a `ConfigError` unless these are settings of `dpo_loss`."""
    if kind not in ("sigmoid", "ipo"):
        raise ConfigError(f"the loss is {kind!r}: expected sigmoid or ipo.")
    if not 0 < beta < math.inf or not 0 <= label_smoothing < 0.5:
        raise ConfigError(
            f"expected a finite beta > 0 and label_smoothing in [0, 0.5), got {beta} and {label_smoothing}."
        )
    if kind == "ipo" and label_smoothing:
        raise ConfigError(f"label_smoothing belongs to the sigmoid loss: set it to 0 for ipo, got {label_smoothing}.")
