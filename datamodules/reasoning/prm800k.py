"""PRM800K, or files of its layout: steps of solutions to MATH problems that people have rated."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from datamodules.reasoning.judged import JudgedDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.problems import Problem, read_jsonl
from surefoot.reasoning.values import JudgedText, judged_solution

__all__ = ("PRM800KDataModule",)

Kind = TypeVar("Kind", dict[str, Any], list[Any], str)

_KINDS = {dict: "an object", list: "a list", str: "a text"}


class PRM800KDataModule(JudgedDataModule):
    """Each rated path of steps is a solution: the chosen one, and one for every alternative to one of its steps.

    Ratings 1 (good) and 0 (neutral) are worth 1, -1 (bad) 0; steps without a rating are not judged. The rating of a
    step that several paths of a row share counts once: it has weight 0 in all but the first of them. Texts that are
    white space only are left out with their ratings; where one was chosen, the path goes on without it.

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
            DataError: If a file is missing, or a row is damaged, which is named.
        """
        for path in self.paths:
            for i, row in enumerate(read_jsonl(path)):
                where = f"{path}, row {i + 1}"
                question = _checked(row.get("question"), dict, "question", where)
                text = _checked(question.get("problem"), str, "problem", where)
                problem, label = Problem(f"{path.stem}-{i}", text, ""), _checked(row.get("label"), dict, "label", where)
                n_counted = 0  # steps of the chosen path whose ratings a solution has counted
                for steps, values in self._paths(label, where):
                    if len(steps) > n_counted and any(v is not None for v in values):
                        weights = [float(n >= n_counted) for n in range(len(steps))]
                        yield problem.question, judged_solution(problem, steps, values, where, weights)
                        n_counted = len(steps) - 1  # all paths end beside the chosen one, or are its own

    def _paths(self, label: dict[str, Any], where: str) -> Iterator[tuple[list[str], list[float | None]]]:
        """Yield the steps of each rated path with their values."""
        texts, values = list[str](), list[float | None]()
        for number, step in enumerate(_checked(label.get("steps"), list, "steps", where), 1):
            place = f"{where}, step {number}"
            given = _checked(step, dict, "step", place).get("completions")
            completions = [] if given is None else _checked(given, list, "completions", place)
            rated = [self._rated(completion, place) for completion in completions]
            chosen, human = step.get("chosen_completion"), step.get("human_completion")
            if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(rated)):
                raise DataError(f"{place}: chosen_completion is {chosen!r:.60}, of {len(rated)} completions.")
            alternatives = [(text, value) for n, (text, value) in enumerate(rated) if n != chosen and text.strip()]
            yield from (([*texts, text], [*values, value]) for text, value in alternatives)
            if chosen is not None:
                text, value = rated[chosen]
            elif human is not None:
                text, value = self._rated(human, place)
            elif alternatives:  # people stopped here, and all ends have been yielded
                return
            else:
                break
            if text.strip():
                texts, values = [*texts, text], [*values, value]
        if texts:
            yield texts, values

    def _rated(self, completion: object, where: str) -> tuple[str, float | None]:
        """Return the text of a completion, and what its rating is worth."""
        fields = _checked(completion, dict, "completion", where)
        text, rating = _checked(fields.get("text"), str, "text", where), fields.get("rating")
        if rating is not None and (type(rating) is not int or rating not in self.worth):
            raise DataError(f"{where}: the rating is {rating!r:.60}: expected 1, 0, -1 or none.")
        return text, None if rating is None else self.worth[rating]


def _checked(value: object, kind: type[Kind], name: str, where: str) -> Kind:
    if not isinstance(value, kind):
        raise DataError(f"{where}: {name} is {value!r:.60}: expected {_KINDS[kind]}.")
    return value
