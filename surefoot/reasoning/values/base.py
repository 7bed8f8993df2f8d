"""What a value estimator is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from surefoot.errors import DataError
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rollouts import SeedOf
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("ValueEstimator", "check_labels", "check_values")


class ValueEstimator(ABC):
    """Estimates values of a rollout's prefixes, by sampling from them or with a model of its own.

    A credit assigner reads the values; it never samples.
    """

    @abstractmethod
    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values``: of the prompt, then after each of `Trajectory.token_spans`.

        Args:
            policy: The policy that sampled the trajectories; it is ready.
            trajectories: Graded ones, cut into spans.
            seed_of: From what a draw is for to its seed.
        """

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in the values that are missing at the end: those of the spans by which trajectories have grown.

        Arguments are those of the call. An estimator that can spares what is known; this one computes all anew.
        """
        self(policy, trajectories, seed_of)

    def forget(self) -> None:  # noqa: B027  # most estimators keep nothing
        """Free what `extend` has kept of trajectories that grow; by default there is nothing."""

    def close(self) -> None:  # noqa: B027  # most estimators hold nothing
        """Free what it holds beside this process; the next call takes it again. By default there is nothing."""

    @property
    def n_scored_tokens(self) -> int:
        """Tokens that its values have cost so far, put through a model or sampled; 0 for one that computes them."""
        return 0


def check_values(trajectories: Sequence[Trajectory], estimator: ValueEstimator) -> None:
    """Raise a `DataError` unless every trajectory has a finite value of its prompt and one after each span."""
    name = type(estimator).__name__
    for t in trajectories:
        expected = len(t.token_spans()) + 1
        if len(t.values) != expected:
            raise DataError(
                f"{name} gave {len(t.values)} values to a completion of {expected - 1} spans: expected {expected}, the"
                " prompt's and one after each span."
            )
        if not all(math.isfinite(v) for v in t.values):
            raise DataError(f"{name} gave the values {[float(v) for v in t.values]}: expected finite numbers.")


def check_labels(trajectory: Trajectory, where: str) -> None:
    """Raise a `DataError` unless a stored completion has a probability for its prompt and one after each span.

    Args:
        trajectory: The completion.
        where: It is stored, for errors.
    """
    expected = len(trajectory.token_spans()) + 1
    if len(trajectory.values) != expected:
        raise DataError(
            f"{where} has {len(trajectory.values)} values for {expected} prefixes: label it with surefoot label."
        )
    if not all(0 <= v <= 1 for v in trajectory.values):  # NaN is neither
        raise DataError(f"{where} has the values {list(trajectory.values)}: expected probabilities in [0, 1].")
