"""A builder of preference pairs of a user's own."""

from collections.abc import Iterable

from surefoot.reasoning.completions.pairs import PairBuilder, PreferencePair
from surefoot.reasoning.completions.selection import Row

__all__ = ("SharedPrefixPairs",)


class SharedPrefixPairs(PairBuilder):
    """Prefers the step after a shared beginning: a pair's prompt holds the completion's first token."""

    def __call__(self, rows: Iterable[Row], seed: int) -> list[PreferencePair]:
        """Return a pair for each wrong completion."""
        wrong = [r for r in rows if r["status"] == "wrong"]
        return [PreferencePair([*r["prompt_ids"], r["target_ids"][0]], [7], r["target_ids"][1:]) for r in wrong]
