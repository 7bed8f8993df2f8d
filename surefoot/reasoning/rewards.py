"""Reward functions, called as TRL calls them, and their weighted sum on trajectories.

A reward function is any callable ``f(prompts, completions, completion_ids, **columns)`` that returns a list with one
float per completion, a list of floats per completion (one per span), or none where it does not apply. Columns:
``question``, ``answer``, ``solution``, ``grade`` (status), ``spans`` and ``steps`` (tokens and text of each step),
``finish_reason``, ``trajectories`` (the `Trajectory` of each, with its prompt's token ids, for what must not tokenise
again) and the problems' details.
"""

import inspect
import math
import numbers
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.arithmetic import judge_steps
from surefoot.reasoning.trajectories import Trajectory

__all__ = (
    "AccuracyReward",
    "FormatReward",
    "RewardFunction",
    "Rewards",
    "StepReward",
    "assign_rewards",
    "reward_names",
)

RewardFunction = Callable[..., Sequence[object]]


class AccuracyReward:
    """1 for a correct final answer, else 0, as the grader says."""

    def __call__(self, grade: Sequence[str], **columns: object) -> list[float]:
        """Return one reward per completion."""
        return [float(status == "correct") for status in grade]


class FormatReward:
    """1 for a completion that matches a pattern, else 0."""

    def __init__(self, pattern: str = r"####\s*\S+|\\boxed\{") -> None:
        """Initialize the function.

        Args:
            pattern: Regular expression that has to occur in the completion; by default an answer marked with #### or a
                box.

        Raises:
            ConfigError: If it is not a regular expression.
        """
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"not a regular expression: {pattern!r} ({error}).") from error

    def __call__(self, completions: Sequence[str], **columns: object) -> list[float]:
        """Return one reward per completion."""
        return [float(self.pattern.search(text) is not None) for text in completions]


class StepReward:
    """In the arithmetic world, 1 for every right step or answer and 0 for every other line: one reward per step."""

    def __call__(self, steps: Sequence[Sequence[str]], question: Sequence[str], **columns: object) -> list[list[float]]:
        """Return one reward per step of each completion; the steps have to be lines."""
        return [
            [float(kind in ("correct", "answer")) for kind in judge_steps(asked, lines)]
            for lines, asked in zip(steps, question, strict=True)
        ]


class Rewards:
    """What completions are rewarded for: the weighted sum of reward functions, for the whole or for each step."""

    def __init__(
        self,
        functions: list[RewardFunction] | None = None,
        weights: list[float] | None = None,
        step_separator: str | None = None,
    ) -> None:
        r"""Initialize the rewards.

        Args:
            functions: Reward functions, called as TRL calls them; by default the accuracy.
            weights: One per function; 1 by default.
            step_separator: Text that ends a step, such as "\n", for rewards and values per step; none for one span per
                completion.

        Raises:
            ConfigError: If there are not as many weights as functions, or one is not finite.
        """
        self.functions: list[RewardFunction] = functions or [AccuracyReward()]
        self.weights = weights or [1.0] * len(self.functions)
        self.step_separator = step_separator
        if len(self.weights) != len(self.functions):
            raise ConfigError(f"{len(self.functions)} reward functions but {len(self.weights)} weights.")
        if not all(math.isfinite(w) for w in self.weights):
            raise ConfigError(f"weights of reward functions must be finite numbers, got {self.weights}.")

    @property
    def names(self) -> list[str]:
        """Names under which the functions' rewards are logged."""
        return reward_names(self.functions)

    def __call__(self, trajectories: Sequence[Trajectory], prompts: Sequence[str]) -> None:
        """Fill in the rewards of trajectories that are cut into steps; see `assign_rewards`."""
        assign_rewards(trajectories, self.functions, self.weights, prompts)


#: Names that another key ``rollout/reward_<name>`` has.
_TAKEN = ("std",)


