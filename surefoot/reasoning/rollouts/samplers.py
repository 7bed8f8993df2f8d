"""How a rollout is sampled: which prompts get which completions, and who is compared with whom."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts.engine import RolloutEngine, Sampling
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("GroupSampler", "TrajectorySampler")


class TrajectorySampler(ABC):
    """Samples the trajectories of a rollout; a method with prefixes or branches brings its own."""

    @abstractmethod
    def __call__(
        self,
        engine: RolloutEngine,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[Trajectory]:
        """Return the trajectories of all problems, group by group.

        Args:
            engine: Engine with the present policy.
            problems: One per prompt.
            prompts: Token ids.
            sampling: How completions are sampled.
            seeds: One per prompt.
        """


class GroupSampler(TrajectorySampler):
    """``sampling.n`` whole completions of every prompt; each prompt is a group."""

    def __call__(
        self,
        engine: RolloutEngine,
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[Trajectory]:
        """Return the trajectories of all problems."""
        sampled = engine.generate(prompts, sampling, seeds)
        return [
            Trajectory(problem, group, prompt, c.tokens, c.logprobs, c.finish_reason, c.version)
            for group, (problem, prompt, completions) in enumerate(zip(problems, prompts, sampled, strict=True))
            for c in completions
        ]
