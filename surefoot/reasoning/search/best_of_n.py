"""Best of N: whole completions, each with the values of its steps."""

from collections.abc import Sequence

from surefoot.errors import ConfigError
from surefoot.reasoning.credit import EffectiveReward
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf
from surefoot.reasoning.samplers import GroupSampler
from surefoot.reasoning.search.base import Search
from surefoot.reasoning.search.selection import Aggregate, score_of
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator, check_values

__all__ = ("BestOfN",)


class BestOfN(Search):
    """Samples N whole completions of each problem; a verifier scores all steps of each in one pass."""

    independent = True

    def __init__(
        self,
        verifier: ValueEstimator | None = None,
        score: EffectiveReward | None = None,
        aggregate: Aggregate = "mean",
        separator: str = "\n",
    ) -> None:
        """Initialize the search.

        Args:
            verifier: Gives the values; without one the answers can only be voted on.
            score: What a step is worth by them: completions are then ranked by their steps too, not only by the value
                of the last one, which is what an outcome reward model gives.
            aggregate: How the steps' worth becomes that of a completion.
            separator: What ends a step.

        Raises:
            ConfigError: If there is a score and no verifier.
        """
        super().__init__()
        if score is not None and verifier is None:
            raise ConfigError("score reads the values of a verifier: give one.")
        self.verifier, self.score, self.aggregate, self.separator = verifier, score, aggregate, separator

    def progress_of(self, trajectory: Trajectory) -> float | None:
        """Return what a completion's steps are worth together, none without a score."""
        return None if self.score is None else score_of(trajectory, self.score, self.aggregate)

    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return N graded completions of each problem, with values; arguments are those of `TrajectorySampler`.

        Raises:
            DataError: If the verifier gives other values than one per step.
        """
        found = GroupSampler()(policy, problems, sampling, seed_of)
        self.counts.generated_tokens += sum(t.n_sampled for t in found)
        self.counts.n_samples += len(found)
        self.counts.n_duplicates += len(found) - len({(t.group, *t.completion) for t in found})
        if self.verifier is not None:
            policy.cut_into_steps(found, self.separator)
            before = self.verifier.n_scored_tokens
            self.verifier(policy, found, seed_of)
            check_values(found, self.verifier)
            self.counts.scored_tokens += self.verifier.n_scored_tokens - before
        return found
