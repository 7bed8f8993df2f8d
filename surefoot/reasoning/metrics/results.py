"""What is reported of sampled and graded completions, with intervals over problems."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from surefoot.reasoning.answers import STATUSES, Grader
from surefoot.reasoning.metrics.sampling import majority_at_k, pass_at_k
from surefoot.reasoning.trajectories import Trajectory
from surefoot.statistics import proportion_interval

__all__ = ("Outcome", "ProblemResult", "outcome_of", "problem_results", "summarise_results")


class Outcome(NamedTuple):
    """What is counted of one completion."""

    problem: str  # its id
    status: str  # of its grade
    answer: str | None  # as extracted
    n_tokens: int
    truncated: bool
    n_steps: int | None = None  # of the problem, where it is known


def outcome_of(trajectory: Trajectory) -> Outcome:
    """Return what is counted of a graded completion."""
    problem, grade = trajectory.problem, trajectory.grade
    steps = problem.details.get("n_steps")
    return Outcome(
        problem.id,
        grade.status if grade else "error",
        grade.answer if grade else None,
        len(trajectory.completion),
        trajectory.finish_reason == "length",
        None if steps is None else int(steps),
    )


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


def problem_results(outcomes: Iterable[Outcome], grader: Grader | None = None) -> list[ProblemResult]:
    """Return the results of each problem, in order of appearance.

    Args:
        outcomes: Those of all completions.
        grader: Says which answers are equal, for maj@k; without one, correct ones are, and equal plain numbers.
    """
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.problem].append(outcome)
    results = [
        ProblemResult(
            problem,
            [o.status for o in group],
            [o.answer for o in group],
            [o.n_tokens for o in group],
            [o.truncated for o in group],
            group[0].n_steps,
        )
        for problem, group in groups.items()
    ]
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
