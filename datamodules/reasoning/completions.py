"""Stored completions to fine-tune on, and pairs of them to prefer one over the other."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules.reasoning.loaders import RecordLoader, RecordsDataModule
from surefoot.contracts import ProblemSource, offers
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions import PairBuilder, PreferencePair, RandomPairs, TextPair
from surefoot.reasoning.completions.pair_files import read_pairs
from surefoot.reasoning.completions.selection import correct_completions
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.sequences import PromptCompletion
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.loading import ResumableDataLoader

__all__ = ("CompletionsDataModule", "PreferencesDataModule", "StoredRecordsDataModule")


class StoredRecordsDataModule(RecordsDataModule, ABC):
    """Stored records to train on, and problems beside them to evaluate on by sampling.

    Validation and test have the held-out records, if there are any, and the problems of the same split, as loaders one
    after the other; to predict is to answer the problems.
    """

    def __init__(self, evaluate_on: LightningDataModule | None = None, **loading: Any) -> None:
        """Initialize the data.

        Args:
            evaluate_on: Datamodule whose val and test problems are answered in evaluation, such as GSM8KDataModule; the
                method needs an engine.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If that datamodule has no problems.
        """
        super().__init__(**loading)
        self.evaluate_on = evaluate_on
        if evaluate_on is not None and not offers(evaluate_on, ProblemSource):
            raise ConfigError(f"evaluate_on: {type(evaluate_on).__name__} has no problems to evaluate on.")

    @abstractmethod
    def held_out(self) -> Sequence[object]:
        """Return the records that are not trained on."""

    def prepare_data(self) -> None:
        """Prepare the problems."""
        if self.evaluate_on is not None:
            self.evaluate_on.prepare_data()

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of each split's records, and of the problems' splits."""
        found = super().fingerprints()
        if isinstance(self.evaluate_on, RecordsDataModule):
            self.evaluate_on.setup("fit")
            found |= {f"evaluate_on/{split}": value for split, value in self.evaluate_on.fingerprints().items()}
        return found

    def val_dataloader(self) -> list[RecordLoader]:
        """Return the loaders of the held-out records and of the validation problems; one or both may be missing."""
        return self._loaders("val")

    def test_dataloader(self) -> list[RecordLoader]:
        """Return the loaders of the held-out records and of the test problems.

        Raises:
            ConfigError: If there are neither.
        """
        loaders = self._loaders("test")
        if not loaders:
            raise ConfigError(
                f"{type(self).__name__} has nothing to evaluate on: set data.init_args.evaluate_on, or evaluate with"
                " data such as GSM8KDataModule in a --config beside --ckpt_path."
            )
        return loaders

    def predict_dataloader(self) -> RecordLoader:
        """Return the loader of the test problems, or of the held-out records where there are no problems."""
        return self.test_dataloader()[-1]

    def _loaders(self, split: str) -> list[RecordLoader]:
        records = self.held_out()
        loaders = [self.evaluation_loader(records)] if records else []
        if self.evaluate_on is None:
            return loaders
        given = self.evaluate_on.val_dataloader() if split == "val" else self.evaluate_on.test_dataloader()
        return [*loaders, *(given if isinstance(given, list) else [given])]


class CompletionsDataModule(StoredRecordsDataModule):
    """The distinct correct completions of a dataset that ``surefoot generate`` wrote.

    Batches: ``prompt`` and ``completion`` (lists of token ids) and ``index (batch,)``; of problems, as theirs.
    """

    def __init__(
        self,
        completions: Path,
        max_per_problem: int = 4,
        distinct: bool = True,
        **loading: Any,
    ) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot generate wrote.
            max_per_problem: Most correct completions kept of a problem.
            distinct: Keep equal completions once; see `correct_completions` for when not to.
            loading: Arguments of `StoredRecordsDataModule`.
        """
        super().__init__(**loading)
        self.completions, self.max_per_problem = Path(completions), max_per_problem
        self.distinct = distinct
        self._rows: list[PromptCompletion] | None = None

    @property
    def rows(self) -> list[PromptCompletion]:
        """Prompt and completion of every training example.

        Raises:
            DataError: If no completion is correct.
        """
        if self._rows is None:
            sampled = read_trajectories(self.completions)
            kept = correct_completions(sampled, self.max_per_problem, self.seed, self.distinct)
            self._rows = [t.target_sequence for t in kept]
        if not self._rows:
            raise DataError(f"no completion in {self.completions} is correct: nothing to train on.")
        return self._rows

    @property
    def n_train(self) -> int:
        """Number of training examples."""
        return len(self.rows)

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.rows)

    def held_out(self) -> Sequence[PromptCompletion]:
        """Return no records: all completions are trained on."""
        return ()

    def collate(self, records: Sequence[PromptCompletion]) -> dict[str, list[Sequence[int]]]:
        """Return the batch's token ids."""
        return {"prompt": [r.prompt for r in records], "completion": [r.completion for r in records]}


