"""Preference pairs made of stored completions: which completion of a problem is preferred to which other."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from surefoot.errors import ConfigError
from surefoot.reasoning.completions.selection import correct_completions, distinct_completions, group_by_problem
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.seeds import derive_seed

__all__ = ("PairBuilder", "PreferencePair", "RandomPairs", "TextPair")


class PreferencePair(NamedTuple):
    """Two continuations of one prompt, the first preferred; token ids."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


class TextPair(NamedTuple):
    """Two answers to one question, the first preferred; they become token ids as a method's prompt writes them."""

    prompt: str
    chosen: str
    rejected: str


class PairBuilder(ABC):
    """Makes preference pairs of completions; a method that pairs otherwise brings its own.

    A pair's prompt may hold the beginning of a completion: then the pair prefers one step to another.
    """

    @abstractmethod
    def __call__(self, trajectories: Iterable[Trajectory], seed: int) -> list[PreferencePair]:
        """Return pairs of token ids.

        Args:
            trajectories: Graded completions of all problems, with whatever else is known of them.
            seed: Of whatever is drawn.
        """


class RandomPairs(PairBuilder):
    """Each problem's distinct correct completions with its wrong ones, at random, without repeats."""

    def __init__(self, max_per_problem: int = 4) -> None:
        """Initialize the builder.

        Args:
            max_per_problem: Most pairs of a problem.

        Raises:
            ConfigError: If it is not positive.
        """
        if max_per_problem < 1:
            raise ConfigError(f"max_per_problem must be positive, got {max_per_problem}.")
        self.max_per_problem = max_per_problem

    def __call__(self, trajectories: Iterable[Trajectory], seed: int) -> list[PreferencePair]:
        """Return pairs of each problem that has both a correct and a wrong completion."""
        pairs: list[PreferencePair] = []
        for problem, group in group_by_problem(trajectories).items():
            chosen = [t.target_sequence for t in correct_completions(group, len(group), seed)]
            wrong = [
                t for t in group if t.grade is not None and t.grade.status == "wrong" and t.finish_reason == "stop"
            ]
            rejected = [t.target_sequence for t in distinct_completions(wrong)]
            every = [(c, w) for c in chosen for w in rejected if c.prompt == w.prompt]  # what was given counts to it
            n = min(len(every), self.max_per_problem)
            for i in random.Random(derive_seed("pairs", seed, problem)).sample(range(len(every)), n):
                c, w = every[i]
                pairs.append(PreferencePair(c.prompt, c.completion, w.completion))
        return pairs
