"""What a credit assigner is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from surefoot.reasoning.trajectories import Trajectory

__all__ = ("CreditAssigner", "by_group")


class CreditAssigner(ABC):
    """Turns the rewards of a rollout into advantages; the policy loss knows nothing of how."""

    @abstractmethod
    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return, for each trajectory, an advantage per token, ``(completion,)``, float32.

        Args:
            trajectories: A rollout with rewards, and with values where a `ValueEstimator` estimated them; groups are
                complete.
        """


def by_group(trajectories: Sequence[Trajectory]) -> dict[int, list[int]]:
    """Return the positions of each group's trajectories."""
    groups: dict[int, list[int]] = {}
    for i, t in enumerate(trajectories):
        groups.setdefault(t.group, []).append(i)
    return groups
