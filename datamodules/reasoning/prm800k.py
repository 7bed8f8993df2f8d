"""PRM800K, or files of its layout: steps of solutions to MATH problems that people have rated."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.problems import Problem, first_field, read_jsonl
from surefoot.reasoning.values import JudgedText, judged_solution

__all__ = ("PRM800KDataModule",)


class PRM800KDataModule(JudgedDataModule):
    """Each rated path of steps is a solution: the chosen one, and one for every alternative to one of its steps.

    Ratings 1 (good) and 0 (neutral) are worth 1, -1 (bad) 0; steps without a rating are not judged. The rating of a
    step that several paths of a row share counts once: it has weight 0 in all but the first of them.

    Reference: Lightman et al. 2023, arXiv 2305.20050.
    """

    def __init__(self, paths: Sequence[Path], neutral: float = 1.0, **judged: Any) -> None:
        """Initialize the data.

        Args:
            paths: Files with one JSON object a line, such as phase2_train.jsonl.
            neutral: What a neutral step is worth.
            judged: Arguments of `JudgedDataModule`.

        Raises:
            ConfigError: If there is no file, or the value is none.
        """
        super().__init__(**judged)
        if not paths or not 0 <= neutral <= 1:
            raise ConfigError(f"expected at least one path and neutral in [0, 1], got {len(paths)} and {neutral}.")
        self.paths, self.worth = [Path(p) for p in paths], {1: 1.0, 0: neutral, -1: 0.0}

    def read(self) -> Iterator[tuple[str, JudgedText]]:
        """Yield the solutions.

        Raises:
            DataError: If a file is missing or damaged.
        """
        for path in self.paths:
            for i, row in enumerate(read_jsonl(path)):
                where = f"{path}, row {i + 1}"
                question = _mapping(row.get("question"), "question", where)
                problem = Problem(f"{path.stem}-{i}", first_field(question, ["problem"], where), "")
                n_counted = 0  # steps of the chosen path whose ratings a solution has counted
                for steps, values in self._paths(_mapping(row.get("label"), "label", where), where):
                    if any(v is not None for v in values):
                        weights = [float(n >= n_counted) for n in range(len(steps))]
                        yield problem.question, judged_solution(problem, steps, values, where, weights)
                        n_counted = len(steps) - 1  # all paths end beside the chosen one, or are its own

    def _paths(self, label: Mapping[str, Any], where: str) -> Iterator[tuple[list[str], list[float | None]]]:
        """Yield the steps of each rated path with their values."""
        texts, values = list[str](), list[float | None]()
        for number, step in enumerate(label.get("steps") or ()):
            place = f"{where}, step {number + 1}"
            completions = _mapping(step, "step", place).get("completions") or []
            chosen = step.get("chosen_completion")
            for n, completion in enumerate(completions):
                text, value = self._rated(completion, place)
                if n != chosen:
                    yield [*texts, text], [*values, value]
            if isinstance(chosen, int) and 0 <= chosen < len(completions):
                text, value = self._rated(completions[chosen], place)
            elif step.get("human_completion"):
                text, value = self._rated(step["human_completion"], place)
            elif completions:  # people stopped here, and all ends have been yielded
                return
            else:
                break
            texts, values = [*texts, text], [*values, value]
        if texts:
            yield texts, values

    def _rated(self, completion: Any, where: str) -> tuple[str, float | None]:
        rating = _mapping(completion, "completion", where).get("rating")
        if rating is not None and rating not in self.worth:
            raise DataError(f"{where}: the rating is {rating!r}: expected 1, 0, -1 or none.")
        return first_field(completion, ["text"], where), None if rating is None else self.worth[rating]


def _mapping(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: the {name} is {type(value).__name__}: expected an object.")
    return value
