"""How a rollout is sampled: which problems get which completions, and who is compared with whom."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("GroupSampler", "TrajectorySampler")


class TrajectorySampler(ABC):
    """Samples the trajectories of a rollout; a method with prefixes or branches brings its own."""

    @abstractmethod
    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return the graded trajectories of all problems, group by group.

        Args:
            policy: What answers; it is ready.
            problems: What is to be solved.
            sampling: How completions are sampled.
            seed_of: From what a draw is for (a problem's id, and whatever distinguishes several draws) to its seed.
        """


class GroupSampler(TrajectorySampler):
    """``sampling.n`` whole completions of every problem; each problem is a group."""

    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return the graded trajectories of all problems."""
        starts = [Start(problem, group=group) for group, problem in enumerate(problems)]
        return policy.complete(starts, sampling, [seed_of(p.id) for p in problems])
