"""GRPO with process supervision: every step has its own reward."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from surefoot.reasoning.credit.base import CreditAssigner, by_group, check_epsilon
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("PerStepAdvantage",)


class PerStepAdvantage(CreditAssigner):
    """Rewards of steps, normalised over all steps of a group; a token gets those of its own step and of later ones.

    Steps that were given to the policy have no part in it.

    Reference: Shao et al. 2024, section 4.1.3 (``horizon`` to_go). With ``immediate`` a step gets its own reward only.
    """

    def __init__(
        self,
        horizon: Literal["to_go", "immediate"] = "to_go",
        scale: Literal["group", "none"] = "group",
        epsilon: float = 1e-4,
    ) -> None:
        """Initialize the assigner.

        Args:
            horizon: Whether later steps' normalised rewards are added to a step's own.
            scale: Divide by the standard deviation of the group's step rewards, or not.
            epsilon: Added to the standard deviation.

        Raises:
            ConfigError: If epsilon is negative or not finite.
        """
        check_epsilon(epsilon)
        self.horizon, self.scale, self.epsilon = horizon, scale, epsilon

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return advantages per token; 0 for a group whose steps all have the same reward."""
        advantages = [torch.zeros(len(t.completion)) for t in trajectories]
        for members in by_group(trajectories).values():
            learned = [_learned(trajectories[i]) for i in members]
            rewards = torch.tensor([r for own in learned for _, r in own], dtype=torch.float64)
            if len(rewards) == 0 or bool((rewards == rewards[0]).all()):
                continue
            rewards = rewards - rewards.mean()
            if self.scale == "group":
                rewards = rewards / (rewards.std() + self.epsilon)
            parts = rewards.split([len(own) for own in learned])
            for i, own, values in zip(members, learned, parts, strict=True):
                if self.horizon == "to_go":
                    values = values.flip(0).cumsum(0).flip(0)
                for (span, _), value in zip(own, values.tolist(), strict=True):
                    advantages[i][span.start : span.end] = value
        return advantages


def _learned(trajectory: Trajectory) -> list[tuple[Span, float]]:
    """Return the spans that are the policy's doing with their rewards."""
    pairs = zip(trajectory.token_spans(), trajectory.rewards, strict=True)
    return [(span, reward) for span, reward in pairs if trajectory.is_learned(span)]
