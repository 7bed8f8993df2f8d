"""GRPO's advantage: a completion's reward against its group's mean."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from surefoot.reasoning.credit.base import CreditAssigner, by_group, check_epsilon
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.distributed import sum_over_ranks

__all__ = ("GroupAdvantage",)


class GroupAdvantage(CreditAssigner):
    """Reward minus the group's mean, over a standard deviation; the same for all tokens of a completion.

    Where all rewards of a group agree, the advantages are exactly 0.

    Reference: Shao et al. 2024, section 4.1.2; without scaling: Liu et al. 2025 (Dr. GRPO).
    """

    def __init__(self, scale: Literal["group", "batch", "none"] = "group", epsilon: float = 1e-4) -> None:
        """Initialize the assigner.

        Args:
            scale: Divide by the standard deviation of the group, of the whole batch on all ranks, or not at all.
            epsilon: Added to the standard deviation.

        Raises:
            ConfigError: If epsilon is negative or not finite.
        """
        check_epsilon(epsilon)
        self.scale, self.epsilon = scale, epsilon

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return advantages per token."""
        rewards = torch.tensor([t.total_reward for t in trajectories], dtype=torch.float64)
        advantages = torch.zeros_like(rewards)
        spread = _batch_deviation(rewards) if self.scale == "batch" else 1.0
        for members in by_group(trajectories).values():
            own = rewards[members]
            if bool((own == own[0]).all()):
                continue
            centred = own - own.mean()
            if self.scale == "group":
                centred = centred / (own.std() + self.epsilon)
            elif self.scale == "batch":
                centred = centred / (spread + self.epsilon)
            advantages[members] = centred
        return [
            torch.full((len(t.completion),), float(a)) for t, a in zip(trajectories, advantages.tolist(), strict=True)
        ]


def _batch_deviation(rewards: Tensor) -> float:
    """Return the standard deviation over all ranks' rewards; 0 for a single one."""
    ones = torch.ones_like(rewards)
    n, total, squares = sum_over_ranks(torch.stack([ones.sum(), rewards.sum(), rewards.square().sum()])).tolist()
    if n < 2:
        return 0.0
    return float(max(0.0, (squares - total * total / n) / (n - 1)) ** 0.5)
