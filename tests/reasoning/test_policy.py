"""Completions that begin with given tokens: text, steps, grades, rewards, log-probabilities and their gradient."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk

from datamodules import ArithmeticDataModule
from surefoot.errors import DataError
from surefoot.reasoning.answers import Grade, Grader
from surefoot.reasoning.completions import PairRecord, RandomPairs
from surefoot.reasoning.completions.store import RECORD, describe_shards, read_trajectories, write_shard
from surefoot.reasoning.credit import GroupAdvantage, PerStepAdvantage
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rewards import AccuracyReward, StepReward, assign_rewards
from surefoot.reasoning.rollouts import HFEngine, Sampling
from surefoot.reasoning.sequences import PromptCompletion, Span, pack_sequences
from surefoot.reasoning.trajectories import REQUIRED_COLUMNS, Trajectory

GREEDY = Sampling(temperature=0.0, max_tokens=40)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    data = ArithmeticDataModule(n_train=8, n_val=1, n_test=1, seed=0)
    data.setup("fit")
    return [data.problems("train")[i] for i in range(3)]


@pytest.fixture(scope="module")
def policy(problems: list[Problem]) -> Iterator[Policy]:
    """A policy that has memorized the problems' solutions."""
    model, prompt = TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128), PlainPrompt()
    sequences = [PromptCompletion(prompt.prompt_ids(p, model), prompt.target_ids(p, model)) for p in problems]
    (pack,) = pack_sequences(sequences, 1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (-model.score(pack).logprobs.mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    policy = Policy(model, prompt, HFEngine(), Grader())
    policy.ready()
    yield policy
    policy.close()


def prefixes(policy: Policy, problem: Problem) -> list[list[int]]:
    """Return nothing, the solution's first step, a step and a half, and the solution up to its last token."""
    ids = policy.prompt.target_ids(problem, policy.model)[:-1]
    line = len(policy.model.encode(problem.solution.split("\n")[0] + "\n"))
    return [[], ids[:line], ids[: line + 3], ids[:-1]]


def test_a_continuation_is_cut_graded_and_rewarded_as_the_whole_it_belongs_to(
    policy: Policy, problems: list[Problem]
) -> None:
    starts = [Start(p, given, i) for i, p in enumerate(problems) for given in prefixes(policy, p)]
    trajectories = policy.complete(starts, GREEDY, range(len(starts)))
    policy.cut_into_steps(trajectories, "\n")
    assign_rewards(trajectories, [StepReward(), AccuracyReward()], [1.0, 1.0], [""] * len(trajectories))
    for t, start in zip(trajectories, starts, strict=True):
        lines = start.problem.solution.split("\n")
        assert t.text == start.problem.solution
        assert [s.rstrip("\n") for s in t.steps] == lines
        assert t.grade == Grade("correct", t.problem.answer)
        assert list(t.rewards) == [1.0] * (len(lines) - 1) + [2.0]
        assert (t.n_given, list(t.completion[: t.n_given])) == (len(start.given), list(start.given))
        assert list(t.target) == list(t.completion) == policy.prompt.target_ids(t.problem, policy.model)
        n_own = sum(span.end > t.n_given for span in t.spans)
        assert t.total_reward == n_own + 1, "steps that were given earn nothing"
        assert t.reward_parts == {"StepReward": n_own, "AccuracyReward": 1.0}
        assert t.target_sequence == PromptCompletion([*t.prompt, *start.given], list(t.completion[t.n_given :]))
    assert [t.sample for t in trajectories] == [0, 1, 2, 3] * len(problems)


@pytest.mark.parametrize("written", ["\n", "\n\n2-3=9\n", ""])
def test_no_reward_of_a_given_step_is_earned_by_going_on_with_separators(policy: Policy, written: str) -> None:
    """Only steps that were sampled earn rewards: those of given ones do not become the policy's by a line break."""
    model, given = policy.model, "7+5=2\n"
    ids = [*model.encode(given), *model.encode(written), model.eos_token_id]
    t = Trajectory(
        Problem("p", "7+5-3%10=", "9"), 0, [5], ids, [0.0] * len(ids), "stop", 0, n_given=len(model.encode(given))
    )
    t.text = given + written
    policy.cut_into_steps([t], "\n")
    assert t.steps == [given, written]
    assert t.spans == [Span(0, t.n_given), Span(t.n_given, len(ids))]
    assign_rewards([t], [StepReward()], [1.0], [""])
    assert t.rewards[0] == 1
    assert t.total_reward == (written.strip() == "2-3=9")


def test_a_start_has_a_budget_and_a_prompt_of_its_own(policy: Policy, problems: list[Problem]) -> None:
    whole, line, *_ = prefixes(policy, problems[0])
    prompt = policy.prompt.prompt_ids(problems[0], policy.model)
    starts = [Start(problems[0], whole), Start(problems[0], line), Start(problems[1], line, 1, prompt)]
    budgets = [Sampling(n=2, temperature=0.0, max_tokens=4), GREEDY, GREEDY]
    trajectories = policy.complete(starts, budgets, [1, 2, 3])
    assert [t.n_sampled for t in trajectories[:2]] == [4, 4]
    assert [t.finish_reason for t in trajectories] == ["length", "length", "stop", "stop"]
    assert [t.sample for t in trajectories] == [0, 1, 2, 0]
    assert trajectories[3].completion == trajectories[2].completion
    assert trajectories[3].prompt == prompt
    for wrong in ([GREEDY], [GREEDY] * 4):
        with pytest.raises(ValueError, match="3 prompts"):
            policy.complete(starts, wrong, [1, 2, 3])


def test_log_probabilities_of_sampled_tokens_are_the_model_s_and_given_ones_have_none(
    policy: Policy, problems: list[Problem]
) -> None:
    given = prefixes(policy, problems[0])[2]
    trajectories = policy.complete([Start(problems[0], given)], Sampling(n=3, max_tokens=9), [5])
    for t in trajectories:
        assert all(math.isnan(v) for v in t.behaviour_logprobs[: t.n_given])
        (alone,) = pack_sequences([PromptCompletion([*t.prompt, *given], t.completion[t.n_given :])], 1000)
        expected = policy.model.score(alone).logprobs.detach()
        torch.testing.assert_close(torch.tensor(t.behaviour_logprobs[t.n_given :]), expected, rtol=1e-4, atol=1e-5)
    (pack,) = pack_sequences([t.sequence for t in trajectories], 1000)
    assert len(pack.targets) == sum(t.n_sampled for t in trajectories), "no given token is in the loss"
    n_prompt = len(trajectories[0].prompt)
    assert len(pack.tokens) == n_prompt + len(given) + sum(t.n_sampled - 1 for t in trajectories), "shared once"


def given_trajectory(rewards: list[float], n_given: int, mask: list[bool] | None = None) -> Trajectory:
    """Return a completion of three spans of two tokens, of which some tokens were given."""
    spans = [Span(0, 2), Span(2, 4), Span(4, 6)]
    t = Trajectory(Problem("p", "q", "1"), 0, [1], range(6), [0.0] * 6, "stop", 0, n_given, mask=mask)
    t.spans, t.rewards = spans, rewards
    return t


def test_credit_of_continuations_leaves_given_steps_out() -> None:
    """Own rewards 0, 1 and 2, mean 1: to go -1 + 0 for the first's last but one, 0 for its last, 1 for the other."""
    batch = [given_trajectory([9.0, 0.0, 1.0], 2), given_trajectory([9.0, 9.0, 2.0], 4)]
    immediate = PerStepAdvantage("immediate", "none")(batch)
    assert [a.tolist() for a in immediate] == [[0, 0, -1, -1, 0, 0], [0, 0, 0, 0, 1, 1]]
    to_go = PerStepAdvantage("to_go", "none")(batch)
    assert [a.tolist() for a in to_go] == [[0, 0, -1, -1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert [t.total_reward for t in batch] == [1.0, 2.0]
    assert GroupAdvantage("none")(batch)[1].tolist() == [0.5] * 6
    # A span that begins before the prefix ends, and one that a mask has count, are the policy's doing.
    assert given_trajectory([9.0, 4.0, 1.0], 3).total_reward == 5
    assert given_trajectory([9.0, 4.0, 1.0], 4, [False, False, True, True, True, True]).total_reward == 5


def full_trajectory() -> Trajectory:
    """Return a trajectory of which every field is filled in."""
    return Trajectory(
        Problem("p", "q?", "1", "s", {"n_steps": 2, "subject": "x", "level": None}),
        3,
        [1, 2],
        [5, 6, 7],
        [math.nan, -0.5, -0.25],
        "length",
        7,
        n_given=1,
        temperature=0.7,
        sample=4,
        text="5 6 7",
        target=[5, 6, 2],
        grade=Grade("unparsable", None),
        mask=[False, True, True],
        spans=[Span(0, 2), Span(2, 3)],
        steps=["5 6", " 7"],
        values=[0.25, 0.5, 1.0],
        rewards=[0.1, 1.0],
        reward_parts={"StepReward": 0.1},
    )


def shown(t: Trajectory) -> str:
    """Return all that a trajectory is; two of them that differ in nothing are the same text."""
    row = {n: list(v) if isinstance(v, list | tuple) else v for n, v in vars(t).items()}
    return json.dumps(row | {"details": dict(t.problem.details), "problem": t.problem[:4]}, default=list)


def test_rows_survive_a_round_trip_through_a_file(tmp_path: Path) -> None:
    bare = Trajectory(Problem("b", "q", ""), 0, [1], [2], [-1.0], "stop", 0)
    given = [full_trajectory(), bare]
    assert [shown(Trajectory.from_row(t.as_row())) for t in given] == [shown(t) for t in given]
    path = tmp_path / "data-00000-of-00001.arrow"
    write_shard(given, path)
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(DataError, match="not finished"):
        list(read_trajectories(tmp_path))
    describe_shards(tmp_path, [path])
    assert [shown(t) for t in read_trajectories(tmp_path)] == [shown(t) for t in given]
    assert load_from_disk(str(tmp_path)).column_names == list(bare.as_row())


def test_rows_of_an_earlier_version_are_read() -> None:
    row = {name: value for name, value in full_trajectory().as_row().items() if name in REQUIRED_COLUMNS}
    old = Trajectory.from_row(row)
    assert (old.n_given, old.mask, old.temperature, old.values, old.problem.solution) == (0, None, 1.0, (), "")
    assert old.target_sequence == PromptCompletion([1, 2], [5, 6, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": [-1.0]}, "logprobs has 1 values for 3 tokens"),
        ({"mask": [True] * 4}, "mask has 4 values for 3 tokens"),
        ({"n_given": 4}, "4 of 3 tokens were given"),
        ({"span_ends": [2]}, "span_starts has 2 values, span_ends 1"),
        ({"span_ends": [2, 99]}, r"span_ends \[2, 99\] do not cut 3 tokens"),
        ({"span_ends": [2, 2]}, "do not cut 3 tokens into steps that follow one another"),
        ({"span_starts": [0, 1]}, "do not cut 3 tokens"),
        ({"span_starts": [1, 2]}, "do not cut 3 tokens"),
        ({"span_starts": [0, 3], "span_ends": [3, 3]}, "do not cut 3 tokens"),
        ({"span_starts": [0, 5], "span_ends": [5, 3]}, "do not cut 3 tokens"),
        ({"span_starts": [0], "span_ends": [2]}, "do not cut 3 tokens"),
        ({"details": "{"}, "Expecting"),
    ],
)
def test_a_damaged_row_ends_in_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([full_trajectory().as_row() | change]).save_to_disk(tmp_path / "rows")
    with pytest.raises(DataError, match=f"row 1 is no stored completion: .*{message}") as error:
        list(read_trajectories(tmp_path / "rows"))
    assert "\n" not in str(error.value)


def test_pairs_of_continuations_prefer_after_the_same_prefix_only() -> None:
    def one(given: list[int], last: int, status: Any) -> Trajectory:
        ids = [*given, last, 2]
        known = {"text": str(ids), "target": ids, "grade": Grade(status, None), "n_given": len(given)}
        return Trajectory(Problem("p", "q", "1"), 0, [1], ids, [0.0] * len(ids), "stop", 0, **known)

    batch = [one([5, 6], 7, "correct"), one([5, 6], 8, "wrong"), one([5], 9, "wrong"), one([], 9, "correct")]
    assert RandomPairs(9)(batch, 0) == [([1, 5, 6], [7, 2], [8, 2], PairRecord("p", "random"))]
