"""Which of many graded completions are trained on."""

import random
from collections.abc import Iterable, Sequence

from surefoot.reasoning.trajectories import Trajectory

__all__ = ("correct_completions", "distinct_completions", "group_by_problem")


def group_by_problem(trajectories: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Return the completions of each problem by its id, problems in order of appearance."""
    groups: dict[str, list[Trajectory]] = {}
    for t in trajectories:
        groups.setdefault(t.problem.id, []).append(t)
    return groups


def correct_completions(
    trajectories: Iterable[Trajectory], max_per_problem: int, seed: int = 0, distinct: bool = True
) -> list[Trajectory]:
    """Return each problem's correct completions, at most so many, chosen uniformly; truncated ones are left out.

    Distinct ones bring variety where a problem has many solutions. Where it has few, each right one is kept once but
    every way of reaching the answer by luck is distinct: there keep completions as often as they were sampled.

    Args:
        trajectories: Graded completions.
        max_per_problem: Most completions kept of a problem.
        seed: Seed of the choice.
        distinct: Keep of completions that differ only in white space the first one.

    References: Yuan et al. 2023, rejection sampling fine-tuning (distinct ones); Singh et al. 2024, ReST-EM (as
    sampled).
    """
    kept: list[Trajectory] = []
    for problem, group in group_by_problem(trajectories).items():
        chosen = [t for t in group if t.is_correct and t.finish_reason == "stop"]
        if distinct:
            chosen = distinct_completions(chosen)
        if len(chosen) > max_per_problem:
            # no derive_seed here: the committed gain of RFT was measured with these draws
            drawn = random.Random(f"{seed}/{problem}").sample(range(len(chosen)), max_per_problem)
            chosen = [chosen[i] for i in sorted(drawn)]
        kept += chosen
    return kept


def distinct_completions(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Return the first of each text, up to white space."""
    first: dict[str, Trajectory] = {}
    for t in trajectories:
        first.setdefault(" ".join(t.text.split()), t)
    return list(first.values())
