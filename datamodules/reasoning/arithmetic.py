"""Chains of operations with exact correctness of every step: the didactic world."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from datamodules.reasoning.loaders import RecordsDataModule
from surefoot.errors import ConfigError
from surefoot.reasoning.arithmetic import (
    STYLES,
    ProceduralPolicy,
    arithmetic_problem,
    solved_problem,
    vary_chain,
)
from surefoot.reasoning.problems import Problem

__all__ = ("ArithmeticDataModule",)


class _Problems(Sequence[Problem]):
    """Problems of a seeded sequence whose questions are this split's, made when asked for.

    A question belongs to train, val or test by a hash of its text, so that no split ever shares one.
    """

    def __init__(self, module: "ArithmeticDataModule", split: str, size: int) -> None:
        self.module, self.split, self.size = module, split, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.module.problem(self.split, index)

    def __iter__(self) -> Iterator[Problem]:
        return (self[i] for i in range(self.size))


class ArithmeticDataModule(RecordsDataModule):
    """Chained additions, subtractions and multiplications, modulo a number or with carries.

    Batches: ``problem`` (list of `Problem`) and ``index (batch,)``. Problems are made when they are asked for: with
    ``n_train`` at the number of examples a run sees, no problem is seen twice. `surefoot.reasoning.arithmetic` judges
    steps and knows the success probability of a procedural policy from any prefix.
    """

    def __init__(
        self,
        n_train: int = 20_000,
        n_val: int = 256,
        n_test: int = 1000,
        min_steps: int = 3,
        max_steps: int = 5,
        modulus: int | None = 10,
        operators: str = "+-*",
        max_operand: int = 9,
        n_styles: int = 1,
        spurious_rate: float = 0.0,
        error_rate: float = 0.0,
        retry_rate: float = 0.0,
        **loading: Any,
    ) -> None:
        """Initialize the world.

        Args:
            n_train: Training problems.
            n_val: Validation problems.
            n_test: Test problems.
            min_steps: Fewest operations.
            max_steps: Most operations.
            modulus: Results are taken modulo this; null for whole numbers with carries.
            operators: Operators to choose from.
            max_operand: Largest operand.
            n_styles: Ways of writing a step, 1 to 3; a solution keeps to one.
            spurious_rate: Probability of a true but useless line before each step of a reference solution.
            error_rate: Probability of a wrong result in a reference solution's step.
            retry_rate: Probability that a wrong result is noticed, taken back and done again.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__(**loading)
        rates = (spurious_rate, error_rate, retry_rate)
        if not 1 <= min_steps <= max_steps or not 1 <= n_styles <= len(STYLES):
            raise ConfigError(
                f"expected 1 <= min_steps <= max_steps and n_styles in 1..{len(STYLES)}, got"
                f" {min_steps}, {max_steps} and {n_styles}."
            )
        if not all(0 <= r <= 1 for r in rates) or not operators or set(operators) - set("+-*"):
            raise ConfigError(f"rates lie in [0, 1] and operators in '+-*'; got {rates}, {operators!r}.")
        if error_rate * retry_rate == 1:
            raise ConfigError("with error_rate and retry_rate 1 a solution never ends.")
        self.sizes = {"train": n_train, "val": n_val, "test": n_test}
        self.n_steps, self.modulus = (min_steps, max_steps), modulus
        self.operators, self.max_operand = operators, max_operand
        self.policy = ProceduralPolicy(error_rate, retry_rate, spurious_rate, tuple(range(n_styles)))

    def problem(self, split: str, index: int) -> Problem:
        """Return a split's problem number ``index``."""
        attempt = 0
        while True:
            problem = arithmetic_problem(
                self.seed,
                index * 1000 + attempt,
                self.n_steps,
                self.modulus,
                self.operators,
                self.max_operand,
                self.policy,
            )
            if _split_of(problem.question) == split:
                return problem._replace(id=f"arithmetic-{self.seed}-{split}-{index}")
            attempt += 1

    def variant(self, parent: Problem, number: int) -> Problem:
        """Return a training problem like a given one: one number or operator of its chain is another.

        Args:
            parent: A problem of this world.
            number: Which variant; equal numbers give equal variants.
        """
        draw = random.Random(f"{parent.id}/{number}")
        while True:
            question = vary_chain(parent.question, draw, self.operators, self.max_operand)
            if _split_of(question) == "train":
                break
        identity = f"{parent.id}-variant-{number}"
        return solved_problem(identity, question, self.policy, draw)

    def problems(self, split: str) -> Sequence[Problem]:
        """Return a split's problems."""
        return _Problems(self, split, self.sizes[split])

    @property
    def n_train(self) -> int:
        """Number of training problems."""
        return self.sizes["train"]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader."""
        return self.training_loader(self.problems("train"))

    def val_dataloader(self) -> Any:
        """Return the validation loader, none without validation problems."""
        return self.evaluation_loader(self.problems("val")) if self.sizes["val"] else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self.evaluation_loader(self.problems("test"))

    def collate(self, records: Sequence[Problem]) -> dict[str, Any]:
        """Return the batch's problems."""
        return {"problem": list(records)}


def _split_of(question: str) -> str:
    """Return the split that a question belongs to: 80% train, 10% val, 10% test."""
    from zlib import crc32

    position = crc32(question.encode()) % 10
    return "val" if position == 0 else "test" if position == 1 else "train"
