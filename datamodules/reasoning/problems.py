"""What every datamodule of problems shares: splits, subsets and the check for contamination."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info

from datamodules.reasoning.loaders import RecordLoader, RecordLoaders, RecordsDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.contamination import find_contaminated
from surefoot.reasoning.problems import Problem, checked_reference, unreadable_references
from surefoot.training.loading import ResumableDataLoader
from surefoot.training.seeds import derive_seed

__all__ = ("ProblemsDataModule", "SplitName")

SplitName = Literal["train", "val", "test"]


class ProblemsDataModule(RecordsDataModule, ABC):
    """Problems in three splits.

    Batches: ``problem`` (list of `Problem`) and ``index (batch,)``, the position in its split.
    """

    def __init__(
        self,
        n_train: int | None = None,
        n_val: int = 256,
        n_test: int | None = None,
        contamination: Literal["report", "drop", "off"] = "report",
        contamination_ngram: int = 13,
        **loading: Any,
    ) -> None:
        """Initialize the splits.

        Args:
            n_train: Use so many training problems; all by default.
            n_val: Problems held out for validation, from the training file unless there is a file of their own.
            n_test: Use the first so many test problems; all by default.
            contamination: What is done with training problems' doubles in val and test: report their number, drop
                them from val and test, or do not look.
            contamination_ngram: Words in a row that count as shared.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If a number is negative.
        """
        super().__init__(**loading)
        if n_val < 0 or contamination_ngram < 1 or min(n_train or 1, n_test or 1) < 0:
            raise ConfigError("n_train, n_val and n_test must not be negative.")
        self.limit_train, self.n_val, self.limit_test = n_train, n_val, n_test
        self.contamination, self.contamination_ngram = contamination, contamination_ngram
        self.splits: dict[SplitName, list[Problem]] = {}
        #: Per evaluation split, the ids of problems that share words with a training problem.
        self.contaminated: dict[SplitName, list[str]] = {}

    def recorded_splits(self) -> Mapping[str, Sequence[Problem]]:
        """Return the splits."""
        return dict(self.splits.items())

    @abstractmethod
    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return a split's problems; none if there is no such file. Without ``val``, train is split."""

    def _read(self, split: SplitName) -> list[Problem] | None:
        problems = self.read(split)
        if problems is None:
            return None
        for problem in problems:
            checked_reference(problem.answer, f"{type(self).__name__}, {split} problem {problem.id}")
        unreadable = unreadable_references([p.answer for p in problems])
        if unreadable:
            rank_zero_info(
                f"{type(self).__name__}, {split}: {len(unreadable)} of the reference answers cannot be read as a"
                f" number, words or a formula, so that only the same text equals them, such as {unreadable[0][:60]!r}."
            )
        return list(problems)

    def setup(self, stage: str) -> None:
        """Read the problems and split them; the same on every rank.

        Raises:
            DataError: If a reference answer is none that a completion could equal.
        """
        if self.splits:
            return
        train = self._read("train") or []
        val = self._read("val")
        if val is None:
            order = list(range(len(train)))
            random.Random(self.seed).shuffle(order)
            if self.n_val >= len(train) > 0:
                raise ConfigError(f"n_val is {self.n_val}, but there are {len(train)} training problems.")
            held, kept = sorted(order[: self.n_val]), sorted(order[self.n_val :])
            val, train = [train[i] for i in held], [train[i] for i in kept]
        else:
            val = val[: self.n_val]
        if self.limit_train is not None and self.limit_train < len(train):
            chosen = random.Random(derive_seed("limit_train", self.seed)).sample(range(len(train)), self.limit_train)
            train = [train[i] for i in sorted(chosen)]
        test = (self._read("test") or [])[: self.limit_test]
        self.splits = {"train": train, "val": val, "test": test}
        if self.contamination != "off":
            self._look_for_contamination()

    def _look_for_contamination(self) -> None:
        questions = [p.question for p in self.splits["train"]]
        for split in ("val", "test"):
            problems = self.splits[split]
            found = set(find_contaminated(questions, [p.question for p in problems], self.contamination_ngram))
            self.contaminated[split] = [problems[i].id for i in sorted(found)]
            if found:
                shown = [f"{problems[i].question[:60]!r}" for i in sorted(found)[:3]]
                more = ", ..." if len(found) > 3 else ""
                dropped = ": dropped" if self.contamination == "drop" else ""
                rank_zero_info(
                    f"{type(self).__name__}: {len(found)} of {len(problems)} {split} problems are training problems, or"
                    f" share {self.contamination_ngram} words in a row with one ({', '.join(shown)}{more}){dropped}"
                )
            if self.contamination == "drop":
                self.splits[split] = [p for i, p in enumerate(problems) if i not in found]

    def problems(self, split: SplitName) -> list[Problem]:
        """Return a split's problems.

        Raises:
            DataError: If it is empty.
        """
        self.setup("")
        if not self.splits[split]:
            raise DataError(f"{type(self).__name__} has no {split} problems.")
        return self.splits[split]

    @property
    def n_train(self) -> int:
        """Number of training problems."""
        return len(self.problems("train"))

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.problems("train"))

    def val_dataloader(self) -> RecordLoaders:
        """Return the validation loader, none without validation problems."""
        self.setup("")
        return self.evaluation_loader(self.splits["val"]) if self.splits["val"] else []

    def test_dataloader(self) -> RecordLoader:
        """Return the test loader."""
        return self.evaluation_loader(self.problems("test"))

    def collate(self, records: Sequence[Problem]) -> dict[str, list[Problem]]:
        """Return the batch's problems."""
        return {"problem": list(records)}
