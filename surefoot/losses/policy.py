"""Policy-gradient losses on tokens: GRPO, Dr. GRPO, DAPO, GSPO, CISPO.

Every kind is a weighted sum over tokens. The weights are known before the first forward pass, from the lengths of
all completions of an update on all ranks; so the sum over packs and ranks is the loss of the whole batch, however it is
cut.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.errors import ConfigError

__all__ = (
    "CORRECTION_KINDS",
    "LOSS_KINDS",
    "CorrectionKind",
    "LossKind",
    "MismatchCorrection",
    "PolicyLoss",
    "TokenLosses",
    "sequence_mean",
)

LossKind = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"]
LOSS_KINDS: tuple[LossKind, ...] = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
CorrectionKind = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
CORRECTION_KINDS: tuple[CorrectionKind, ...] = (
    "none",
    "token_truncate",
    "token_mask",
    "sequence_truncate",
    "sequence_mask",
)


class TokenLosses(NamedTuple):
    """Losses of tokens and what is watched in them; no gradient in the latter."""

    losses: Tensor  # (scored,), to be summed with the weights
    ratios: Tensor  # importance ratio of each token's policy, (scored,)
    clipped_low: Tensor  # whether the lower bound stopped a gradient, (scored,)
    clipped_high: Tensor  # whether the upper bound did, (scored,)
    kl: Tensor  # k3 estimate to the reference, nats, (scored,); 0 without one


class PolicyLoss:
    """The loss of a policy on tokens with advantages.

    With the ratio r of the policy to the old one: ``-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`` per token; in
    ``gspo`` r is the geometric mean over the sequence; in ``cispo`` the loss is ``-min(r, 1 + clip_high) A log pi``
    with no gradient through r. The k3 estimate of the KL divergence to a reference is added.

    Reference: Shao et al. 2024 (GRPO, eq. 3), Liu et al. 2025 (Dr. GRPO), Yu et al. 2025 (DAPO, eq. 8), Zheng et al.
    2025 (GSPO, eq. 5), MiniMax 2025 (CISPO, eq. 4).
    """

    def __init__(
        self,
        kind: LossKind = "dapo",
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        kl_coefficient: float = 0.0,
    ) -> None:
        """Initialize the loss.

        Args:
            kind: Whose loss: grpo, dr_grpo, dapo, gspo or cispo.
            clip_low: Distance of the ratio's lower bound from 1.
            clip_high: Distance of the ratio's upper bound from 1.
            kl_coefficient: Weight of the KL divergence to the initial policy; 0 holds no second model.

        Raises:
            ConfigError: If a number is negative, or the kind unknown.
        """
        if kind not in LOSS_KINDS:
            raise ConfigError(f"the loss's kind is {kind!r}: expected one of {', '.join(LOSS_KINDS)}.")
        for name, value in (("clip_low", clip_low), ("clip_high", clip_high), ("kl_coefficient", kl_coefficient)):
            if not value >= 0:
                raise ConfigError(f"{name} must not be negative, got {value}.")
        if kl_coefficient == math.inf:
            raise ConfigError(f"kl_coefficient must be finite, got {kl_coefficient}.")
        self.kind, self.clip_low, self.clip_high = kind, clip_low, clip_high
        self.kl_coefficient = kl_coefficient

    def token_weights(
        self, lengths: Float[Tensor, " sequences"], n_sequences: float, n_tokens: float, max_tokens: int
    ) -> Float[Tensor, " sequences"]:
        """Return the weight of each token of each sequence in the loss.

        ``grpo`` and ``gspo``: mean over each sequence, then over sequences. ``dr_grpo``: sum over the constant length
        limit. ``dapo`` and ``cispo``: mean over all tokens.

        Args:
            lengths: Scored tokens of this rank's sequences; at least 1 each.
            n_sequences: Sequences of the update, on all ranks; those without a scored token count.
            n_tokens: Scored tokens of the update, on all ranks.
            max_tokens: Limit on the length of completions, tokens.
        """
        if self.kind in ("grpo", "gspo"):
            return 1 / (n_sequences * lengths)
        divisor = n_sequences * max_tokens if self.kind == "dr_grpo" else n_tokens
        return torch.full_like(lengths, 1 / divisor)

    def __call__(
        self,
        logprobs: Float[Tensor, " scored"],
        old_logprobs: Float[Tensor, " scored"],
        advantages: Float[Tensor, " scored"],
        sequences: Int[Tensor, " scored"],
        reference_logprobs: Float[Tensor, " scored"] | None = None,
        correction: Float[Tensor, " scored"] | None = None,
    ) -> TokenLosses:
        """Return each token's loss.

        Args:
            logprobs: Of the policy, with gradient.
            old_logprobs: Of the policy before this rollout's updates.
            advantages: Of each token.
            sequences: Number of the sequence that a token belongs to.
            reference_logprobs: Of the reference policy; needed with a KL coefficient.
            correction: Weights of a `MismatchCorrection`, on all but the KL term; 1 by default.

        Raises:
            ValueError: If there is a KL coefficient and no reference.
        """
        log_ratios = logprobs - old_logprobs
        if self.kind == "gspo":
            log_ratios = sequence_mean(log_ratios, sequences)
        ratios = log_ratios.exp()
        if self.kind == "cispo":
            losses = -ratios.detach().clamp(max=1 + self.clip_high) * advantages * logprobs
            low = torch.zeros_like(ratios, dtype=torch.bool)
            high = (ratios > 1 + self.clip_high) & (advantages > 0)
        else:
            clipped = ratios.clamp(1 - self.clip_low, 1 + self.clip_high)
            losses = -torch.minimum(ratios * advantages, clipped * advantages)
            low = (ratios < 1 - self.clip_low) & (advantages < 0)
            high = (ratios > 1 + self.clip_high) & (advantages > 0)
        if correction is not None:
            losses = losses * correction
        kl = torch.zeros_like(logprobs)
        if self.kl_coefficient:
            if reference_logprobs is None:
                raise ValueError("a KL coefficient needs the reference's log-probabilities.")
            difference = reference_logprobs - logprobs
            kl = difference.exp() - difference - 1
            losses = losses + self.kl_coefficient * kl
        return TokenLosses(losses, ratios.detach(), low, high, kl.detach())


class MismatchCorrection:
    """Importance weights of the trainer's policy against the engine that sampled.

    Engine and trainer compute the same policy in other kernels or precision; where they disagree, samples come from
    another distribution than the loss assumes. Truncation takes ``min(ratio, cap)``; masking drops tokens, or whole
    sequences, whose ratio is above the cap. A sequence's ratio is the product over its tokens.

    Reference: Yao et al. 2025, Your efficient RL framework secretly brings you off-policy training.
    """

    def __init__(self, kind: CorrectionKind = "token_truncate", cap: float = 3.0) -> None:
        """Initialize the correction.

        Args:
            kind: What is done, per token or per sequence: none, token_truncate, token_mask, sequence_truncate or
                sequence_mask.
            cap: Largest ratio.

        Raises:
            ConfigError: If the kind is unknown or the cap not positive.
        """
        if kind not in CORRECTION_KINDS or not cap > 0:
            raise ConfigError(
                f"expected a positive cap and a kind of {', '.join(CORRECTION_KINDS)}, got {cap} and {kind!r}."
            )
        self.kind, self.cap = kind, cap

    def __call__(
        self,
        logprobs: Float[Tensor, " scored"],
        behaviour_logprobs: Float[Tensor, " scored"],
        sequences: Int[Tensor, " scored"],
    ) -> Float[Tensor, " scored"]:
        """Return each token's weight.

        Args:
            logprobs: Of the trainer, before the rollout's updates.
            behaviour_logprobs: Of the engine.
            sequences: Number of the sequence that a token belongs to.
        """
        if self.kind == "none":
            return torch.ones_like(logprobs)
        difference = (logprobs - behaviour_logprobs).detach()
        if self.kind.startswith("sequence"):
            n = int(sequences.max()) + 1 if len(sequences) else 0
            difference = difference.new_zeros(n).index_add(0, sequences, difference)[sequences]
        ratios = difference.exp()
        if self.kind.endswith("truncate"):
            return ratios.clamp(max=self.cap)
        kept: Bool[Tensor, " scored"] = ratios <= self.cap
        return ratios * kept


def sequence_mean(values: Float[Tensor, " scored"], sequences: Int[Tensor, " scored"]) -> Float[Tensor, " scored"]:
    """Return, at each token, the mean of its sequence's values.

    Args:
        values: One value per token.
        sequences: Number of the sequence that a token belongs to.
    """
    n = int(sequences.max()) + 1 if len(sequences) else 0
    zeros = values.new_zeros(n)
    sums = zeros.index_add(0, sequences, values)
    counts = zeros.index_add(0, sequences, torch.ones_like(values))
    return (sums / counts.clamp(min=1))[sequences]