class PreferencesDataModule(StoredRecordsDataModule):
    """Pairs of a preferred and a rejected continuation of one prompt.

    From a dataset that ``surefoot generate`` or ``label`` wrote, whose completions a builder pairs (correct against
    wrong), from what ``surefoot pairs`` wrote, or from JSONL with the fields ``prompt``, ``chosen`` and ``rejected``:
    texts, or lists of token ids, which are used as they are, without an end of sequence added.

    Batches: ``pair`` (list of `PreferencePair` or `TextPair`) and ``index (batch,)``; of problems, as
    theirs.
    """

    def __init__(
        self,
        completions: Path | None = None,
        pairs: Path | None = None,
        builder: PairBuilder | None = None,
        n_val: int = 0,
        **loading: Any,
    ) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot generate or label wrote; or
            pairs: Folder that surefoot pairs wrote, or JSONL file of pairs.
            builder: Makes pairs of the completions; by default RandomPairs, at most 4 of a problem.
            n_val: Pairs held out for validation.
            loading: Arguments of `StoredRecordsDataModule`.

        Raises:
            ConfigError: If not exactly one source is given, or a builder without completions.
        """
        super().__init__(**loading)
        if (completions is None) == (pairs is None):
            raise ConfigError("give either data.init_args.completions or data.init_args.pairs.")
        if builder is not None and completions is None:
            raise ConfigError("data.init_args.builder makes pairs of completions: the pairs of a file are as they are.")
        self.completions, self.file = completions, pairs
        self.builder, self.n_val = builder or RandomPairs(), n_val
        self._splits: dict[str, list[PreferencePair | TextPair]] = {}

    def pairs(self, split: str) -> list[PreferencePair | TextPair]:
        """Return the pairs of train or val, in the order of their index.

        Args:
            split: ``train`` or ``val``; there is no third split.

        Raises:
            DataError: If there are none to train on, or a row of the file is damaged.
        """
        if not self._splits:
            pairs = self._read()
            order = list(range(len(pairs)))
            random.Random(self.seed).shuffle(order)
            held = set(order[: self.n_val])
            self._splits = {
                "train": [p for i, p in enumerate(pairs) if i not in held],
                "val": [p for i, p in enumerate(pairs) if i in held],
            }
        if not self._splits["train"]:
            raise DataError(
                f"{self.completions or self.file} gives no pairs to train on: no problem has both a correct and a"
                " wrong completion, or n_val holds all of them out?"
            )
        return self._splits[split]

    def recorded_splits(self) -> Mapping[str, Sequence[object]]:
        """Return the pairs of train and val."""
        return {split: self.pairs(split) for split in ("train", "val")}

    def _read(self) -> list[PreferencePair | TextPair]:
        if self.completions is not None:
            return list(self._build(list(read_trajectories(Path(self.completions)))))
        assert self.file is not None
        return read_pairs(Path(self.file))

    def _build(self, completions: list[Trajectory]) -> list[PreferencePair]:
        """Return the pairs of completions.

        Raises:
            ConfigError: If the builder wants continuations, which only a policy samples.
        """
        if wanted := self.builder.starts(completions, self.seed):
            raise ConfigError(
                f"{type(self.builder).__name__} wants continuations of {len(wanted)} prefixes of {self.completions}:"
                " make the pairs with surefoot pairs, and give its folder as data.init_args.pairs."
            )
        return self.builder(completions, self.seed)

    @property
    def n_train(self) -> int:
        """Number of training pairs."""
        return len(self.pairs("train"))

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the training loader."""
        return self.training_loader(self.pairs("train"))

    def held_out(self) -> Sequence[PreferencePair | TextPair]:
        """Return the pairs held out for validation, which are tested on, too: there is no third split."""
        return self.pairs("val")

    def collate(self, records: Sequence[PreferencePair | TextPair]) -> dict[str, list[PreferencePair | TextPair]]:
        """Return the batch's pairs."""
        return {"pair": list(records)}
