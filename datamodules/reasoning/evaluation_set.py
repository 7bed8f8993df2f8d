"""Small sets of problems that are only ever tested on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datamodules.reasoning.problems import ProblemsDataModule, SplitName
from surefoot.reasoning.problems import (
    Problem,
    first_answer,
    first_field,
    last_boxed,
    read_jsonl,
    real_data_folder,
)

__all__ = ("EvaluationSetDataModule",)

Name = Literal["amc23", "aime24", "minerva_math", "svamp", "asdiv", "math500"]


class EvaluationSetDataModule(ProblemsDataModule):
    """AMC 2023, AIME 2024, Minerva's course problems, SVAMP, ASDiv or MATH-500, in Qwen2.5-Math's evaluation files.

    There is a test split only.
    """

    def __init__(self, name: Name, root: Path | None = None, **splits: Any) -> None:
        """Initialize the set.

        Args:
            name: Which set.
            root: Folder with <name>.jsonl; by default math_eval in the folder that SUREFOOT_DATA names.
            splits: Arguments of `ProblemsDataModule`.
        """
        arguments: dict[str, Any] = {"n_val": 0}
        super().__init__(**arguments | splits)
        self.set, self.root = name, root

    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return the test problems, and nothing for train and val."""
        if split != "test":
            return []
        path = real_data_folder("math_eval", self.root) / f"{self.set}.jsonl"
        return [_problem(self.set, row, i, f"{path}, row {i + 1}") for i, row in enumerate(read_jsonl(path))]


def _problem(name: str, row: Mapping[str, object], i: int, where: str) -> Problem:
    identity = f"{name}-{i}"
    if name == "svamp":
        body, question = first_field(row, ["Body"], where), first_field(row, ["Question"], where)
        body = body.strip().rstrip(".")
        return Problem(identity, f"{body}. {question}", first_answer(row, ["Answer"], where))
    if name == "asdiv":
        body, question = first_field(row, ["body"], where), first_field(row, ["question"], where)
        answer = re.sub(r"\s*\([^()]*[A-Za-z][^()]*\)", "", first_answer(row, ["answer"], where)).strip()
        return Problem(identity, f"{body.strip()} {question}", answer)
    question = first_field(row, ["problem", "question"], where)
    solution = str(row.get("solution") or "")
    answer = first_answer(row, ["answer"], where) if "answer" in row else last_boxed(solution, where)
    details = {
        k: int(m.group()) if (m := re.search(r"\d", str(row[k]))) and k == "level" else str(row[k])
        for k in ("level", "subject")
        if row.get(k)
    }
    return Problem(identity, question, answer.strip().strip("$"), solution, details)
