"""Chains of operations with exact correctness of every step: the didactic world."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, overload

from datamodules.reasoning.loaders import RecordLoader, RecordLoaders, RecordsDataModule
from surefoot.errors import DataError
from surefoot.reasoning.arithmetic import (
    Chains,
    ProceduralPolicy,
    draw_question,
    solved_problem,
    vary_chain,
)
from surefoot.reasoning.problems import Problem
from surefoot.training.loading import ResumableDataLoader

__all__ = ("ArithmeticDataModule",)

#: Questions that are drawn until one is of the split that is asked for; about one in ten is
_ATTEMPTS = 1000


class _Problems(Sequence[Problem]):
    """Problems of a seeded sequence whose questions are this split's, made when asked for.

    A question belongs to train, val or test by a hash of its text, so that no split ever shares one.
    """

    def __init__(self, module: "ArithmeticDataModule", split: str, size: int) -> None:
        self.module, self.split, self.size = module, split, size

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(self.size)[index]]
        return self.module.problem(self.split, range(self.size)[index])

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(self.size))


class ArithmeticDataModule(RecordsDataModule):
    """Chained additions, subtractions and multiplications, modulo a number or with carries.

    Batches: ``problem`` (list of `Problem`) and ``index (batch,)``. Problems are made when they are asked for: with
    ``n_train`` at the number of examples a run sees, no problem is seen twice. `surefoot.reasoning.arithmetic` judges
    steps and computes the success probability of a procedural policy from any prefix.
    """

    def __init__(
        self,
        n_train: int = 20_000,
        n_val: int = 256,
        n_test: int = 1000,
        chains: Chains | None = None,
        solutions: ProceduralPolicy | None = None,
        **loading: Any,
    ) -> None:
        """Initialize the world.

        Args:
            n_train: Training problems.
            n_val: Validation problems.
            n_test: Test problems.
            chains: What questions are drawn from; by default 3 to 5 operations modulo 10.
            solutions: How reference solutions are written; by default without errors, retries and spurious lines.
            loading: Arguments of `RecordsDataModule`.
        """
        super().__init__(**loading)
        self.sizes = {"train": n_train, "val": n_val, "test": n_test}
        self.chains, self.solutions = chains or Chains(), solutions or ProceduralPolicy()

    def problem(self, split: str, index: int) -> Problem:
        """Return a split's problem number ``index``.

        Raises:
            DataError: If the world is too small to have a question of that split.
        """
        for attempt in range(_ATTEMPTS):
            question, draw = draw_question(self.seed, index * _ATTEMPTS + attempt, self.chains)
            if _split_of(question) == split:
                return solved_problem(f"arithmetic-{self.seed}-{split}-{index}", question, self.solutions, draw)
        raise DataError(f"none of {_ATTEMPTS} questions is of the split {split}: {self.chains} is too small a world.")

    def variant(self, parent: Problem, number: int) -> Problem:
        """Return a training problem like a given one: one number or operator of its chain is another.

        Args:
            parent: A problem of this world.
            number: Which variant; equal numbers give equal variants.

        Raises:
            DataError: If the world is too small to have one.
        """
        draw = random.Random(f"{parent.id}/{number}")  # no derive_seed: committed curation is of these variants
        for _ in range(_ATTEMPTS):
            question = vary_chain(parent.question, draw, self.chains.operators, self.chains.max_operand)
            if _split_of(question) == "train":
                return solved_problem(f"{parent.id}-variant-{number}", question, self.solutions, draw)
        raise DataError(
            f"none of {_ATTEMPTS} variants of {parent.id} is a training question: {self.chains} is too small a world."
        )

    def problems(self, split: str) -> Sequence[Problem]:
        """Return a split's problems."""
        return _Problems(self, split, self.sizes[split])

    @property
    def n_train(self) -> int:
        """Number of training problems."""
        return self.sizes["train"]

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.problems("train"))

    def val_dataloader(self) -> RecordLoaders:
        """Return the validation loader, none without validation problems."""
        return self.evaluation_loader(self.problems("val")) if self.sizes["val"] else []

    def test_dataloader(self) -> RecordLoader:
        """Return the test loader."""
        return self.evaluation_loader(self.problems("test"))

    def collate(self, records: Sequence[Problem]) -> dict[str, list[Problem]]:
        """Return the batch's problems."""
        return {"problem": list(records)}


def _split_of(question: str) -> str:
    """Return the split that a question belongs to: 80% train, 10% val, 10% test."""
    from zlib import crc32

    position = crc32(question.encode()) % 10
    return "val" if position == 0 else "test" if position == 1 else "train"
