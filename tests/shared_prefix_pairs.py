"""A builder of preference pairs of a user's own."""

from collections.abc import Iterable

from surefoot.reasoning.completions.pairs import PairBuilder, PreferencePair
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("SharedPrefixPairs",)


class SharedPrefixPairs(PairBuilder):
    """Prefers the step after a shared beginning: a pair's prompt holds the completion's first token."""

    def __call__(self, trajectories: Iterable[Trajectory], seed: int) -> list[PreferencePair]:
        """Return a pair for each wrong completion."""
        wrong = [t for t in trajectories if t.grade is not None and t.grade.status == "wrong"]
        return [PreferencePair([*t.prompt, t.target[0]], [7], t.target[1:]) for t in wrong]
