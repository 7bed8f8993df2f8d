"""What a step is worth by the values before and after it: the scores of search and the rewards of learning."""

import warnings
from dataclasses import dataclass
from itertools import pairwise

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.metrics import best_of_k_estimate
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("EffectiveReward", "progress", "prover_values")


def prover_values(trajectory: Trajectory, k: int) -> list[float]:
    """Return the values of a prover that takes the best of k attempts, from the values of one.

    Sampled values with at least k attempts give unbiased estimates, see `best_of_k_estimate`, where their number was
    fixed and not stopped by what was sampled; others count as exact. Warnings tell of numbers that differ within a
    completion, as where attempts were stopped, and of fewer attempts than k.

    Args:
        trajectory: With values.
        k: Attempts of the prover.

    Raises:
        DataError: If k is not 1 and a value is no probability, or no share of its attempts.
    """
    if k == 1:
        return list(trajectory.values)
    counts = trajectory.value_counts or [0] * len(trajectory.values)
    if 0 < (least := min((n for n in counts if n), default=0)) < k:
        warnings.warn(
            f"values of the best of {k} are made of {least} attempts, and are too low: label with n of at least {k}, or"
            f" take k up to {least}.",
            stacklevel=2,
        )
    if len({n for n in counts if n}) > 1:
        warnings.warn(
            "the attempts behind values differ in number, as where they stop early (half_width, first_pit): values of"
            f" the best of {k} that are made of them are biased. Label without either, or take k 1.",
            stacklevel=2,
        )
    try:
        return best_of_k_estimate(trajectory.values, counts, k)
    except ValueError as error:
        raise DataError(
            f"a completion of problem {trajectory.problem.id} has the values {[float(v) for v in trajectory.values]},"
            f" of which the best of {k} is not known: {error}"
        ) from error


def progress(trajectory: Trajectory, k: int = 1) -> list[float]:
    """Return the advantage of each span: how much more likely a right end is after it, for the best of k attempts.

    Values of one attempt become those of k before they are subtracted; arguments and errors are those of
    `prover_values`.

    Reference: Setlur et al. 2024, arXiv 2410.08146, eq. 2.
    """
    return [after - before for before, after in pairwise(prover_values(trajectory, k))]


@dataclass(frozen=True)
class EffectiveReward:
    """A step's value under the policy, and ``alpha`` times the prover's advantage in it.

    The prover is the best of ``k`` attempts of the policy whose values are given.

    Args:
        alpha: Weight of the advantage; with 0 a step is worth its value.
        k: Attempts of the prover.

    Raises:
        ConfigError: If a number is out of range.

    Reference: Setlur et al. 2024, arXiv 2410.08146, sections 3.1 and 4.1: alpha .5 (.2 for the largest model), k 4.
    """

    alpha: float = 0.0
    k: int = 4

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.alpha < float("inf") or self.k < 1:
            raise ConfigError(f"expected alpha >= 0 and k >= 1, got {self.alpha} and {self.k}.")

    def __call__(self, trajectory: Trajectory) -> list[float]:
        """Return what each span is worth.

        Args:
            trajectory: With values.
        """
        values = trajectory.values[1:]
        if self.alpha == 0:
            return list(values)
        return [v + self.alpha * a for v, a in zip(values, progress(trajectory, self.k), strict=True)]
