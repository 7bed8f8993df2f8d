"""Math-Shepherd, or a file of its layout: solutions whose steps were judged by completing them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import DataError
from surefoot.reasoning.problems import Problem, first_field, read_jsonl
from surefoot.reasoning.values import JudgedText, judged_solution

__all__ = ("MathShepherdDataModule",)

_FIRST_STEP = "Step 1:"


class MathShepherdDataModule(JudgedDataModule):
    """Rows of ``input``, a question and steps that each end with a tag, and ``label``, the same with + or - for tags.

    Reference: Wang et al. 2024, arXiv 2312.08935.
    """

    def __init__(self, path: Path, tag: str = "ки", **judged: Any) -> None:
        """Initialize the data.

        Args:
            path: File with one JSON object a line.
            tag: What ends a step in ``input``.
            judged: Arguments of `JudgedDataModule`.
        """
        super().__init__(**judged)
        self.path, self.tag = Path(path), tag

    def read(self) -> Iterator[tuple[str, JudgedText]]:
        """Yield the solutions.

        Raises:
            DataError: If the file is missing or damaged.
        """
        for i, row in enumerate(read_jsonl(self.path)):
            where = f"{self.path}, row {i + 1}"
            given, label = (first_field(row, [name], where) for name in ("input", "label"))
            parts, values = given.split(self.tag)[:-1], []
            for part in parts:
                sign = label[len(part) : len(part) + 1]
                if not label.startswith(part) or sign not in ("+", "-"):
                    raise DataError(f"{where}: the label is not the input with + or - in place of {self.tag!r}.")
                values.append(float(sign == "+"))
                label = label[len(part) + 1 :]
            if not parts or _FIRST_STEP not in parts[0]:
                raise DataError(f"{where}: the input has no {_FIRST_STEP!r} that ends with {self.tag!r}.")
            question, _, first = parts[0].rpartition(_FIRST_STEP)  # a question may say it too
            steps = [f"{_FIRST_STEP}{first}", *parts[1:]]
            yield question.strip(), judged_solution(Problem(f"{i}", question.strip(), ""), steps, values, where)
