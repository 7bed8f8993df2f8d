"""Preference pairs made of stored completions: which completion of a problem is preferred to which other."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from surefoot.errors import ConfigError
from surefoot.reasoning.completions.selection import correct_completions, distinct_completions, group_by_problem
from surefoot.reasoning.policy import Start
from surefoot.reasoning.sequences import PromptCompletion
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.seeds import derive_seed

__all__ = (
    "CorrectAndWrongPairs",
    "PairBuilder",
    "PairRecord",
    "Pit",
    "PreferencePair",
    "RandomPairs",
    "TextPair",
    "Two",
)


Two = tuple[PromptCompletion, PromptCompletion]  # a correct completion, and a wrong one


class Pit(NamedTuple):
    """The step with which a wrong completion was lost, and its values before and after that step."""

    step: int  # its number in the completion, from 1
    n_prefix: int  # tokens of the completion before it
    values: tuple[float, float]  # of one attempt
    counts: tuple[int, int]  # attempts behind these; 0 where a value is known exactly
    best_of_k: tuple[float, float]  # of the best of k attempts
    k: int


class PairRecord(NamedTuple):
    """Where a pair comes from."""

    problem: str  # its id
    form: str  # what is preferred to what
    pit: Pit | None = None


class PreferencePair(NamedTuple):
    """Two continuations of one prompt, the first preferred; token ids."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    record: PairRecord | None = None


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

    def starts(self, trajectories: Iterable[Trajectory], seed: int) -> list[Start]:
        """Return from where continuations are missing, which ``surefoot pairs`` samples; by default none are.

        Those that end right come to the trajectories of the call.
        """
        return []

    def left_out(self, trajectories: Iterable[Trajectory], seed: int) -> Mapping[str, int]:
        """Return how many wrong completions are in no pair, by reason; by default reasons are not told."""
        return {}


class CorrectAndWrongPairs(PairBuilder):
    """Each problem's distinct correct completions with its wrong ones, of which a subclass chooses some."""

    form: str  # stands in records

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
        return [
            PreferencePair(c.prompt, c.completion, w.completion, PairRecord(problem, self.form))
            for problem, group in group_by_problem(trajectories).items()
            for c, w in self.choose(correct_and_wrong(group, seed), problem, seed)
        ]

    @abstractmethod
    def choose(self, every: list[Two], problem: str, seed: int) -> list[Two]:
        """Return at most ``max_per_problem`` of a problem's correct completions with a wrong one."""


class RandomPairs(CorrectAndWrongPairs):
    """Each problem's distinct correct completions with its wrong ones, at random, without repeats."""

    form = "random"

    def choose(self, every: list[Two], problem: str, seed: int) -> list[Two]:
        """Return some of them, drawn without repeats."""
        n = min(len(every), self.max_per_problem)
        return random.Random(derive_seed("pairs", seed, problem)).sample(every, n)


def correct_and_wrong(completions: Sequence[Trajectory], seed: int) -> list[Two]:
    """Return every distinct correct completion of a problem with every distinct wrong one; truncated ones are left out.

    Args:
        completions: Graded ones of one problem.
        seed: Of whatever is drawn.
    """
    chosen = [t.target_sequence for t in correct_completions(completions, len(completions), seed)]
    wrong = [t for t in completions if t.grade is not None and t.grade.status == "wrong" and t.finish_reason == "stop"]
    rejected = [t.target_sequence for t in distinct_completions(wrong)]
    return [(c, w) for c in chosen for w in rejected if c.prompt == w.prompt]  # what was given counts to it
