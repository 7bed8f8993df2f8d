"""Completions and solutions of which some prefixes are judged: splits by problem, and balanced weights."""

import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datamodules.reasoning.loaders import RecordLoader, RecordsDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.values import Judged, JudgedText
from surefoot.training.loading import ResumableDataLoader

__all__ = ("JudgedDataModule",)


class JudgedDataModule(RecordsDataModule):
    """What a process or outcome reward model is trained and evaluated on; no problem is on two sides.

    Batches: ``judged`` (list of `Judged`, or of `JudgedText`) and ``index (batch,)``.
    """

    def __init__(
        self,
        balanced: bool = False,
        val_share: float = 0.1,
        test_share: float = 0.1,
        **loading: Any,
    ) -> None:
        """Initialize the data.

        Args:
            balanced: Weigh training prefixes with values below and from 1/2 so that both halves count alike. What is
                learned then ranks prefixes, and is no probability: the rarer half is overrated.
            val_share: Share of the problems that is held out for validation.
            test_share: Share that is held out for the test; 1 for data that are only tested on.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If the shares leave nothing to train on, and not all is for the test.
        """
        super().__init__(**loading)
        only_test = (val_share, test_share) == (0, 1)
        within = val_share >= 0 and test_share >= 0 and val_share + test_share < 1  # NaN is none of it
        if not (within or only_test):
            raise ConfigError(
                "val_share and test_share must sum to less than 1 and not be negative, or be 0 and 1, got"
                f" {val_share} and {test_share}."
            )
        self.balanced, self.val_share, self.test_share = balanced, val_share, test_share
        self._splits: dict[str, list[Judged | JudgedText]] = {}

    @abstractmethod
    def read(self) -> Iterator[tuple[str, Judged]] | Iterator[tuple[str, JudgedText]]:
        """Yield everything, each with the id of its problem.

        Raises:
            DataError: If something is missing or damaged.
        """

    def judged(self, split: str) -> Sequence[Judged | JudgedText]:
        """Return what train, val or test holds, in the order of its index.

        Raises:
            DataError: If there is nothing to train on, or something is damaged.
        """
        if not self._splits:
            by_problem: dict[str, list[Judged | JudgedText]] = defaultdict(list)
            for problem, judged in self.read():
                by_problem[problem].append(judged)
            problems = sorted(by_problem)
            random.Random(self.seed).shuffle(problems)
            n_val, n_test = (round(share * len(problems)) for share in (self.val_share, self.test_share))
            parts = {"val": problems[:n_val], "test": problems[n_val : n_val + n_test]}
            parts["train"] = problems[n_val + n_test :]
            self._splits = {name: [j for p in part for j in by_problem[p]] for name, part in parts.items()}
            if self.balanced:
                self._splits["train"] = _balanced(self._splits["train"])
        if not self._splits["train"] and (split == "train" or self.test_share < 1):
            raise DataError(f"{type(self).__name__} has no problem left to train on.")
        return self._splits[split]

    def prover(self) -> str:
        """Return the settings of what the labels were sampled with, as JSON; empty where they are not a prover's."""
        return ""

    def recorded_splits(self) -> Mapping[str, Sequence[Judged | JudgedText]]:
        """Return what each split holds."""
        splits = ("train", "val", "test") if self.test_share < 1 else ("test",)
        return {split: self.judged(split) for split in splits}

    @property
    def n_train(self) -> int:
        """Number of training completions."""
        return len(self.judged("train"))

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.judged("train"))

    def val_dataloader(self) -> RecordLoader:
        """Return the loader of the problems held out for validation."""
        return self.evaluation_loader(self.judged("val"))

    def test_dataloader(self) -> RecordLoader:
        """Return the loader of the problems held out for the test."""
        return self.evaluation_loader(self.judged("test"))

    def collate(self, records: Sequence[Judged | JudgedText]) -> dict[str, list[Judged | JudgedText]]:
        """Return the batch's completions."""
        return {"judged": list(records)}


def _balanced(judged: Sequence[Judged | JudgedText]) -> list[Judged | JudgedText]:
    """Return completions whose prefixes below and from 1/2 have equal weight in sum, and the whole weight is kept."""
    weighted = [(v, w) for j in judged for v, w in zip(j.values, j.weights, strict=True) if v is not None]
    high, total = sum(w for v, w in weighted if v >= 0.5), sum(w for _, w in weighted)
    if high in (0, total):
        return list(judged)
    factors = {True: total / (2 * high), False: total / (2 * (total - high))}

    def weights(j: Judged | JudgedText) -> list[float]:
        return [factors[v is not None and v >= 0.5] * w for v, w in zip(j.values, j.weights, strict=True)]

    return [j._replace(weights=weights(j)) for j in judged]
