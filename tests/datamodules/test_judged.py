"""Judged solutions in public layouts: small files by hand, the real ones, and what is damaged."""

import json
import operator
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from conftest import Fit
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_reasoning import tiny_reasoning
from tiny_tokenizers import byte_level, model_with

from datamodules import (
    BigBenchMistakeDataModule,
    GSM8KSolutionsDataModule,
    JudgedDataModule,
    MathShepherdDataModule,
    PRM800KDataModule,
    ProcessBenchDataModule,
)
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.sequences import split_spans
from surefoot.reasoning.values import JudgedText, judged_solution, tokenised

ALL = {"val_share": 0.0, "test_share": 0.0, "balanced": False}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def read(data: JudgedDataModule) -> list[tuple[list[str], list[float | None]]]:
    found = [j for j in data.judged("train") if isinstance(j, JudgedText)]
    return sorted((list(j.steps), list(j.values)) for j in found)


def test_process_bench(tmp_path: Path) -> None:
    row = {"id": "a-1", "problem": "1+1?", "steps": ["One and one.", "That is 3.", "So 3."], "label": 1}
    right = row | {"id": "a-2", "steps": ["It is 2."], "label": -1}
    data = ProcessBenchDataModule(write(tmp_path / "gsm8k.jsonl", row, right), **ALL)
    assert read(data) == [
        (["It is 2."], [1.0]),
        (["One and one.\n", "That is 3.\n", "So 3."], [1.0, 0.0, None]),
    ]
    assert [j.outcome for j in data.judged("train")] == [None, None]
    graded = [row | {"final_answer_correct": False}, right | {"final_answer_correct": True}]
    data = ProcessBenchDataModule(write(tmp_path / "graded.jsonl", *graded), **ALL)
    assert {len(j.steps): j.outcome for j in data.judged("train") if isinstance(j, JudgedText)} == {3: 0.0, 1: 1.0}


def test_math_shepherd(tmp_path: Path) -> None:
    """Signs of the text itself stay: only what stands in place of a tag is a label."""
    given = "What is 1+1? Step 1: 1 + 1 = 3 ки\nStep 2: 3 - 1 = 2 ки\nStep 3: The answer is: 2 ки"
    label = "What is 1+1? Step 1: 1 + 1 = 3 -\nStep 2: 3 - 1 = 2 +\nStep 3: The answer is: 2 +"
    data = MathShepherdDataModule(write(tmp_path / "a.jsonl", {"input": given, "label": label, "task": "GSM8K"}), **ALL)
    steps = ["Step 1: 1 + 1 = 3\n", "Step 2: 3 - 1 = 2\n", "Step 3: The answer is: 2"]
    assert read(data) == [(steps, [0.0, 1.0, 1.0])]
    (judged,) = data.judged("train")
    assert isinstance(judged, JudgedText)
    assert judged.problem.question == "What is 1+1?"
    row = {name: f"Follow Step 1: add. {text}" for name, text in (("input", given), ("label", label))}
    data = MathShepherdDataModule(write(tmp_path / "b.jsonl", row), **ALL)
    assert read(data) == [(steps, [0.0, 1.0, 1.0])], "a question may speak of steps"


def test_prm800k(tmp_path: Path) -> None:
    """The chosen path, an alternative to each step, a step that people wrote, and one without a rating."""
    steps = [
        {"completions": [{"text": "a", "rating": 1}, {"text": "b", "rating": -1}], "chosen_completion": 0},
        {"completions": [{"text": "c", "rating": 0}], "human_completion": {"text": "d"}, "chosen_completion": None},
        {"completions": [{"text": "e", "rating": 1}, {"text": "f", "rating": None}], "chosen_completion": 0},
    ]
    row = {"question": {"problem": "?"}, "label": {"steps": steps, "finish_reason": "solution"}}
    found = read(PRM800KDataModule([write(tmp_path / "a.jsonl", row)], neutral=0.5, **ALL))
    assert found == [
        (["a\n", "c"], [1.0, 0.5]),
        (["a\n", "d\n", "e"], [1.0, None, 1.0]),
        (["a\n", "d\n", "f"], [1.0, None, None]),
        (["b"], [0.0]),
    ]


