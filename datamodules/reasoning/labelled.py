"""Completions with values of their steps, to train and evaluate process and outcome reward models on."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datamodules.reasoning.loaders import RecordLoader, RecordsDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import Judged, prefix_lengths
from surefoot.training.loading import ResumableDataLoader

__all__ = ("LabelledCompletionsDataModule",)


class LabelledCompletionsDataModule(RecordsDataModule):
    """What ``surefoot label`` wrote, or ``surefoot generate``; problems are split, so that none is on two sides.

    Batches: ``judged`` (list of `Judged`) and ``index (batch,)``.
    """

    def __init__(
        self,
        completions: Path,
        judge: Literal["steps", "outcome", "tokens"] = "steps",
        balanced: bool = True,
        val_share: float = 0.1,
        test_share: float = 0.1,
        **loading: Any,
    ) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot label wrote; for outcomes and tokens that of surefoot generate will do.
            judge: Prefixes with a label: after every step and the prompt, the value; after the last step, the outcome;
                or after every token, the outcome of the whole.
            balanced: Weigh training prefixes with values below and from 1/2 so that both halves count alike.
            val_share: Share of the problems that is held out for validation.
            test_share: Share that is held out for the test.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If the shares leave nothing to train on.
        """
        super().__init__(**loading)
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise ConfigError(f"val_share and test_share must sum to less than 1, got {val_share} and {test_share}.")
        self.completions, self.judge, self.balanced = Path(completions), judge, balanced
        self.val_share, self.test_share = val_share, test_share
        self._splits: dict[str, list[Judged]] = {}

    def judged(self, split: str) -> list[Judged]:
        """Return the completions of train, val or test, in the order of their index.

        Raises:
            DataError: If there are none to train on, or they lack values.
        """
        if not self._splits:
            by_problem: dict[str, list[Judged]] = defaultdict(list)
            for i, t in enumerate(read_trajectories(self.completions)):
                by_problem[t.problem.id].append(self._judged(t, i))
            problems = sorted(by_problem)
            random.Random(self.seed).shuffle(problems)
            n_val, n_test = (round(share * len(problems)) for share in (self.val_share, self.test_share))
            parts = {"val": problems[:n_val], "test": problems[n_val : n_val + n_test]}
            parts["train"] = problems[n_val + n_test :]
            self._splits = {name: [j for p in part for j in by_problem[p]] for name, part in parts.items()}
            if self.balanced:
                self._splits["train"] = _balanced(self._splits["train"])
        if not self._splits["train"]:
            raise DataError(f"{self.completions} leaves no problem to train on.")
        return self._splits[split]

    def _judged(self, t: Trajectory, row: int) -> Judged:
        where = f"{self.completions}, row {row + 1}"
        if t.grade is None:
            raise DataError(f"{where} has no grade.")
        outcome, n = float(t.grade.correct), len(t.completion)
        if self.judge == "outcome":
            return Judged(t.prompt, t.completion, [n], [outcome], [1.0])
        if self.judge == "tokens":
            return Judged(t.prompt, t.completion, range(n + 1), [outcome] * (n + 1), [1.0] * (n + 1))
        lengths = prefix_lengths(t)
        if len(t.values) != len(lengths):
            raise DataError(
                f"{where} has {len(t.values)} values for {len(lengths)} prefixes: label it with surefoot label, or set"
                " judge: outcome."
            )
        if not all(0 <= v <= 1 for v in t.values):  # NaN is neither
            raise DataError(f"{where} has the values {list(t.values)}: expected probabilities in [0, 1].")
        return Judged(t.prompt, t.completion, lengths, t.values, [1.0] * len(lengths))

    def recorded_splits(self) -> Mapping[str, Sequence[Judged]]:
        """Return the completions of each split."""
        return {split: self.judged(split) for split in ("train", "val", "test")}

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

    def collate(self, records: Sequence[Judged]) -> dict[str, list[Judged]]:
        """Return the batch's completions."""
        return {"judged": list(records)}


def _balanced(judged: Sequence[Judged]) -> list[Judged]:
    """Return completions whose prefixes below and from 1/2 have equal weight in sum, and weight 1 on average."""
    values = [v for j in judged for v in j.values]
    n_high = sum(v >= 0.5 for v in values)
    if n_high in (0, len(values)):
        return list(judged)
    low, high = (len(values) / (2 * n) for n in (len(values) - n_high, n_high))
    return [j._replace(weights=[high if v >= 0.5 else low for v in j.values]) for j in judged]
