"""Best of N: whole completions, each with the values of its steps."""

from collections.abc import Sequence

from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf
from surefoot.reasoning.samplers import GroupSampler
from surefoot.reasoning.search.base import Search
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator, check_values

__all__ = ("BestOfN",)


class BestOfN(Search):
    """Samples N whole completions of each problem; a verifier scores all steps of each in one pass."""

    independent = True

    def __init__(self, verifier: ValueEstimator | None = None, separator: str = "\n") -> None:
        """Initialize the search.

        Args:
            verifier: Gives the values; without one the answers can only be voted on.
            separator: What ends a step.
        """
        super().__init__()
        self.verifier, self.separator = verifier, separator

    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return N graded completions of each problem, with values; arguments are those of `Search`.

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
