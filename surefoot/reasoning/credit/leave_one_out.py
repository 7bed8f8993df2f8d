"""RLOO's advantage: a completion's reward against the mean of the others'."""

from collections.abc import Sequence

import torch
from torch import Tensor

from surefoot.reasoning.credit.base import CreditAssigner, by_group
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("LeaveOneOutAdvantage",)


class LeaveOneOutAdvantage(CreditAssigner):
    """Reward minus the mean reward of the group's other completions, an unbiased baseline; 0 for a group of one.

    Reference: Ahmadian et al. 2024; Kool et al. 2019.
    """

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return advantages per token."""
        advantages = [0.0] * len(trajectories)
        for members in by_group(trajectories).values():
            rewards = [trajectories[i].total_reward for i in members]
            if len(set(rewards)) == 1:
                continue
            total, n = sum(rewards), len(rewards)
            for i, reward in zip(members, rewards, strict=True):
                advantages[i] = reward - (total - reward) / (n - 1)
        return [torch.full((len(t.completion),), a) for t, a in zip(trajectories, advantages, strict=True)]
