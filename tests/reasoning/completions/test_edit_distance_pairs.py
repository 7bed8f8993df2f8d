"""Pairs of the highest edit distance, and the distance itself."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions import EditDistancePairs, PairRecord
from surefoot.reasoning.completions.edit_distance_pairs import edit_distance
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.trajectories import Trajectory


def table(first: list[int], second: list[int]) -> int:
    """The distance of all beginnings, row by row."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        below = [i]
        for j, b in enumerate(second, 1):
            below.append(min(row[j] + 1, below[-1] + 1, row[j - 1] + (a != b)))
        row = below
    return row[-1]


def test_the_distance_counts_insertions_deletions_and_replacements() -> None:
    """kitten -> sitten -> sittin -> sitting."""
    assert edit_distance([*b"kitten"], [*b"sitting"]) == 3
    assert edit_distance([], [1, 2]) == edit_distance([1, 2], []) == 2
    assert edit_distance([], []) == edit_distance([1, 2, 3], [1, 2, 3]) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=80), st.lists(st.integers(0, 4), max_size=80))
def test_the_distance_is_that_of_the_table(first: list[int], second: list[int]) -> None:
    """Beyond a machine word, too."""
    assert edit_distance(first, second) == table(first, second) == edit_distance(second, first)


def completion(problem: str, tokens: list[int], status: Any) -> Trajectory:
    known = {"text": str(tokens), "target": tokens, "grade": Grade(status, None)}
    return Trajectory(Problem(problem, "q", "1"), 0, [1], tokens, [0.0] * len(tokens), "stop", 0, **known)


def test_each_problem_s_farthest_pairs_are_chosen() -> None:
    """Distances of the problem's right one: 1, 3, 2; that of the other problem has no wrong one."""
    group = [completion("a", [5, 6, 7, 2], "correct"), completion("b", [5, 2], "correct")]
    group += [completion("a", tokens, "wrong") for tokens in ([5, 6, 8, 2], [9, 9, 9, 2], [5, 8, 8, 2])]
    found = EditDistancePairs(2)(group, 0)
    assert [(pair.chosen, pair.rejected) for pair in found] == [
        ([5, 6, 7, 2], [9, 9, 9, 2]),
        ([5, 6, 7, 2], [5, 8, 8, 2]),
    ]
    assert found[0].record == PairRecord("a", "edit_distance")
    with pytest.raises(ConfigError, match="max_per_problem must be positive"):
        EditDistancePairs(0)


def test_ties_are_drawn() -> None:
    group = [completion("a", [5, 2], "correct")] + [completion("a", [6 + i, 2], "wrong") for i in range(9)]
    random.shuffle(group)
    assert len({tuple(EditDistancePairs(1)(group, seed)[0].rejected) for seed in range(20)}) > 3
    assert EditDistancePairs(1)(group, 3) == EditDistancePairs(1)(group, 3)
