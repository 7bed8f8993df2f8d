"""Preference pairs whose two completions differ most: a control that does not know which step was wrong."""

import random
from collections import defaultdict
from collections.abc import Sequence

from surefoot.reasoning.completions.pairs import CorrectAndWrongPairs, Two
from surefoot.training.seeds import derive_seed

__all__ = ("EditDistancePairs", "edit_distance")


class EditDistancePairs(CorrectAndWrongPairs):
    """Each problem's distinct correct completions with its wrong ones, those of the highest edit distance.

    Reference: Setlur et al. 2024, arXiv 2406.14532, figure 7c, after Pal et al. 2024.
    """

    form = "edit_distance"

    def choose(self, every: list[Two], problem: str, seed: int) -> list[Two]:
        """Return those whose tokens differ most; ties are drawn."""
        random.Random(derive_seed("edit distance", seed, problem)).shuffle(every)
        every.sort(key=lambda pair: edit_distance(pair[0].completion, pair[1].completion), reverse=True)
        return every[: self.max_per_problem]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the fewest tokens that are inserted, deleted or replaced to turn one sequence into the other.

    Of the table of distances between all beginnings only the differences between neighbours are kept, a column of them
    in two integers: a step is a few operations on all bits.

    Reference: Hyyrö 2003, a bit-vector algorithm for computing Levenshtein and Damerau edit distances, figure 3.
    """
    if not first:
        return len(second)
    matches: dict[int, int] = defaultdict(int)  # token -> bit i where it is the first sequence's token i
    for i, token in enumerate(first):
        matches[token] |= 1 << i
    every, last, distance = (1 << len(first)) - 1, 1 << (len(first) - 1), len(first)
    more, less = every, 0  # bit i: whether the distance grows, or falls, from i tokens of the first to i + 1
    for token in second:
        match = matches.get(token, 0)
        diagonal = (((match & more) + more) ^ more) | match | less
        grows, falls = less | (every & ~(diagonal | more)), diagonal & more
        distance += bool(grows & last) - bool(falls & last)
        grows, falls = (grows << 1) | 1, falls << 1
        more, less = (falls | ~(diagonal | grows)) & every, grows & diagonal & every
    return distance