def test_a_rating_that_several_paths_share_counts_once(tmp_path: Path) -> None:
    """In the loss and its balance: ratings of chosen steps have weight on the first path that holds them."""
    alternatives = [{"text": "b", "rating": -1}, {"text": "c", "rating": -1}]
    steps = [
        {"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0},
        {"completions": [{"text": "d", "rating": 1}, *alternatives], "chosen_completion": 0},
        {"completions": [{"text": "e", "rating": 1}], "chosen_completion": 0},
    ]
    row = {"question": {"problem": "?"}, "label": {"steps": steps, "finish_reason": "solution"}}
    path = write(tmp_path / "a.jsonl", row)
    plain = PRM800KDataModule([path], **ALL).judged("train")
    assert [("".join(j.steps).replace("\n", ""), list(j.values), list(j.weights)) for j in plain] == [
        ("ab", [1.0, 0.0], [1.0, 1.0]),
        ("ac", [1.0, 0.0], [0.0, 1.0]),
        ("ade", [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]),
    ]
    # five ratings: three of 1 and two of 0, each half worth 2.5
    balanced = PRM800KDataModule([path], **ALL | {"balanced": True}).judged("train")
    assert [list(j.weights) for j in balanced] == [
        pytest.approx([2.5 / 3, 1.25]),
        pytest.approx([0, 1.25]),
        pytest.approx([0, 2.5 / 3, 2.5 / 3]),
    ]


def test_steps_that_were_rated_before_people_gave_up_are_kept(tmp_path: Path) -> None:
    steps = [
        {"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0},
        {"completions": [], "chosen_completion": None, "human_completion": None},
    ]
    row = {"question": {"problem": "?"}, "label": {"steps": steps, "finish_reason": "give_up"}}
    assert read(PRM800KDataModule([write(tmp_path / "a.jsonl", row)], **ALL)) == [(["a"], [1.0])]


def test_alternatives_without_text_are_left_out(tmp_path: Path) -> None:
    """Where one is chosen, the path goes on without it, and is not given again where it ends there."""
    good, bad, wrong = {"text": "a", "rating": 1}, {"text": "b", "rating": -1}, {"text": " \n", "rating": -1}
    first, blank = {"completions": [good], "chosen_completion": 0}, {"completions": [bad, wrong]}
    after = {"completions": [{"text": "c", "rating": 1}], "chosen_completion": 0}
    beside, path, alone = (["a\n", "b"], [1.0, 0.0], [1, 1]), (["a\n", "c"], [1.0, 1.0], [0, 1]), (["a"], [1.0], [1])
    for found, steps in (
        ([beside], [first, blank]),
        ([beside], [first, blank | {"chosen_completion": 1}]),
        ([beside], [first, blank | {"human_completion": wrong}]),
        ([beside, path], [first, blank | {"chosen_completion": 1}, after]),
        ([beside, path], [first, blank | {"human_completion": wrong}, after]),
        ([alone], [{"completions": [wrong], "chosen_completion": 0}, first, {"completions": [wrong]}, after]),
        ([], [{"completions": [wrong]}]),
    ):
        row = {"question": {"problem": "?"}, "label": {"steps": steps}}
        judged = [j for _, j in PRM800KDataModule([write(tmp_path / "a.jsonl", row)]).read()]
        assert [(j.steps, j.values, j.weights) for j in judged] == found


def alternatives(texts: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """A step's alternatives, up to three, with any ratings."""
    ratings = st.sampled_from([1, 0, -1, None])
    return st.lists(st.fixed_dictionaries({"text": st.sampled_from(texts), "rating": ratings}), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(*map(alternatives, (["a", "b"], ["", " \n\t"], ["", " "]))), max_size=4), data=st.data()
)
def test_white_space_changes_nothing(
    steps: list[tuple[list[dict[str, Any]], ...]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Steps and alternatives of white space, before, between and after the others."""
    path, tight, wide = tmp_path_factory.mktemp("rows") / "a.jsonl", list[object](), list[object]()
    for texts, before, after in steps:
        chosen = data.draw(st.sampled_from([*range(len(texts)), None]))
        human = data.draw(st.sampled_from([None, {"text": "c"}]))
        wide += [{"completions": before, "chosen_completion": 0}] if before else []
        for way, completions, shift in ((tight, texts, 0), (wide, [*before, *texts, *after], len(before))):
            number = None if chosen is None else chosen + shift
            way.append({"completions": completions, "chosen_completion": number, "human_completion": human})
    rows = [{"question": {"problem": "?"}, "label": {"steps": way}} for way in (tight, wide)]
    without, with_blanks = (list(PRM800KDataModule([write(path, row)]).read()) for row in rows)
    assert without == with_blanks


def test_real_chains_of_thought(data_root: Path) -> None:
    data = BigBenchMistakeDataModule(
        data_root / "big_bench_mistake", balanced=True, test_share=0.2, val_share=0.1, seed=1
    )
    sizes = {split: len(data.judged(split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 1530, "val": 219, "test": 437}
    weighted: dict[bool, float] = {True: 0.0, False: 0.0}
    for j in data.judged("train"):
        assert isinstance(j, JudgedText)
        assert list(j.values).count(0.0) <= 1
        assert None not in j.values[: list(j.values).index(0.0)] if 0.0 in j.values else None not in j.values
        for value, weight in zip(j.values, j.weights, strict=True):
            if value is not None:
                weighted[value >= 0.5] += weight
    assert weighted[True] == pytest.approx(weighted[False]), "both halves count alike"
    one = BigBenchMistakeDataModule(data_root / "big_bench_mistake", tasks=["word_sorting"], **ALL)
    assert len(one.judged("train")) == 300
    outcomes = [j.outcome for j in one.judged("train")]
    assert (outcomes.count(1.0), outcomes.count(0.0)) == (45, 255), "answers against targets, whatever steps are"
    assert {w for j in one.judged("train") for w in j.weights} == {1.0}


def test_real_solutions_of_gsm8k(data_root: Path) -> None:
    data = GSM8KSolutionsDataModule(data_root / "gsm8k", **ALL)
    found = data.judged("train")
    assert len(found) == 4 * 1319
    shares = [float(j.values[-1] or 0) for j in found]
    assert 0.2 < sum(shares) / len(shares) < 0.6
    assert all(v is None for j in found for v in j.values[:-1])
    assert [j.outcome for j in found] == shares
    split = GSM8KSolutionsDataModule(
        data_root / "gsm8k", solvers=["6b_finetuning", "175b_verification"], test_share=0.5
    )
    sides = [{j.problem.id for j in split.judged(s) if isinstance(j, JudgedText)} for s in ("train", "test")]
    assert not sides[0] & sides[1], "a problem's solutions are on one side"


def test_steps_end_with_the_token_that_completes_them(tmp_path: Path) -> None:
    row = {"problem": "1+1=", "steps": ["1+1=2", "2*2=4", "#### 4"], "label": 2}
    data = ProcessBenchDataModule(write(tmp_path / "a.jsonl", row), **ALL)
    (judged,) = data.judged("train")
    assert isinstance(judged, JudgedText)
    model = TinyLanguageModel(width=16, n_layers=1, n_heads=2, max_length=64)
    found = tokenised(judged, model, PlainPrompt())
    assert model.decode(found.prompt) == "1+1=\n"
    assert [model.decode(found.completion[:n]).rstrip() for n in found.n_tokens] == [
        "1+1=2",
        "1+1=2\n2*2=4",
        "1+1=2\n2*2=4\n#### 4",
    ]
    assert (list(found.values), list(found.n_steps)) == ([1.0, 1.0, 0.0], [1, 2, 3])
    spans, _ = split_spans(found.completion, model.decode, "\n")
    assert list(found.n_tokens) == [span.end for span in spans], "as what the model writes is cut for search and credit"
    assert found.completion[-1] == model.eos_token_id


def test_an_empty_step_leaves_its_label_to_the_one_before(tmp_path: Path) -> None:
    row = {"problem": "1+1=", "steps": ["1+1=2", " ", "#### 4"], "label": 1}
    (judged,) = ProcessBenchDataModule(write(tmp_path / "a.jsonl", row), **ALL).judged("train")
    assert isinstance(judged, JudgedText)
    assert (list(judged.steps), list(judged.values)) == (["1+1=2\n", "#### 4"], [0.0, None])
    solution = judged_solution(Problem("p", "1+1=", ""), ["a", " ", "b"], [1.0, 1.0, 0.0], "x", [0.0, 1.0, 0.0])
    assert (list(solution.steps), list(solution.weights)) == (["a\n", "b"], [1.0, 0.0])
    row = {"problem": "1+1=", "steps": ["", "#### 4"], "label": 0}
    with pytest.raises(DataError, match="the first step is empty, and judged to be wrong"):
        ProcessBenchDataModule(write(tmp_path / "b.jsonl", row), **ALL).judged("train")


@pytest.mark.filterwarnings("ignore")
def test_a_model_learns_from_them(data_root: Path, fit: Fit, tmp_path: Path) -> None:
    """Real chains of thought through the whole loop; what a tiny model learns of them is not the question."""
    config = tiny_reasoning("SFT")
    init = config["model"]["init_args"]
    model = model_with(byte_level())
    model.base.config.max_position_embeddings = 4096
    model.save(tmp_path / "model")
    init["language_model"] = {"class_path": "PretrainedLanguageModel", "init_args": {"name": str(tmp_path / "model")}}
    config["model"] = {
        "class_path": "ProcessReward",
        "init_args": {k: init[k] for k in ("language_model", "optimizer")},
    }
    config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "callbacks": []}
    arguments = {"root": str(data_root / "big_bench_mistake"), "tasks": ["multistep_arithmetic"], "batch_size": 8}
    config["data"] = {"class_path": "BigBenchMistakeDataModule", "init_args": arguments}
    run = fit(config)
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/first_error_f1", "val/auroc", "val/brier_after_1"} <= set(header)
    assert "val/brier_after_0" not in header, "nobody has judged what was not begun"


DAMAGED: list[tuple[Callable[[Path], JudgedDataModule], object, str]] = [
    (ProcessBenchDataModule, {"problem": "?", "steps": ["a"], "label": 1}, "the first wrong step is 1, of 1 steps"),
    (ProcessBenchDataModule, {"problem": "?", "steps": ["a"], "label": "x"}, "the label is 'x'"),
    (ProcessBenchDataModule, {"problem": "?", "steps": "abc", "label": 0}, "expected a list of texts"),
    (ProcessBenchDataModule, {"problem": "?", "steps": [1], "label": -1}, "expected a list of texts"),
    (ProcessBenchDataModule, {"problem": "?", "steps": [" "], "label": -1}, "has no steps"),
    (ProcessBenchDataModule, {"steps": ["a"], "label": -1}, "has none of the fields problem"),
    (MathShepherdDataModule, {"input": "Q Step 1: a ки", "label": "Q Step 1: b +"}, "is not the input with"),
    (MathShepherdDataModule, {"input": "Q Step 1: a ки", "label": "Q Step 1: a ?"}, "is not the input with"),
    (MathShepherdDataModule, {"input": "Q Step 1: a", "label": "Q Step 1: a"}, "has no 'Step 1:'"),
]


@pytest.mark.parametrize(("make", "row", "message"), DAMAGED)
def test_damage_is_named_with_its_row(
    make: Callable[..., JudgedDataModule], row: Any, message: str, tmp_path: Path
) -> None:
    good = {
        "problem": "?",
        "steps": ["a"],
        "label": -1,
        "input": "Q Step 1: a ки",
    }
    good["label"] = "Q Step 1: a +" if make is MathShepherdDataModule else -1
    path = write(tmp_path / "x.jsonl", good, row)
    with pytest.raises(DataError, match=rf"x\.jsonl, row 2.*{message}"):
        make(path, **ALL).judged("train")


JUNK: list[Any] = [None, True, 1.5, 3, -1, "b\nc", [1], {"x": 1}]
_STEP = ("label", "steps", 0)
FITTING: list[tuple[tuple[str | int, ...], list[Any]]] = [
    (("question",), []),
    (("question", "problem"), ["b\nc"]),
    (("label",), []),
    (("label", "steps"), []),
    (_STEP, [{"x": 1}]),  # nothing was rated
    ((*_STEP, "completions"), []),
    ((*_STEP, "completions", 1), []),
    ((*_STEP, "completions", 1, "text"), ["b\nc"]),
    ((*_STEP, "completions", 1, "rating"), [None, -1]),
    ((*_STEP, "chosen_completion"), [None]),
    (("label", "steps", 1, "completions"), [None]),
    (("label", "steps", 1, "human_completion"), [None]),
    (("label", "steps", 1, "human_completion", "text"), ["b\nc"]),
    (("label", "steps", 1, "human_completion", "rating"), [None, -1]),
]


@pytest.mark.parametrize(("keys", "fitting"), FITTING)
def test_all_of_a_rated_row_has_its_type(keys: tuple[str | int, ...], fitting: list[Any], tmp_path: Path) -> None:
    """Three completions, of which none has the number 3."""
    completion = {"text": "a", "rating": 1}
    steps = [
        {"completions": [completion] * 3, "chosen_completion": 0, "human_completion": None},
        {"completions": [], "chosen_completion": None, "human_completion": completion},
    ]
    good = {"question": {"problem": "?"}, "label": {"steps": steps}}
    for junk in JUNK:
        row = json.loads(json.dumps(good))
        reduce(operator.getitem, keys[:-1], row)[keys[-1]] = junk
        data = PRM800KDataModule([write(tmp_path / "x.jsonl", good, row)], **ALL)
        if junk in fitting:
            data.judged("train")
            continue
        with pytest.raises(DataError, match=r"^[^\n]*x\.jsonl, row 2[^\n]*\Z"):
            data.judged("train")


def test_other_errors(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        ProcessBenchDataModule(tmp_path / "none.jsonl").judged("train")
    rated = {"question": {"problem": "?"}, "label": {"steps": [{"completions": [{"text": "a", "rating": 3}]}]}}
    with pytest.raises(DataError, match=r"row 1, step 1: the rating is 3"):
        PRM800KDataModule([write(tmp_path / "a.jsonl", rated)]).judged("train")
    with pytest.raises(DataError, match=r"question is '\?': expected an object"):
        PRM800KDataModule([write(tmp_path / "b.jsonl", {"question": "?", "label": {}})]).judged("train")
    with pytest.raises(ConfigError, match="at least one path"):
        PRM800KDataModule([])
    with pytest.raises(ConfigError, match="at least one task"):
        BigBenchMistakeDataModule(tasks=[])
    with pytest.raises(ConfigError, match="at least one model"):
        GSM8KSolutionsDataModule(solvers=[])
    with pytest.raises(ConfigError, match="must sum to less than 1"):
        ProcessBenchDataModule(tmp_path / "a.jsonl", val_share=0.5, test_share=0.5)
