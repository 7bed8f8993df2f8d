"""Reward functions, called as TRL calls them, and their weighted sum on trajectories.

A reward function is any callable ``f(prompts, completions, completion_ids, **columns)`` that returns one float per
completion, a list of floats per completion (one per span), or none where it does not apply. Columns: ``question``,
``answer``, ``solution``, ``grade`` (status), ``spans`` and ``steps`` (tokens and text of each step), ``finish_reason`` and the problems' details.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from surefoot.arithmetic import judge_steps
from surefoot.errors import ConfigError, DataError
from surefoot.trajectories import Trajectory

__all__ = (
    "AccuracyReward",
    "FormatReward",
    "RewardFunction",
    "StepReward",
    "assign_rewards",
    "reward_name",
)

RewardFunction = Callable[..., Sequence[Any]]


class AccuracyReward:
    """1 for a correct final answer, else 0, as the grader says."""

    def __call__(self, grade: Sequence[str], **columns: Any) -> list[float]:
        """Return one reward per completion."""
        return [float(status == "correct") for status in grade]


class FormatReward:
    """1 for a completion that matches a pattern, else 0."""

    def __init__(self, pattern: str = r"####\s*\S+|\\boxed\{") -> None:
        """Initialize the function.

        Args:
            pattern: Regular expression that has to occur in the completion; by default an answer marked with #### or a box.

        Raises:
            ConfigError: If it is not a regular expression.
        """
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"not a regular expression: {pattern!r} ({error}).") from error

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
        """Return one reward per completion."""
        return [float(self.pattern.search(text) is not None) for text in completions]


class StepReward:
    """In the arithmetic world, 1 for every right step or answer and 0 for every other line: one reward per step."""

    def __call__(
        self, steps: Sequence[Sequence[str]], question: Sequence[str], **columns: Any
    ) -> list[list[float]]:
        """Return one reward per step of each completion; the steps have to be lines."""
        return [
            [float(kind in ("correct", "answer")) for kind in judge_steps(asked, lines)]
            for lines, asked in zip(steps, question, strict=True)
        ]


def reward_name(function: RewardFunction) -> str:
    """Return the name under which a function's rewards are logged."""
    return getattr(function, "__name__", type(function).__name__)


def assign_rewards(
    trajectories: Sequence[Trajectory],
    functions: Sequence[RewardFunction],
    weights: Sequence[float],
    prompts: Sequence[str],
) -> None:
    """Fill in the trajectories' rewards: the weighted sum of the functions, outcome rewards on the last span.

    Args:
        trajectories: Graded trajectories, with text and spans.
        functions: Reward functions.
        weights: One per function.
        prompts: The prompts as text.

    Raises:
        DataError: If a function returns another number of rewards, or one that is not a finite number.
    """
    columns: dict[str, list[Any]] = {
        "question": [t.problem.question for t in trajectories],
        "answer": [t.problem.answer for t in trajectories],
        "solution": [t.problem.solution for t in trajectories],
        "grade": [t.grade.status if t.grade else "error" for t in trajectories],
        "finish_reason": [t.finish_reason for t in trajectories],
        "spans": [list(t.token_spans()) for t in trajectories],
        "steps": [list(t.steps) or [t.text] for t in trajectories],
    }
    for name in sorted({n for t in trajectories for n in t.problem.details}):
        columns.setdefault(name, [t.problem.details.get(name) for t in trajectories])
    totals = [[0.0] * len(t.token_spans()) for t in trajectories]
    for t in trajectories:
        t.reward_parts = {}
    for function, weight in zip(functions, weights, strict=True):
        name = reward_name(function)
        values = function(
            prompts=list(prompts),
            completions=[t.text for t in trajectories],
            completion_ids=[list(t.completion) for t in trajectories],
            **columns,
        )
        if len(values) != len(trajectories):
            raise DataError(
                f"the reward function {name} returned {len(values)} rewards for {len(trajectories)} completions."
            )
        for trajectory, total, value in zip(trajectories, totals, values, strict=True):
            if value is None:
                continue
            parts = (
                list(value) if isinstance(value, Sequence) else [0.0] * (len(total) - 1) + [value]
            )
            if len(parts) != len(total):
                raise DataError(
                    f"the reward function {name} returned {len(parts)} rewards for a completion of {len(total)} spans."
                )
            if not all(math.isfinite(p) for p in parts):
                raise DataError(f"the reward function {name} returned {value}.")
            for i, part in enumerate(parts):
                total[i] += weight * float(part)
            trajectory.reward_parts[name] = float(sum(parts))
    for trajectory, total in zip(trajectories, totals, strict=True):
        trajectory.rewards = total
