"""What a search is, and what it took."""

from dataclasses import dataclass

from surefoot.reasoning.samplers import TrajectorySampler
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator

__all__ = ("Search", "SearchCounts")


@dataclass
class SearchCounts:
    """What searches took so far."""

    generated_tokens: int = 0  # sampled, those of dropped candidates included
    scored_tokens: int = 0  # that the verifier's values cost, put through its model or sampled
    n_samples: int = 0  # steps of a beam search, whole completions of best of N
    n_duplicates: int = 0  # samples that were the same as another of their pool

    def since(self, earlier: "SearchCounts") -> "SearchCounts":
        """Return the counts since an earlier copy."""
        return SearchCounts(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})


class Search(TrajectorySampler):
    """Finds candidates for each problem's answer, with the values of their steps where it has a verifier.

    ``sampling.n`` is the search's width N: how many candidates of each problem it looks for. ``sampling.max_tokens``
    counts a whole candidate, however many draws make it up. The candidates depend on the problem, the policy's weights
    and the seeds, not on what else is searched.
    """

    #: Whether candidates are sampled independently, so that any N of them are what a search for N finds.
    independent = False

    #: What gives candidates their values; none where their answers are voted on.
    verifier: ValueEstimator | None = None

    def __init__(self) -> None:
        """Begin to count."""
        self.counts = SearchCounts()

    def check_width(self, n: int) -> None:
        """Raise a `ConfigError` if this search cannot look for n candidates; by default it can for any number."""

    def progress_of(self, trajectory: Trajectory) -> float | None:
        """Return what a candidate's steps are worth together, where they rank it in another way than its last value."""
        return None
