"""From completions to grades: extract, compare, count."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from surefoot.errors import ConfigError
from surefoot.reasoning.answers.extraction import EXTRACTION_RULES, extract_answer
from surefoot.reasoning.answers.pool import STATUSES, GraderPool, Status

__all__ = ("ExtractionWarning", "Grade", "Grader", "status_rates")


class ExtractionWarning(UserWarning):
    """No answer was found in most of the first completions."""


class Grade(NamedTuple):
    """What became of one completion."""

    status: Status
    answer: str | None  # as extracted

    @property
    def correct(self) -> bool:
        """Whether the answer equals the reference."""
        return self.status == "correct"


def status_rates(grades: Sequence[Grade]) -> dict[str, float]:
    """Return the share of each status, in [0, 1]; all 0 without grades."""
    n = max(1, len(grades))
    return {status: sum(g.status == status for g in grades) / n for status in STATUSES}


class Grader:
    """Extracts final answers and compares them with references through math-verify."""

    def __init__(
        self,
        rule: str = "mixed",
        n_workers: int | None = None,
        time_limit: float = 5.0,
        budget: float | None = None,
    ) -> None:
        """Initialize the grader.

        Args:
            rule: How the answer is found: mixed, strict (after ####), boxed or last_number.
            n_workers: Processes that compare answers; one per core, at most 8, by default.
            time_limit: Seconds for one comparison; later is graded ``timeout``.
            budget: Seconds for one batch; what is not compared by then is graded ``timeout``. By default 30, and a
                tenth of a second for each comparison.

        Raises:
            ConfigError: If there is no such rule, or a number is not positive.
        """
        if rule not in EXTRACTION_RULES:
            raise ConfigError(f"no extraction rule {rule!r}; there are {', '.join(EXTRACTION_RULES)}.")
        self.rule = rule
        self.pool = GraderPool(n_workers, time_limit, budget)
        self._n_batches = 0

    def __call__(self, completions: Sequence[str], references: Sequence[str]) -> list[Grade]:
        """Grade completions.

        Args:
            completions: Texts, one per reference.
            references: Reference answers.

        Returns:
            One grade per completion.
        """
        answers = [extract_answer(text, self.rule) for text in completions]
        found = [(r.strip(), a) for r, a in zip(references, answers, strict=True) if a is not None]
        statuses = iter(self.pool.compare(found))
        grades = [Grade("unparsable" if a is None else next(statuses), a) for a in answers]
        self._warn_once(completions, answers)
        return grades

    def classes(
        self, answers: Sequence[Sequence[str | None]], correct: Sequence[Sequence[bool]]
    ) -> list[list[int | None]]:
        """Return, for each problem, which of its answers are equal: equal ones have one number.

        Correct answers are equal. Others are compared with each other as they are with references.

        Args:
            answers: Final answers of each problem's samples, none where there is none.
            correct: Whether each is correct.
        """
        numbers: list[dict[str, int]] = []
        left: list[list[str]] = []
        for texts, right in zip(answers, correct, strict=True):
            known = {a: 0 for a, ok in zip(texts, right, strict=True) if a is not None and ok}
            numbers.append(known)
            left.append([a for a in dict.fromkeys(texts) if a is not None and a not in known])
        number = 0
        while any(left):  # each round settles the answers that equal the first one left
            number += 1
            pairs = [(texts[0], other) for texts in left for other in texts[1:]]
            verdicts = iter(self.pool.compare(pairs))
            for i, texts in enumerate(left):
                if texts:
                    equal = [next(verdicts) == "correct" for _ in texts[1:]]
                    numbers[i][texts[0]] = number
                    numbers[i].update((a, number) for a, e in zip(texts[1:], equal, strict=True) if e)
                    left[i] = [a for a, e in zip(texts[1:], equal, strict=True) if not e]
        return [[None if a is None else known[a] for a in texts] for texts, known in zip(answers, numbers, strict=True)]

    def _warn_once(self, completions: Sequence[str], answers: Sequence[str | None]) -> None:
        """Warn, after the first batch, if most answers were not found."""
        self._n_batches += 1
        missing = [text for text, answer in zip(completions, answers, strict=True) if answer is None]
        if self._n_batches > 1 or 2 * len(missing) <= len(answers):
            return
        samples = "\n".join(f"  {i}: ...{text[-200:]!r}" for i, text in enumerate(missing[:3], 1))
        warnings.warn(
            f"NO ANSWER FOUND in {len(missing)} of the first {len(answers)} completions by the rule"
            f" {self.rule!r}: they count as unparsable. Does the prompt ask for another format, or is the limit"
            f" on tokens too low? Ends of such completions:\n{samples}",
            ExtractionWarning,
            stacklevel=3,
        )
