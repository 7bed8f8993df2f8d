"""Pairs for per-step DPO: where a completion is lost, what is preferred to it, and what is refused."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules import PreferencesDataModule
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions import FirstPitPairs, Pit
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.credit import prover_values
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Span, pack_sequences
from surefoot.reasoning.sequences.packing import PromptCompletion
from surefoot.reasoning.trajectories import Trajectory

END = 2
PROMPT = [4, 5, 6]


def completion(steps: Sequence[Sequence[int]], values: Sequence[float], **known: Any) -> Trajectory:
    """A completion of problem p whose values, but for the outcome, are shares of 10 attempts; 1 at last is right."""
    tokens = [token for step in steps for token in step]
    ends = [sum(map(len, steps[: i + 1])) for i in range(len(steps))]
    spans = [Span(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    status = "correct" if values[-1] == 1 else "wrong"
    counts = [*[10] * len(steps), 0]
    plain: dict[str, Any] = {
        "problem": Problem("p", "q", "1"),
        "group": 0,
        "text": str(tokens),
        "target": tokens,
        "spans": spans,
    }
    plain |= {"grade": Grade(status, None), "values": values, "value_counts": counts, "policy_version": 0}
    plain |= {"prompt": PROMPT, "completion": tokens, "behaviour_logprobs": [-1.0] * len(tokens)}
    return Trajectory(**plain | {"finish_reason": "stop"} | known)


RIGHT = completion([[10, 11], [12, 13], [14, END]], [0.5, 0.6, 0.9, 1.0])
#: Begins otherwise.
APART = completion([[30, 31], [32, END]], [0.5, 0.9, 1.0])
LOST = completion([[10, 11], [20, 21], [22, END]], [0.5, 0.6, 0.0, 0.0])


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0.5, 0.6, 0.0, 0.0], 2),
        ([0.5, 0.0, 0.0, 0.0], 1),
        ([0.5, 0.6, 0.1, 0.0], 3),
        ([0.5, 0.0, 0.4, 0.0], 1),
        ([0.1, 0.1, 0.1, 0.0], 3),
    ],
)
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.filterwarnings("ignore:values of the best of 20 are made of 10 attempts")
def test_the_pit_is_the_first_of_the_steps_with_the_lowest_value(values: list[float], step: int, k: int) -> None:
    """Whatever k: the best of more attempts rises with the value of one."""
    lost = replace(LOST, values=values)
    (pair,) = FirstPitPairs(k=k)([APART, lost], 0)
    i, n_prefix = step - 1, 2 * (step - 1)
    counts = (lost.value_counts[i], lost.value_counts[step])
    assert pair.record is not None
    best = prover_values(lost, k)
    assert pair.record.pit == Pit(step, n_prefix, (values[i], values[step]), counts, (best[i], best[step]), k)
    assert pair.prompt == PROMPT
    assert pair.chosen == APART.target
    assert pair.rejected == LOST.completion[: 2 * step]
    assert (END in pair.rejected) == (step == 3), "the end of sequence is the last step's"


def test_the_best_of_k_is_unbiased_from_k_attempts_on() -> None:
    """6 of 10 are right: three of them are all wrong for 4 choices of 120, five never; of 20 there are not so many."""
    records = [FirstPitPairs(k=k)([RIGHT, LOST], 0)[0].record for k in (1, 3, 5)]
    with pytest.warns(UserWarning, match="of the best of 20 are made of 10 attempts, and are too low"):
        records.append(FirstPitPairs(k=20)([RIGHT, LOST], 0)[0].record)
    before = [record.pit.best_of_k[0] for record in records if record is not None and record.pit is not None]
    assert before == pytest.approx([0.6, 1 - 4 / 120, 1.0, 1 - 0.4**20])


def test_a_completion_that_had_not_ended_has_no_end_in_its_pair() -> None:
    cut = replace(LOST, values=[0.5, 0.6, 0.1, 0.0], finish_reason="length", target=LOST.completion[:5])
    cut = replace(cut, completion=LOST.completion[:5], spans=[Span(0, 2), Span(2, 4), Span(4, 5)])
    (pair,) = FirstPitPairs()([RIGHT, cut], 0)
    assert pair.rejected == [10, 11, 20, 21, 22]


def test_a_stop_text_is_replaced_by_the_end_where_the_last_step_is_the_pit() -> None:
    stopped = replace(LOST, values=[0.5, 0.6, 0.1, 0.0], target=[*LOST.completion[:5], 99])
    assert FirstPitPairs()([RIGHT, stopped], 0)[0].rejected == [10, 11, 20, 21, 22, 99]


def test_a_shared_prefix_belongs_to_the_prompt() -> None:
    (pair,) = FirstPitPairs("shared_prefix")([RIGHT, LOST], 0)
    assert pair.prompt == [*PROMPT, 10, 11]
    assert pair.chosen == [12, 13, 14, END]
    assert pair.rejected == [20, 21]
    assert pair.record is not None
    assert (pair.record.problem, pair.record.form) == ("p", "shared_prefix")


def test_what_takes_the_pit_and_ends_right_is_not_preferred() -> None:
    lucky = completion([[10, 11], [20, 21], [23, END]], [0.5, 0.6, 0.0, 1.0])
    for form in ("full", "shared_prefix"):
        builder = FirstPitPairs(form)
        assert builder([lucky, LOST], 0) == []
        assert builder.left_out([lucky, LOST], 0)["nothing_right"] == 1
        assert len(builder([lucky, RIGHT, LOST], 0)) == 1


def test_continuations_are_wanted_where_nothing_goes_on_rightly() -> None:
    """From each prefix once; one that is there, whatever it began with, is enough; full pairs want none."""
    again = replace(LOST, sample=1)
    builder = FirstPitPairs("shared_prefix")
    (start,) = builder.starts([APART, LOST, again], 0)
    assert (list(start.given), start.problem, list(start.prompt or ())) == ([10, 11], LOST.problem, PROMPT)
    assert builder([APART, LOST, again], 0) == []
    continued = completion([[10, 11], [15, END]], [1, 1, 1], n_given=2, value_counts=())
    assert builder.starts([continued, LOST, again], 0) == []
    assert [pair.chosen for pair in builder([continued, LOST, again], 0)] == [[15, END]] * 2
    assert builder.starts([RIGHT, LOST], 0) == FirstPitPairs().starts([APART, LOST], 0) == []
    assert FirstPitPairs().starts([LOST], 0) == []


def of_problem(name: str, t: Trajectory, **known: Any) -> Trajectory:
    return replace(t, problem=Problem(name, name, "1"), **known)


def test_pairs_of_a_problem_are_drawn_and_others_counted() -> None:
    """Draws of one problem do not depend on others; completions count as often as they were sampled."""
    many = [replace(LOST, completion=(own := [10, 11, 40 + i, 21, 22, END]), target=own, sample=i) for i in range(9)]
    unsolved = [of_problem("u", t, values=[0.0, 0.0, 0.0, 0.0]) for t in (APART, LOST)]
    lonely = of_problem("l", LOST)
    builder = FirstPitPairs(max_per_problem=3)
    found = builder([*many, *unsolved, RIGHT, lonely], 0)
    assert len(found) == 3
    assert builder.left_out([*many, *unsolved, RIGHT, lonely], 0) == {
        "unsolved_problem": 1,
        "beyond_max_per_problem": 6,
        "nothing_right": 1,
    }
    assert found == builder([RIGHT, *many], 0)
    assert len({str([pair.rejected for pair in builder([RIGHT, *many], seed)]) for seed in range(9)}) > 1
    assert len(FirstPitPairs()([RIGHT, LOST, replace(LOST, sample=1)], 0)) == 2
    (kept,) = FirstPitPairs(keep_unsolved=True)(unsolved, 0)
    assert kept.record is not None
    assert kept.record.pit is not None
    assert kept.record.pit.step == 1


def test_only_what_was_sampled_whole_and_is_wrong_is_rejected() -> None:
    continued = replace(LOST, n_given=2, values=(), value_counts=())
    unread = replace(LOST, grade=Grade("timeout", None), values=(), value_counts=())
    elsewhere = replace(RIGHT, prompt=[4, 5])
    truncated = replace(RIGHT, finish_reason="length")
    assert FirstPitPairs()([RIGHT, continued, unread], 0) == []
    assert FirstPitPairs()([elsewhere, truncated, LOST], 0) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": (), "value_counts": ()}, "of problem p has no values of its steps: label"),
        ({"value_counts": ()}, "has 4 values and 0 counts of attempts behind them for its prompt and 3 steps"),
        ({"values": [0.5, 0.0], "value_counts": [10, 0]}, "has 2 values and 2 counts"),
        ({"values": [0.5, math.nan, 0.0, 0.0]}, "expected probabilities in"),
        ({"values": [0.5, 1.5, 0.0, 0.0]}, "expected probabilities in"),
        ({"values": [0.5, 0.55, 0.0, 0.0]}, "the value 0.55 of 10 attempts, which is no share of so many"),
        ({"spans": ()}, "has no steps: label the completions"),
    ],
)
def test_what_is_not_labelled_rightly_is_refused(change: dict[str, Any], message: str) -> None:
    for k in (1, 5):
        with pytest.raises(DataError, match=message) as error:
            FirstPitPairs(k=k)([RIGHT, replace(LOST, **change)], 0)
        assert "\n" not in str(error.value)


def described(name: str, temperature: float = 1.0, contents: str = "", **more: Any) -> str:
    sampling = {"n": 4, "max_tokens": 8, "temperature": temperature} | more
    held = {"contents": {"model.init_args.name": contents}} if contents else {}
    return json.dumps({"model": {"class_path": "M", "init_args": {"name": name}}, "sampling": sampling} | held)


def test_values_are_those_of_the_policy_that_sampled() -> None:
    """Models are told apart by what their folders hold; budgets do not make another policy."""

    def paired(policy: str, *provers: str) -> int:
        lost = [replace(LOST, policy=policy, prover=prover, sample=i) for i, prover in enumerate(provers)]
        return len(FirstPitPairs()([RIGHT, *lost], 0))

    assert paired(described("a"), described("a", n=20, max_tokens=9)) == 1
    assert paired(described("a", contents="x"), described("./a", contents="x")) == 1
    assert paired("", described("a")) == paired(described("a"), "") == 1, "not recorded"
    for policy, prover, differing in (
        (described("a"), described("b"), "model"),
        (described("a", contents="x"), described("a", contents="y"), "model"),
        (described("a"), described("a", 0.7), "sampling"),
        (described("a"), described("b", 0.7), "model and sampling"),
    ):
        with pytest.raises(DataError, match=f"sampled with another {differing} than the attempts behind"):
            paired(policy, prover)
    with pytest.raises(DataError, match="what is paired has labels of several provers, of another model"):
        paired("", described("a"), described("b"))


def test_numbers_are_checked() -> None:
    for k, n in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match=f"k and max_per_problem must be positive, got {k} and {n}"):
            FirstPitPairs(k=k, max_per_problem=n)


def stored(folder: Path, completions: list[Trajectory]) -> Path:
    sharded = ShardedFolder(folder, "label", {}, [1], [len(completions)])
    sharded.write(lambda _: completions, lambda _: None, lambda: None, lambda _: {})
    return folder


def test_a_datamodule_pairs_what_needs_no_continuations(tmp_path: Path) -> None:
    folder = stored(tmp_path / "labels", [RIGHT, LOST])
    full = PreferencesDataModule(folder, builder=FirstPitPairs())
    assert full.pairs("train") == FirstPitPairs()([RIGHT, LOST], 0)
    assert len(full.fingerprints()) == 2
    assert PreferencesDataModule(folder, builder=FirstPitPairs("shared_prefix")).n_train == 1
    lonely = stored(tmp_path / "lonely", [APART, LOST])
    with pytest.raises(ConfigError, match=r"FirstPitPairs wants continuations of 1 prefixes .* with surefoot pairs"):
        PreferencesDataModule(lonely, builder=FirstPitPairs("shared_prefix")).pairs("train")


@pytest.mark.parametrize("form", ["full", "shared_prefix"])
def test_what_both_sides_begin_with_is_packed_once(form: Any) -> None:
    """Prompt 3 and beginning 2, then 3 of the 4 right tokens and 1 of the 2 wrong ones; apart 5 + 3 and 5 + 1."""
    (pair,) = FirstPitPairs(form)([RIGHT, LOST], 0)
    sides = [PromptCompletion(pair.prompt, side) for side in (pair.chosen, pair.rejected)]
    (together,) = pack_sequences(sides, 100, together=[0, 0])
    (apart,) = pack_sequences(sides, 100, share_prompts=False)
    assert (len(together.tokens), len(apart.tokens)) == (5 + 3 + 1, 5 + 3 + 5 + 1)
