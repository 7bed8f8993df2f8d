"""Stored completions to fine-tune on, and pairs of them to prefer one over the other."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datamodules.reasoning.loaders import RecordsDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.selection import (
    PreferencePair,
    correct_completions,
    preference_pairs,
    read_completions,
)
from surefoot.reasoning.problems import first_field, read_jsonl

__all__ = ("CompletionsDataModule", "PreferencesDataModule")


class CompletionsDataModule(RecordsDataModule):
    """The distinct correct completions of a dataset that ``surefoot generate`` wrote.

    Batches: ``prompt`` and ``completion`` (lists of token ids) and ``index (batch,)``.
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
            loading: Arguments of `RecordsDataModule`.
        """
        super().__init__(**loading)
        self.completions, self.max_per_problem = Path(completions), max_per_problem
        self.distinct = distinct
        self._rows: list[tuple[list[int], list[int]]] | None = None

    @property
    def rows(self) -> list[tuple[list[int], list[int]]]:
        """Prompt and completion of every training example.

        Raises:
            DataError: If no completion is correct.
        """
        if self._rows is None:
            dataset: Any = read_completions(self.completions)
            kept = correct_completions(dataset, self.max_per_problem, self.seed, self.distinct)
            self._rows = [(r["prompt_ids"], r["target_ids"]) for r in kept]
        if not self._rows:
            raise DataError(f"no completion in {self.completions} is correct: nothing to train on.")
        return self._rows

    @property
    def n_train(self) -> int:
        """Number of training examples."""
        return len(self.rows)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader."""
        return self.training_loader(self.rows)

    def test_dataloader(self) -> DataLoader[Any]:
        """Refuse: there is nothing to evaluate on.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "CompletionsDataModule holds training examples only: evaluate on problems, with data such as"
            " GSM8KDataModule in a"
            " --config beside --ckpt_path."
        )

    def collate(self, records: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
        """Return the batch's token ids."""
        return {"prompt": [p for p, _ in records], "completion": [c for _, c in records]}


class PreferencesDataModule(RecordsDataModule):
    """Pairs of a preferred and a rejected continuation of one prompt.

    From a dataset that ``surefoot generate`` wrote (correct against wrong), or from JSONL with the fields ``prompt``,
    ``chosen`` and ``rejected``: texts, or lists of token ids, which are used as they are, without an end of sequence
    added.

    Batches: ``pair`` (list of `PreferencePair` of token ids or of texts) and ``index (batch,)``.
    """

    def __init__(
        self,
        completions: Path | None = None,
        pairs: Path | None = None,
        max_per_problem: int = 4,
        n_val: int = 0,
        **loading: Any,
    ) -> None:
        """Initialize the data.

        Args:
            completions: Folder that surefoot generate wrote; or
            pairs: JSONL file of pairs.
            max_per_problem: Most pairs made of a problem's completions.
            n_val: Pairs held out for validation.
            loading: Arguments of `RecordsDataModule`.

        Raises:
            ConfigError: If not exactly one source is given.
        """
        super().__init__(**loading)
        if (completions is None) == (pairs is None):
            raise ConfigError("give either data.init_args.completions or data.init_args.pairs.")
        self.completions, self.file = completions, pairs
        self.max_per_problem, self.n_val = max_per_problem, n_val
        self._splits: dict[str, list[PreferencePair]] = {}

    @property
    def splits(self) -> dict[str, list[PreferencePair]]:
        """The pairs of train and val.

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
                " wrong completion?"
            )
        return self._splits

    def _read(self) -> list[PreferencePair]:
        if self.completions is not None:
            dataset: Any = read_completions(Path(self.completions))
            return preference_pairs(dataset, self.max_per_problem, self.seed)
        assert self.file is not None
        return [_pair(row, f"{self.file}, row {i + 1}") for i, row in enumerate(read_jsonl(Path(self.file)))]

    @property
    def n_train(self) -> int:
        """Number of training pairs."""
        return len(self.splits["train"])

    def train_pairs(self) -> list[PreferencePair]:
        """Return the training pairs in the order of their index."""
        return self.splits["train"]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader."""
        return self.training_loader(self.splits["train"])

    def val_dataloader(self) -> Any:
        """Return the validation loader, none without validation pairs."""
        return self.evaluation_loader(self.splits["val"]) if self.splits["val"] else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the held-out pairs: there is no third split.

        Raises:
            ConfigError: If none are held out.
        """
        if not self.splits["val"]:
            raise ConfigError(
                "no pairs are held out to evaluate on: set data.init_args.n_val, or evaluate on problems, with data"
                " such as"
                " GSM8KDataModule in a --config beside --ckpt_path."
            )
        return self.evaluation_loader(self.splits["val"])

    def collate(self, records: Sequence[PreferencePair]) -> dict[str, Any]:
        """Return the batch's pairs."""
        return {"pair": list(records)}


def _pair(row: dict[str, Any], where: str) -> PreferencePair:
    """Return a row's pair; texts stay texts."""
    fields = [row.get(name) for name in PreferencePair._fields]
    if all(isinstance(f, list) and all(isinstance(t, int) for t in f) for f in fields):
        return PreferencePair(*fields)  # type: ignore[arg-type]
    for name in PreferencePair._fields:
        first_field(row, [name], where)
    if not all(isinstance(f, str) for f in fields):
        raise DataError(f"{where}: prompt, chosen and rejected must all be texts, or all lists of token ids.")
    return PreferencePair(*fields)  # type: ignore[arg-type]
