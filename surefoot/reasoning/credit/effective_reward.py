"""The effective reward of process advantage verifiers: the outcome, and the prover's progress in each step."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.credit.base import CreditAssigner, by_group, check_epsilon
from surefoot.reasoning.credit.progress import progress, prover_values
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("EffectiveRewardAdvantage",)


class EffectiveRewardAdvantage(CreditAssigner):
    """Outcome plus ``alpha`` times a prover's advantage in the step that a token belongs to, against the group.

    A step gets its own advantage at once, not the sum of later ones: those add up to the outcome less the value of
    where the step began, which adds no information. With ``alpha`` 0 this is learning from outcomes alone. The values
    of trajectories are the prover's; the prover is the best of ``k`` attempts of whom they are of.

    Reference: Setlur et al. 2024, arXiv 2410.08146, eq. 5 and appendix E: alpha 5 (2B) and 3 (9B).
    """

    def __init__(
        self,
        alpha: float = 3.0,
        k: int = 1,
        bonus: Literal["advantage", "value"] = "advantage",
        baseline: Literal["group", "none"] = "group",
        scale: Literal["group", "none"] = "none",
        epsilon: float = 1e-4,
    ) -> None:
        """Initialize the assigner.

        Args:
            alpha: Weight of the bonus.
            k: Attempts of the prover, of which the best counts; the paper reinforces with a policy's own values, and
                searches with the best of 4.
            bonus: The prover's advantage in a step, or for comparison its value after it, which rewards steps that do
                nothing (appendix G).
            baseline: Whether the group's means of the outcomes and of the steps' bonuses are subtracted.
            scale: Divide by the standard deviation of the group's effective rewards, or not.
            epsilon: Added to the standard deviation.

        Raises:
            ConfigError: If a number is out of range.
        """
        if not 0 <= alpha < float("inf") or k < 1:
            raise ConfigError(f"expected alpha >= 0 and k >= 1, got {alpha} and {k}.")
        if scale == "group" and baseline == "none":
            raise ConfigError(
                "scale group divides by the spread around the group's mean, which baseline none does not subtract: set"
                " baseline group, or scale none."
            )
        check_epsilon(epsilon)
        self.alpha, self.k, self.bonus = alpha, k, bonus
        self.baseline, self.scale, self.epsilon = baseline, scale, epsilon

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return advantages per token; 0 for what was given.

        Raises:
            DataError: If a trajectory has no values of its steps.
        """
        advantages = [torch.zeros(len(t.completion)) for t in trajectories]
        for members in by_group(trajectories).values():
            own = [trajectories[i] for i in members]
            outcomes = _centred(torch.tensor([t.total_reward for t in own], dtype=torch.float64), self.baseline)
            steps = [(n, span, bonus) for n, t in enumerate(own) for span, bonus in self._bonuses(t)]
            bonuses = _centred(torch.tensor([b for *_, b in steps], dtype=torch.float64), self.baseline)
            worth = outcomes[[n for n, *_ in steps]] + self.alpha * bonuses
            if self.scale == "group" and len(steps) > 1:
                worth = worth / (worth.std() + self.epsilon)
            for (n, span, _), value in zip(steps, worth.tolist(), strict=True):
                advantages[members[n]][span.start : span.end] = value
        return advantages

    def _bonuses(self, trajectory: Trajectory) -> list[tuple[Span, float]]:
        """Return the spans that are the policy's doing with their bonuses."""
        spans = trajectory.token_spans()
        if self.alpha == 0:
            bonuses = [0.0] * len(spans)
        elif len(trajectory.values) != len(spans) + 1:
            raise DataError(
                f"{type(self).__name__} reads values of steps: set model.init_args.values, such as LearnedValues, and"
                " rewards.step_separator."
            )
        elif self.bonus == "advantage":
            bonuses = progress(trajectory, self.k)
        else:
            bonuses = prover_values(trajectory, self.k)[1:]
        return [(span, b) for span, b in zip(spans, bonuses, strict=True) if trajectory.is_learned(span)]


def _centred(numbers: Tensor, baseline: str) -> Tensor:
    """Return numbers less their mean, exactly 0 where all are the same; as they are without a baseline."""
    if baseline == "none" or len(numbers) == 0:
        return numbers
    return torch.zeros_like(numbers) if bool((numbers == numbers[0]).all()) else numbers - numbers.mean()
