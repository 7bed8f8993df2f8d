"""Problems of a user's own, from files with one JSON object a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.reasoning.problems import ProblemsDataModule, SplitName
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.problems import Detail, Problem, first_answer, first_field, last_boxed, read_jsonl

__all__ = ("JSONLDataModule",)


class JSONLDataModule(ProblemsDataModule):
    """Questions and answers from JSONL files, one object a line, in UTF-8.

    Each object has a question and an answer, or a solution with a boxed answer; its other fields that hold text,
    numbers or truth values become the problem's details. Without a file for validation, ``n_val`` problems are held out
    of training.
    """

    def __init__(
        self,
        train: Path | None = None,
        val: Path | None = None,
        test: Path | None = None,
        question: str = "question",
        answer: str = "answer",
        solution: str = "solution",
        id: str = "id",
        **splits: Any,
    ) -> None:
        """Initialize the data set.

        Args:
            train: File of the training problems.
            val: File of the validation problems.
            test: File of the test problems.
            question: Field of the question.
            answer: Field of the reference answer; where an object has none, its solution's last boxed answer is taken.
            solution: Field of the reference solution, which SFT trains on; it may be absent.
            id: Field of the problem's name, which has to differ between problems; line numbers where no object has it.
            splits: Arguments of `ProblemsDataModule`.

        Raises:
            ConfigError: If no file is given.
        """
        if train is None:  # nothing to hold validation problems out of
            splits = {"n_val": 256 if val is not None else 0} | splits
        super().__init__(**splits)
        self.files: dict[SplitName, Path | None] = {"train": train, "val": val, "test": test}
        if not any(self.files.values()):
            raise ConfigError("JSONLDataModule needs a file: set data.init_args.train, val or test.")
        self.question, self.answer, self.solution, self.id = question, answer, solution, id

    def read(self, split: SplitName) -> Sequence[Problem] | None:
        """Return a split's problems.

        Raises:
            DataError: If the file is missing, empty, damaged, or names a problem twice.
        """
        path = self.files[split]
        if path is None:
            return None if split == "val" else []
        problems = [
            self._problem(row, f"{path.stem}-{i}", f"{path}, object {i}") for i, row in enumerate(read_jsonl(path), 1)
        ]
        if not problems:
            raise DataError(f"{path} holds no problem: expected one JSON object a line.")
        seen: set[str] = set()
        for problem in problems:
            if problem.id in seen:
                raise DataError(f"{path}: two problems have the {self.id} {problem.id!r}.")
            seen.add(problem.id)
        return problems

    def _problem(self, row: Mapping[str, object], default_id: str, where: str) -> Problem:
        question = first_field(row, [self.question], where).strip()
        solution = str(row.get(self.solution) or "").strip()
        boxed = row.get(self.answer) is None and bool(solution)
        answer = last_boxed(solution, where) if boxed else first_answer(row, [self.answer], where)
        if not question or not answer.strip():
            raise DataError(f"{where}: the question or the answer is empty.")
        own = {self.question, self.answer, self.solution, self.id}
        details = {k: v for k, v in row.items() if k not in own and isinstance(v, Detail)}
        return Problem(str(row.get(self.id, default_id)), question, answer.strip(), solution, details)
