"""What a credit assigner is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("CreditAssigner", "by_group", "check_epsilon")


class CreditAssigner(ABC):
    """Turns the rewards of a rollout into advantages; the policy loss knows nothing of how."""

    @abstractmethod
    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return, for each trajectory, an advantage per token, ``(completion,)``, float32.

        Args:
            trajectories: A rollout with rewards, and with values where a `ValueEstimator` estimated them; groups are
                complete.
        """


def check_epsilon(epsilon: float) -> None:
    """Raise a `ConfigError` unless what is added to a standard deviation is finite and not negative."""
    if not 0 <= epsilon < math.inf:
        raise ConfigError(f"epsilon must be at least 0 and finite, got {epsilon}.")


def by_group(trajectories: Sequence[Trajectory]) -> dict[int, list[int]]:
    """Return the positions of each group's trajectories."""
    groups: dict[int, list[int]] = {}
    for i, t in enumerate(trajectories):
        groups.setdefault(t.group, []).append(i)
    return groups
