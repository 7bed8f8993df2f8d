"""Reward functions are called as TRL calls them; spans, weights, missing and bad values."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rewards import (
    AccuracyReward,
    FormatReward,
    Rewards,
    StepReward,
    assign_rewards,
    reward_names,
)
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory


def trajectory(text: str, status: Any = "correct", spans: tuple[Span, ...] = ()) -> Trajectory:
    problem = Problem("p", "7+5-3%10=", "9", "s", {"level": 3})
    n = max(1, len(text))
    return Trajectory(
        problem,
        0,
        [1],
        [2] * n,
        [0.0] * n,
        "stop",
        0,
        text=text,
        grade=Grade(status, "9"),
        spans=spans,
    )


def test_a_function_written_for_trl_works() -> None:
    def shorter_is_better(
        completions: list[str], completion_ids: list[list[int]], level: list[int], **kwargs: Any
    ) -> list[float]:
        assert set(kwargs) >= {"prompts", "answer", "solution", "question", "grade"}
        assert len(completion_ids[0]) == len(completions[0])
        return [level[i] - 0.1 * len(c) for i, c in enumerate(completions)]

    batch = [trajectory("ab"), trajectory("abcd", "wrong")]
    assign_rewards(batch, [AccuracyReward(), shorter_is_better], [2.0, 0.5], ["q", "q"])
    assert [t.total_reward for t in batch] == pytest.approx([2 + 1.4, 1.3])
    assert batch[0].reward_parts == {"AccuracyReward": 1.0, "shorter_is_better": pytest.approx(2.8)}


def test_an_outcome_reward_stands_on_the_last_span_and_steps_on_their_own() -> None:
    text = "7+5=2\n2-3=8\n#### 8"
    spans = (Span(0, 6), Span(6, 12), Span(12, 18))
    batch = [trajectory(text, "wrong", spans)]
    batch[0].steps = text.split("\n")
    assign_rewards(batch, [StepReward(), AccuracyReward()], [1.0, 5.0], ["q"])
    assert list(batch[0].rewards) == [1.0, 0.0, 0.0]
    batch[0].grade = Grade("correct", "9")
    assign_rewards(batch, [StepReward(), AccuracyReward()], [1.0, 5.0], ["q"])
    assert list(batch[0].rewards) == [1.0, 0.0, 5.0]


def test_none_means_not_applicable() -> None:
    batch = [trajectory("a"), trajectory("b")]
    assign_rewards(batch, [lambda **_: [None, 2.0]], [1.0], ["", ""])
    assert [t.total_reward for t in batch] == [0.0, 2.0]
    assert [len(t.reward_parts) for t in batch] == [0, 1]


async def waits(**_: Any) -> list[float]:
    return [1.0, 2.0]


def fails(**_: Any) -> list[float]:
    raise KeyError("no such\ncolumn")


def one_argument(completions: list[str]) -> list[float]:
    return [0.0 for _ in completions]


BAD_RETURNS: dict[str, tuple[Any, str]] = {
    "too few": ([1.0], "returned 1 rewards for 2 completions"),
    "none": (None, "returned None, expected a list"),
    "scalar": (1.0, "returned 1.0, expected a list"),
    "numpy": (np.ones(2), "returned ndarray array"),
    "tensor": (torch.ones(2), "returned Tensor tensor"),
    "text": ("ab", "returned str 'ab', expected a list"),
    "generator": ((float(i) for i in range(2)), "returned generator"),
    "mapping": ({"a": 1.0, "b": 2.0}, "returned dict"),
    "nan": ([1.0, float("nan")], "returned nan as a reward"),
    "infinite": ([1.0, [-float("inf")]], "returned -inf as a reward"),
    "text as a reward": ([1.0, "1"], "returned str '1' as a reward"),
    "array as a reward": ([1.0, np.ones(1)], "returned ndarray array"),
    "complex": ([1.0, 1j], "returned complex 1j as a reward"),
    "none in a span": ([1.0, [None]], "returned None as a reward"),
    "too many spans": ([1.0, [1.0, 2.0]], "returned 2 rewards for a completion of 1 spans"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD_RETURNS)
def test_bad_rewards_end_in_a_line_that_names_the_function(case: str) -> None:
    values, message = BAD_RETURNS[case]

    def my_reward(**_: Any) -> Any:
        return values

    for function in (my_reward, partial(my_reward)):
        with pytest.raises(DataError, match=message) as error:
            assign_rewards([trajectory("a"), trajectory("b")], [function], [1.0], ["", ""])
        assert str(error.value).startswith("the reward function my_reward returned ")
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (waits, "waits returned a coroutine, .* define it without async"),
        (fails, r"fails failed \(KeyError: .*no such.*column"),
        (one_argument, "one_argument failed .TypeError: .*unexpected keyword argument"),
    ],
)
def test_functions_that_fail_or_wait(function: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        assign_rewards([trajectory("a"), trajectory("b")], [function], [1.0], ["", ""])
    assert "\n" not in str(error.value)


def test_numbers_of_other_types_are_rewards() -> None:
    batch = [trajectory("a"), trajectory("b"), trajectory("c")]
    assign_rewards(batch, [lambda **_: (np.float32(0.5), True, [3])], [2.0], [""] * 3)
    assert [t.total_reward for t in batch] == [1.0, 2.0, 6.0]
    assert all(type(r) is float for t in batch for r in t.rewards)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, 2.0], "1 reward functions but 2 weights"), ([float("nan")], "must be finite numbers")],
)
def test_weights_belong_to_functions(weights: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rewards(weights=weights)


def test_functions_see_the_trajectories() -> None:
    """A verifier reads token ids of prompt and completion, and need not tokenise again."""

    def lengths(trajectories: list[Trajectory], **_: Any) -> list[float]:
        return [len(t.prompt) + len(t.completion) / 10 for t in trajectories]

    batch = [trajectory("ab"), trajectory("abcd")]
    Rewards([lengths], [2.0])(batch, ["", ""])
    assert [t.total_reward for t in batch] == pytest.approx([2.4, 2.8])


def test_functions_of_one_name_are_told_apart() -> None:
    def std(**_: Any) -> list[float]:
        return [0.25]

    def FormatReward_1(**_: Any) -> list[float]:
        return [0.75]

    batch = [trajectory("#### 5")]
    functions = [FormatReward("5"), FormatReward("6"), AccuracyReward(), std, FormatReward_1]
    assert reward_names(functions) == [
        "FormatReward_1",
        "FormatReward_2",
        "AccuracyReward",
        "std_1",
        "FormatReward_1_1",
    ]
    assign_rewards(batch, functions, [1.0] * 5, ["q"])
    assert batch[0].reward_parts == {
        "FormatReward_1": 1.0,
        "FormatReward_2": 0.0,
        "AccuracyReward": 1.0,
        "std_1": 0.25,
        "FormatReward_1_1": 0.75,
    }


def test_format() -> None:
    texts = ["#### 5", r"\boxed{2}", "5", "####"]
    assert FormatReward()(completions=texts) == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match=r"not a regular expression: '\('"):
        FormatReward("(")