def reward_names(functions: Sequence[RewardFunction]) -> list[str]:
    """Return the names under which functions' rewards are logged; those that would share one are numbered from 1."""
    plain = [_plain_name(f) for f in functions]
    names: list[str] = []
    for i, name in enumerate(plain):
        numbered, n = name, plain[:i].count(name)
        while numbered in (*names, *_TAKEN) or (numbered == name and plain.count(name) > 1):
            n += 1
            numbered = f"{name}_{n}"
        names.append(numbered)
    return names


def _plain_name(function: RewardFunction) -> str:
    """Return a function's own name, or its class's; of a partial, that of what it calls."""
    while isinstance(function, partial):
        function = function.func
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
        DataError: If a function fails, or returns anything but a list of as many rewards as there are completions, each
            none, a finite number, or a list with a finite number per span. The line names the function.
    """
    columns = _columns(trajectories)
    totals = [[0.0] * len(t.token_spans()) for t in trajectories]
    for t in trajectories:
        t.reward_parts = {}
    for name, function, weight in zip(reward_names(functions), functions, weights, strict=True):
        try:
            values = function(
                prompts=list(prompts),
                completions=[t.text for t in trajectories],
                completion_ids=[list(t.completion) for t in trajectories],
                **columns,
            )
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DataError(f"the reward function {name} failed ({reason}).") from error
        _check_values(name, values, len(trajectories))
        for trajectory, total, value in zip(trajectories, totals, values, strict=True):
            if value is None:
                continue
            parts = _parts(name, value, len(total))
            for i, part in enumerate(parts):
                total[i] += weight * part
            trajectory.reward_parts[name] = trajectory.learned_sum(parts)
    for trajectory, total in zip(trajectories, totals, strict=True):
        trajectory.rewards = total


def _columns(trajectories: Sequence[Trajectory]) -> dict[str, list[object]]:
    """Return what reward functions are given beside prompts and completions, one entry a trajectory."""
    columns: dict[str, list[object]] = {
        "question": [t.problem.question for t in trajectories],
        "answer": [t.problem.answer for t in trajectories],
        "solution": [t.problem.solution for t in trajectories],
        "grade": [t.grade.status if t.grade else "error" for t in trajectories],
        "finish_reason": [t.finish_reason for t in trajectories],
        "spans": [list(t.token_spans()) for t in trajectories],
        "steps": [list(t.steps) or [t.text] for t in trajectories],
        "trajectories": list(trajectories),
    }
    for name in sorted({n for t in trajectories for n in t.problem.details}):
        columns.setdefault(name, [t.problem.details.get(name) for t in trajectories])
    return columns


def _check_values(name: str, values: object, n: int) -> None:
    """Raise a `DataError` unless a function returned a list of ``n`` values."""
    if inspect.iscoroutine(values):
        values.close()
        raise DataError(
            f"the reward function {name} returned a coroutine, expected a list of rewards: define it without async."
        )
    if not isinstance(values, list | tuple):
        raise DataError(
            f"the reward function {name} returned {_described(values)}, expected a list with one reward per completion"
            " (of an array, its tolist())."
        )
    if len(values) != n:
        raise DataError(f"the reward function {name} returned {len(values)} rewards for {n} completions.")


def _parts(name: str, value: Any, n_spans: int) -> list[float]:
    """Return one reward per span; a single number stands on the last span."""
    parts = list(value) if isinstance(value, list | tuple) else [0.0] * (n_spans - 1) + [value]
    if len(parts) != n_spans:
        raise DataError(
            f"the reward function {name} returned {len(parts)} rewards for a completion of {n_spans} spans."
        )
    for part in parts:
        if not isinstance(part, numbers.Real) or not math.isfinite(part):
            raise DataError(
                f"the reward function {name} returned {_described(part)} as a reward, expected a finite number, a list"
                " with one per span, or none."
            )
    return [float(part) for part in parts]


def _described(value: object) -> str:
    """Return a value for a message, in one line that is not long."""
    text = " ".join(repr(value).split())
    kind = "" if value is None or isinstance(value, numbers.Real) else f"{type(value).__name__} "
    return kind + (text if len(text) <= 80 else text[:80] + "...")
