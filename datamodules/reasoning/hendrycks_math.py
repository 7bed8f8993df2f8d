"""MATH: competition problems in seven subjects and five levels."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.reasoning.problems import ProblemsDataModule, SplitName
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.problems import (
    Detail,
    Problem,
    first_answer,
    last_boxed,
    read_jsonl,
    real_data_folder,
)

__all__ = ("SUBJECTS", "HendrycksMathDataModule")

#: Names of the subjects' folders, and of the hub's configurations.
SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


class HendrycksMathDataModule(ProblemsDataModule):
    """MATH from the hub, from the authors' folders of JSON files, or from JSONL files.

    Layouts under ``root``: ``train/<subject>/<n>.json`` and ``test/...`` (the authors'), or ``train.jsonl`` and
    ``test.jsonl``. Fields: ``problem``, ``solution`` with a boxed answer, ``level``, ``type`` or ``subject``.

    Reference: Hendrycks et al., NeurIPS 2021; MATH-500: Lightman et al., 2023.
    """

    def __init__(
        self,
        root: Path | None = None,
        hub: str | None = None,
        math500: Path | None = None,
        levels: list[int] | None = None,
        subjects: list[str] | None = None,
        **splits: Any,
    ) -> None:
        """Initialize the data set.

        Args:
            root: Folder in one of the two layouts; by default math in the folder that SUREFOOT_DATA names.
            hub: Name on the hub to load instead, such as EleutherAI/hendrycks_math.
            math500: File of MATH-500, to be the test split; its problems are kept out of train where they are in it.
            levels: Keep these levels, 1 to 5; all by default.
            subjects: Keep these subjects, by the names of the authors' folders; all by default.
            splits: Arguments of `ProblemsDataModule`.

        Raises:
            ConfigError: If a level or subject does not exist.
        """
        super().__init__(**splits)
        if levels is not None and not set(levels) <= {1, 2, 3, 4, 5}:
            raise ConfigError(f"levels go from 1 to 5, got {levels}.")
        if subjects is not None and not set(subjects) <= set(SUBJECTS):
            raise ConfigError(f"subjects are {', '.join(SUBJECTS)}; got {', '.join(subjects)}.")
        self.root, self.hub, self.math500 = root, hub, math500
        self.levels, self.subjects = levels, subjects

    def _rows(self, split: SplitName) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield where a row comes from, and the row."""
        if split == "test" and self.math500 is not None:
            for i, row in enumerate(read_jsonl(Path(self.math500))):
                yield f"{self.math500}, row {i + 1}", row
            return
        if self.hub is not None:
            from datasets import load_dataset

            for subject in self.subjects or SUBJECTS:
                for i, row in enumerate(load_dataset(self.hub, subject, split=split)):
                    yield f"{self.hub}/{subject}/{split}, row {i + 1}", row
            return
        root = real_data_folder("math", self.root)
        file, folder = root / f"{split}.jsonl", root / split
        if file.is_file():
            for i, row in enumerate(read_jsonl(file)):
                yield f"{file}, row {i + 1}", row
        elif folder.is_dir():
            for path in sorted(folder.glob("*/*.json"), key=lambda p: (p.parent.name, len(p.stem), p.stem)):
                try:
                    yield str(path), json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise DataError(f"{path} is not JSON: {error}.") from error
        else:
            raise DataError(
                f"neither {file} nor {folder}/<subject>/<n>.json exists; the hub's copy is loaded with"
                " data.init_args.hub EleutherAI/hendrycks_math."
            )

    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return a split's problems; validation is held out of train."""
        if split == "val":
            return None
        if split == "train" and self.root is None and self.hub is None and self.math500 is not None:
            return []  # evaluation on MATH-500 alone
        problems = [
            p for i, (where, row) in enumerate(self._rows(split)) if self._kept(p := _problem(row, split, i, where))
        ]
        if split == "train" and self.math500 is not None:
            held_out = {str(row.get("problem")) for row in read_jsonl(Path(self.math500))}
            problems = [p for p in problems if p.question not in held_out]
        return problems

    def _kept(self, problem: Problem) -> bool:
        level, subject = problem.details.get("level"), problem.details.get("subject")
        return (self.levels is None or level in self.levels) and (self.subjects is None or subject in self.subjects)


def _problem(row: Mapping[str, object], split: SplitName, i: int, where: str) -> Problem:
    try:
        question, solution = str(row["problem"]), str(row["solution"])
    except KeyError as error:
        raise DataError(f"{where} has no field {error}; it has {', '.join(row)}.") from None
    answered = row.get("answer") is not None
    answer = first_answer(row, ["answer"], where) if answered else last_boxed(solution, where)
    level = re.search(r"\d", str(row.get("level", "")))
    subject = str(row.get("type") or row.get("subject") or "").lower().replace(" & ", " and ")
    details: dict[str, Detail] = {
        "level": int(level.group()) if level else 0,
        "subject": subject.replace(" ", "_"),
    }
    return Problem(f"math-{split}-{i}", question, answer, solution, details)
