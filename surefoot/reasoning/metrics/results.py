"""What is reported of sampled and graded completions, with intervals over problems."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from surefoot.reasoning.answers import STATUSES, Grader
from surefoot.reasoning.metrics.sampling import majority_at_k, pass_at_k
from surefoot.reasoning.trajectories import Trajectory
from surefoot.statistics import proportion_interval

__all__ = ("ProblemResult", "problem_results", "summarise_results")


class ProblemResult(NamedTuple):
    """One problem's completions, in plain types that travel between ranks."""

    id: str
    statuses: list[str]
    answers: list[str | None]
    n_tokens: list[int]
    truncated: list[bool]
    n_steps: int | None  # of the problem, where it is known
    #: Equal answers have one number, as the grader finds them; none where it was not asked.
    votes: list[int | None] | None = None


def problem_results(trajectories: Sequence[Trajectory], grader: Grader | None = None) -> list[ProblemResult]:
    """Return the results of each problem, in order of appearance.

    Args:
        trajectories: Graded ones.
        grader: Says which answers are equal, for maj@k; without one, correct ones are, and equal plain numbers.
    """
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for t in trajectories:
        groups[t.problem.id].append(t)
    results = []
    for identity, group in groups.items():
        steps = group[0].problem.details.get("n_steps")
        results.append(
            ProblemResult(
                identity,
                [t.grade.status if t.grade else "error" for t in group],
                [t.grade.answer if t.grade else None for t in group],
                [len(t.completion) for t in group],
                [t.finish_reason == "length" for t in group],
                int(steps) if steps is not None else None,
            )
        )
    if grader is None or all(len(r.statuses) == 1 for r in results):
        return results
    votes = grader.classes([r.answers for r in results], [[s == "correct" for s in r.statuses] for r in results])
    return [r._replace(votes=v) for r, v in zip(results, votes, strict=True)]


def summarise_results(results: Sequence[ProblemResult]) -> dict[str, float]:
    """Return accuracy with its 95% interval over problems, pass@k, maj@k, accuracy by steps, lengths and grades.

    Keys: ``accuracy``, ``accuracy_low``, ``accuracy_high``; ``pass@k`` and ``maj@k`` with their ``_low`` and ``_high``
    for k = 2, 4, ... up to the fewest samples of a problem; ``accuracy_steps_<n>``; ``tokens``; ``share_truncated``;
    ``grade_<status>``.

    Args:
        results: At least one problem's results.
    """
    if not results:
        raise ValueError("no results to summarise.")
    summary: dict[str, float] = {}

    def add(name: str, values: Sequence[float]) -> None:
        estimate = proportion_interval(values)
        summary[name] = estimate.mean
        if estimate.n > 1:
            summary[f"{name}_low"], summary[f"{name}_high"] = estimate.low, estimate.high

    correct = [[s == "correct" for s in r.statuses] for r in results]
    add("accuracy", [sum(c) / len(c) for c in correct])
    n_samples = min(len(c) for c in correct)
    k = 2
    while k <= n_samples:
        add(f"pass@{k}", [pass_at_k(len(c), sum(c), k) for c in correct])
        add(
            f"maj@{k}",
            [
                majority_at_k(r.answers if r.votes is None else r.votes, c, k)
                for r, c in zip(results, correct, strict=True)
            ],
        )
        k *= 2
    by_steps: dict[int, list[float]] = defaultdict(list)
    for r, c in zip(results, correct, strict=True):
        if r.n_steps is not None:
            by_steps[r.n_steps].append(sum(c) / len(c))
    if len(by_steps) > 1:
        for n, values in sorted(by_steps.items()):
            summary[f"accuracy_steps_{n}"] = sum(values) / len(values)
    lengths = [n for r in results for n in r.n_tokens]
    summary["tokens"] = sum(lengths) / len(lengths)
    summary["share_truncated"] = sum(t for r in results for t in r.truncated) / len(lengths)
    statuses = [s for r in results for s in r.statuses]
    for status in STATUSES:
        summary[f"grade_{status}"] = statuses.count(status) / len(statuses)
    return summary
