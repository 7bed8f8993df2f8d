"""Solutions whose steps somebody has judged, in text: what public process-reward data holds."""

from collections.abc import Sequence
from typing import NamedTuple

from surefoot.errors import DataError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.sequences import tokens_for
from surefoot.reasoning.values.judged import Judged

__all__ = ("JudgedText", "judged_solution", "judged_until_an_error", "tokenised")


class JudgedText(NamedTuple):
    """A solution in steps that somebody has judged, in text: the model that learns from it brings the tokens."""

    problem: Problem
    steps: Sequence[str]  # which together are the solution, separators included
    values: Sequence[float | None]  # after each step, in [0, 1]; none where nobody has judged it
    weights: Sequence[float]  # of each step in the loss; 0 where another solution that begins alike counts its label
    outcome: float | None = None  # 1 where its answer is right, 0 where it is wrong; none where nobody knows


def tokenised(judged: JudgedText, model: LanguageModel, prompt: Prompt) -> Judged:
    """Return a solution as the model's tokens, judged where `split_spans` cuts what the model itself writes.

    The whole is encoded, and ends as the model ends an answer; a step ends with the token that completes its separator,
    the last one with the end of the answer. A step that ends within the same token as the one before replaces it.

    Args:
        judged: The solution.
        model: Whose tokens.
        prompt: How the problem is put.

    Raises:
        DataError: If the solution is empty, no step is judged, or the tokens do not write the text.
    """
    text = "".join(judged.steps)
    encoded, end = model.encode(text), prompt.end_ids(model)
    ids = [*encoded, *end]
    where = f"a solution of problem {judged.problem.id}"
    if not encoded or all(v is None for v in judged.values):
        raise DataError(f"{where} has no judged step.")
    if not model.decode(ids).startswith(text.rstrip()):
        raise DataError(f"{where}: the tokenizer does not write {text[:40]!r} back.")
    ends: dict[int, tuple[float, float, int]] = {}  # tokens of each judged prefix -> value, weight, finished steps
    n_characters = n_tokens = 0
    for n, (step, value, weight) in enumerate(zip(judged.steps, judged.values, judged.weights, strict=True), 1):
        n_characters += len(step)
        is_last = n == len(judged.steps)
        n_tokens = len(ids) if is_last else tokens_for(ids, model.decode, text[:n_characters], n_tokens)
        if value is not None:
            ends[n_tokens] = (value, weight, n)
    values, weights, n_steps = zip(*ends.values(), strict=True)
    asked, question, outcome = prompt.prompt_ids(judged.problem, model), judged.problem.question, judged.outcome
    return Judged(asked, ids, list(ends), values, weights, n_steps, question=question, outcome=outcome)


def judged_solution(
    problem: Problem,
    steps: object,
    values: Sequence[float | None],
    where: str,
    weights: Sequence[float] | None = None,
    outcome: float | None = None,
) -> JudgedText:
    """Return a solution of which each step is a line.

    Args:
        problem: What is solved.
        steps: Their texts; white space around them is not part of them. Steps that are nothing else are left out, and
            the step before has the lower of both values, and the greater of both weights.
        values: After each step; none where nobody has judged it.
        where: File and row, for errors.
        weights: Of each step in the loss; by default all count alike, 0 for a label that another solution counts.
        outcome: 1 where the answer is right, 0 where it is wrong.

    Raises:
        DataError: If there are no steps, or they are no texts.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not all(isinstance(s, str) for s in steps):
        raise DataError(f"{where}: the steps are {steps!r:.60}: expected a list of texts.")
    kept: list[tuple[str, float | None, float]] = []
    for step, value, weight in zip(steps, values, weights or [1.0] * len(steps), strict=True):
        if step.strip():
            kept.append((step.strip(), value, weight))
        elif kept:
            text, before, earlier = kept[-1]
            kept[-1] = text, min((v for v in (before, value) if v is not None), default=None), max(earlier, weight)
        elif value is not None and value < 1:
            raise DataError(f"{where}: the first step is empty, and judged to be wrong.")
    if not kept:
        raise DataError(f"{where} has no steps.")
    last = len(kept) - 1
    texts = [text if i == last else f"{text}\n" for i, (text, _, _) in enumerate(kept)]
    values, weights = [value for _, value, _ in kept], [weight for _, _, weight in kept]
    return JudgedText(problem, texts, values, weights, outcome)


def judged_until_an_error(
    problem: Problem, steps: object, error: object, where: str, outcome: float | None = None
) -> JudgedText:
    """Return a solution whose steps are worth 1 before the first wrong one, which is worth 0.

    Later ones are not judged.

    Args:
        problem: What is solved.
        steps: Their texts.
        error: Number of the first wrong step from 0; none where all are right.
        where: File and row, for errors.
        outcome: 1 where the answer is right, 0 where it is wrong.

    Raises:
        DataError: If there are no steps, or the number is none of a step.
    """
    n = len(steps) if isinstance(steps, Sequence) else 0
    if error is None:
        return judged_solution(problem, steps, [1.0] * n, where, outcome=outcome)
    if not isinstance(error, int) or isinstance(error, bool) or not 0 <= error < n:
        raise DataError(f"{where}: the first wrong step is {error!r}, of {n} steps.")
    values = [*[1.0] * error, 0.0, *[None] * (n - error - 1)]
    return judged_solution(problem, steps, values, where, outcome=outcome)
