"""GSM8K: grade-school word problems."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.reasoning.problems import ProblemsDataModule, SplitName
from surefoot.errors import DataError
from surefoot.reasoning.problems import Problem, first_field, read_jsonl, real_data_folder

__all__ = ("GSM8KDataModule",)

_ANNOTATION = re.compile(r"<<[^>]*>>")


class GSM8KDataModule(ProblemsDataModule):
    """GSM8K from ``train.jsonl`` and ``test.jsonl`` (fields ``question`` and ``answer``), or from the hub.

    Reference: Cobbe et al., 2021, Training Verifiers to Solve Math Word Problems.
    """

    def __init__(
        self,
        root: Path | None = None,
        hub: str | None = None,
        calculator_annotations: bool = False,
        **splits: Any,
    ) -> None:
        """Initialize the data set.

        Args:
            root: Folder of the files; by default gsm8k in the folder that SUREFOOT_DATA names.
            hub: Name on the hub to load instead, such as openai/gsm8k.
            calculator_annotations: Keep the <<48/2=24>> in the reference solutions.
            splits: Arguments of `ProblemsDataModule`.
        """
        super().__init__(**splits)
        self.root, self.hub, self.annotations = root, hub, calculator_annotations

    def _rows(self, split: SplitName) -> tuple[Iterable[Mapping[str, object]], str]:
        if self.hub is not None:
            from datasets import load_dataset

            return load_dataset(self.hub, "main", split=split), f"{self.hub}/{split}"
        path = real_data_folder("gsm8k", self.root) / f"{split}.jsonl"
        return read_jsonl(path), str(path)

    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return a split's problems; validation is held out of train."""
        if split == "val":
            return None
        rows, where = self._rows(split)
        return [self._problem(row, split, i, f"{where}, row {i + 1}") for i, row in enumerate(rows)]

    def _problem(self, row: Mapping[str, object], split: SplitName, i: int, where: str) -> Problem:
        question, solution = (
            first_field(row, ["question"], where),
            first_field(row, ["answer"], where),
        )
        if "####" not in solution:
            raise DataError(f"{where}: the answer has no '#### ' before its final answer.")
        trace, answer = solution.rsplit("####", 1)
        answer = answer.strip().replace(",", "")
        steps = trace.strip()
        if not self.annotations:
            solution, steps = _ANNOTATION.sub("", solution), _ANNOTATION.sub("", steps)
        details = {"n_steps": len(steps.split("\n"))}
        return Problem(f"gsm8k-{split}-{i}", question.strip(), answer, solution.strip(), details)
