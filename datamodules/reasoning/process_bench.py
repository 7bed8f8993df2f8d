"""ProcessBench, or a file of its layout: solutions whose first wrong step people have marked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import DataError
from surefoot.reasoning.problems import Problem, first_field, read_jsonl
from surefoot.reasoning.values import JudgedText, judged_until_an_error

__all__ = ("ProcessBenchDataModule",)


class ProcessBenchDataModule(JudgedDataModule):
    """Rows of ``problem``, ``steps`` and ``label``, the first wrong step or -1; steps after it are not judged.

    Reference: Zheng et al. 2024, arXiv 2412.06559.
    """

    def __init__(self, path: Path, **judged: Any) -> None:
        """Initialize the data.

        Args:
            path: File with one JSON object a line.
            judged: Arguments of `JudgedDataModule`; ``val_share: 0`` and ``test_share: 1`` to test on all of it.
        """
        super().__init__(**judged)
        self.path = Path(path)

    def read(self) -> Iterator[tuple[str, JudgedText]]:
        """Yield the solutions.

        Raises:
            DataError: If the file is missing or damaged.
        """
        for i, row in enumerate(read_jsonl(self.path)):
            where = f"{self.path}, row {i + 1}"
            question, label = first_field(row, ["problem"], where), row.get("label")
            if not isinstance(label, int):
                raise DataError(f"{where}: the label is {label!r}: expected the number of a step, or -1.")
            right = row.get("final_answer_correct")
            if right is not None and not isinstance(right, bool):
                raise DataError(f"{where}: final_answer_correct is {right!r}: expected true or false.")
            problem, error = Problem(str(row.get("id", i)), question, ""), None if label == -1 else label
            outcome = None if right is None else float(right)
            yield question, judged_until_an_error(problem, row.get("steps"), error, where, outcome)
