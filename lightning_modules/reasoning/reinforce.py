"""REINFORCE with a learned baseline: reinforcement learning with process rewards, as its paper does it."""

from typing import Any

from torch import Tensor

from lightning_modules.reasoning.grpo import GRPO, CreditedRollout
from surefoot.errors import ConfigError
from surefoot.reasoning.credit import CreditAssigner, EffectiveRewardAdvantage
from surefoot.reasoning.language_models import ValueHead
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.sequences import Pack, PromptCompletion, TokenScores
from surefoot.training.distributed import is_sharded

__all__ = ("Reinforce",)


class Reinforce(GRPO):
    """Compares each token's effective reward with what a head predicts of it where the token begins.

    The head reads the policy's hidden states and learns by the squared error; its gradient stays in the head, so that
    it changes the baseline and not the policy. Completions of a problem need not be compared: one of each is enough.

    Reference: Setlur et al. 2024, arXiv 2410.08146, appendix E; Williams 1992.
    """

    compares_completions = False

    def __init__(
        self,
        sampling: Sampling | None = None,
        credit: CreditAssigner | None = None,
        baseline_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Initialize the method.

        Args:
            sampling: How completions are sampled; by default one of each problem, at temperature 1, of at most 256
                tokens.
            credit: What each token is worth; by default EffectiveRewardAdvantage without a baseline of its own, which
                reads ``values``.
            baseline_weight: Weight of the squared error in the loss.
            kwargs: Arguments of `GRPO`.

        Raises:
            ConfigError: If the weight is not positive.
        """
        credit = credit or EffectiveRewardAdvantage(baseline="none")
        super().__init__(sampling=sampling or Sampling(n=1), credit=credit, **kwargs)
        if not 0 < baseline_weight < float("inf"):
            raise ConfigError(f"baseline_weight must be positive, got {baseline_weight}.")
        self.baseline_weight = baseline_weight
        self.value_head = ValueHead(self.language_model.width)

    def on_fit_start(self) -> None:
        """Refuse sharded weights, of which the head and the policy would read the same forward pass."""
        super().on_fit_start()
        if is_sharded(self):
            raise ConfigError("Reinforce does not train sharded weights: use strategy ddp, or GRPO.")

    def scores_and_advantages(self, pack: Pack, rollout: CreditedRollout) -> tuple[TokenScores, Tensor, Tensor]:
        """Return scores, advantages over the predicted baseline, and the baseline's error."""
        hidden = pack.at_predictors(self.language_model.hidden_states(pack))
        worth, expected = pack.gather(rollout.advantages), self.value_head(hidden.detach())
        scores = self.language_model.score_hidden(hidden, pack, self.temperature)
        return scores, worth - expected.detach(), self.baseline_weight * (expected - worth).square()

    def trained_sequences(self, rollout: CreditedRollout) -> list[PromptCompletion]:
        """Return all sequences: the baseline learns from every one."""
        return [t.sequence for t in rollout.trajectories]
