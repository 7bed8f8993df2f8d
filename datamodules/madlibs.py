"""Templated sentences, toxic or not, with identity terms; whole templates are held out."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from datamodules.classification import ClassificationDataModule
from datamodules.splits import Batch, Split
from datamodules.texts import TextPipeline, word_tokenizer
from surefoot.errors import ConfigError, DataError

__all__ = ("MadlibsDataModule",)

_LABELS = ("NOT_BAD", "BAD")


class _Sentences(Dataset[Batch]):
    """Sentences in memory."""

    def __init__(self, texts: Sequence[str], target: torch.Tensor) -> None:
        self.texts, self.target = texts, target

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Batch:
        target = self.target[index]
        return {"input": self.texts[index], "target": target, "group": target, "index": index}


class MadlibsDataModule(ClassificationDataModule):
    """Is a sentence toxic? ``input_ids`` and ``attention_mask`` ``(batch, seq)``; groups are the two classes.

    Train, val and test (60, 20, 20%) come from the templates named; every other template is a held-out set
    ``template_<name>``. The vocabulary is that of the training sentences.

    Source: Dixon et al., AIES 2018, ``bias_madlibs_77k.csv`` (columns ``Text, Label, Template``).
    """

    def __init__(
        self,
        root: Path | None = None,
        templates: Sequence[str] = ("name_adj",),
        n_examples: int | None = None,
        tokenizer: str | None = None,
        max_length: int = 16,
        **loading: Any,
    ) -> None:
        """Initialize the sentences.

        Args:
            root: Folder of ``bias_madlibs_77k.csv``; by default ``madlibs`` in the folder that ``SUREFOOT_DATA`` names.
            templates: Templates of the training distribution.
            n_examples: How many of their sentences are drawn, with the seed; all by default.
            tokenizer: Hub name or folder of a tokenizer; by default whole words.
            max_length: Longest text, tokens.
            loading: Arguments of `ClassificationDataModule`.

        Raises:
            ConfigError: If no template is named.
        """
        super().__init__(**loading)
        if not templates:
            raise ConfigError("templates must name at least one template, got none.")
        self.root, self.templates, self.n_examples = root, tuple(templates), n_examples
        self.pipeline = TextPipeline(tokenizer, max_length)
        self.n_classes = 2
        self.group_names = self.eval_group_names = [f"y={name}" for name in _LABELS]
        self._held_out: dict[str, Split] = {}

    def build(self) -> dict[str, Split]:
        """Read the sentences."""
        root = Path(self.root or Path(os.environ.get("SUREFOOT_DATA", "data")) / "madlibs")
        by_template = _read(root / "bias_madlibs_77k.csv")
        unknown = [t for t in self.templates if t not in by_template]
        if unknown:
            raise ConfigError(f"no template {unknown[0]!r}; there are {', '.join(by_template)}.")
        ours = [row for t in self.templates for row in by_template[t]]
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(ours), generator=generator)[: self.n_examples]
        n_eval = len(order) // 5
        parts = order.split([len(order) - 2 * n_eval, n_eval, n_eval])
        splits = {
            name: _split([ours[i] for i in part.tolist()])
            for name, part in zip(("train", "val", "test"), parts, strict=True)
        }
        if self.pipeline.name is None:
            self.pipeline.tokenizer = word_tokenizer(splits["train"].examples.texts)  # type: ignore[attr-defined]
        self._held_out = {
            f"template_{name}": _split(rows) for name, rows in by_template.items() if name not in self.templates
        }
        return splits

    def held_out(self, split: str) -> dict[str, Split]:
        """Return the sentences of the other templates, the same for val and test."""
        return self._held_out

    def collate(self, examples: Any) -> Batch:
        """Make a batch of token ids."""
        return self.pipeline.collate(examples)


def _split(rows: Sequence[tuple[str, int]]) -> Split:
    target = torch.tensor([label for _, label in rows])
    return Split(_Sentences([text for text, _ in rows], target), target, target, target)


def _read(path: Path) -> dict[str, list[tuple[str, int]]]:
    """Return sentences and labels by template."""
    if not path.is_file():
        raise DataError(
            f"{path} is missing. Expected layout: bias_madlibs_77k.csv with columns Text, Label (BAD or NOT_BAD),"
            " Template in data.init_args.root or in madlibs under the folder that SUREFOOT_DATA names."
        )
    found: dict[str, list[tuple[str, int]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                label = _LABELS.index(row["Label"])
                found.setdefault(row["Template"], []).append((row["Text"], label))
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"line {line} of {path} is not Text, Label (BAD or NOT_BAD), Template: {error}."
                ) from error
    return found
