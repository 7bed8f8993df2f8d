"""Reward functions are called as TRL calls them; spans, weights, missing and bad values."""

from typing import Any

import pytest

from surefoot.answers import Grade
from surefoot.errors import ConfigError, DataError
from surefoot.problems import Problem
from surefoot.rewards import AccuracyReward, FormatReward, StepReward, assign_rewards
from surefoot.sequences import Span
from surefoot.trajectories import Trajectory


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


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda **_: [1.0], "returned 1 rewards for 2 completions"),
        (lambda **_: [1.0, float("nan")], "returned nan"),
        (lambda **_: [1.0, [1.0, 2.0]], "returned 2 rewards for a completion of 1 spans"),
    ],
)
def test_bad_rewards_are_errors(function: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_rewards([trajectory("a"), trajectory("b")], [function], [1.0], ["", ""])


def test_format() -> None:
    texts = ["#### 5", r"\boxed{2}", "5", "####"]
    assert FormatReward()(completions=texts) == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match=r"not a regular expression: '\('"):
        FormatReward("(")
