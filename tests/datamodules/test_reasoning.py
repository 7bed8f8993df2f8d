"""Datamodules of problems: real files, splits that share nothing, damaged files that say where."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules import (
    ArithmeticDataModule,
    CompletionsDataModule,
    EvaluationSetDataModule,
    GSM8KDataModule,
    GSMSymbolicDataModule,
    HendrycksMathDataModule,
    JSONLDataModule,
    PreferencesDataModule,
)
from surefoot.cli import main
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.arithmetic import Chains, ProceduralPolicy, judge_steps
from surefoot.reasoning.completions import PreferencePair


def test_gsm8k(data_root: Path) -> None:
    data = GSM8KDataModule(data_root / "gsm8k", n_val=100, n_test=200, batch_size=8)
    assert (data.n_train, len(data.problems("val")), len(data.problems("test"))) == (7373, 100, 200)
    first = data.problems("test")[0]
    assert (first.answer, first.details["n_steps"]) == ("18", 2)
    assert "<<" not in first.solution
    assert first.solution.endswith("#### 18")
    annotated = GSM8KDataModule(data_root / "gsm8k", calculator_annotations=True)
    assert "<<16-3-4=9>>" in annotated.problems("test")[0].solution
    ids = {s: {p.id for p in data.problems(s)} for s in ("train", "val", "test")}  # type: ignore[arg-type]
    assert not ids["train"] & ids["val"]
    assert len(data.contaminated["test"]) < 10, "problems that share 13 words in a row are few, and reported"
    batch = next(iter(data.train_dataloader()))
    assert [p.id for p in batch["problem"]] == [data.problems("train")[i].id for i in batch["index"]]
    subset = GSM8KDataModule(data_root / "gsm8k", n_train=50, contamination="off")
    assert {p.id for p in subset.problems("train")} <= ids["train"] | ids["val"]
    assert subset.n_train == 50


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("amc23", 40),
        ("aime24", 30),
        ("minerva_math", 272),
        ("svamp", 1000),
        ("asdiv", 2215),
        ("math500", 500),
    ],
)
def test_evaluation_sets(name: str, n: int, data_root: Path) -> None:
    data = EvaluationSetDataModule(name, data_root / "math_eval")  # type: ignore[arg-type]
    problems = data.problems("test")
    assert len(problems) == n == len({p.id for p in problems})
    assert all(p.question.strip() and p.answer.strip() for p in problems)
    assert not any(p.answer.endswith(".0") and name in ("amc23", "svamp") for p in problems)
    with pytest.raises(DataError, match="has no train problems"):
        data.train_dataloader()


def math_row(i: int, level: int = 1, subject: str = "Algebra") -> dict[str, str]:
    return {
        "problem": f"problem number {i}",
        "solution": rf"so \boxed{{\frac{{{i}}}{{2}}}}",
        "level": f"Level {level}",
        "type": subject,
    }


def test_math_in_both_layouts(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for subject, folder in (
            ("Algebra", "algebra"),
            ("Counting & Probability", "counting_and_probability"),
        ):
            (tmp_path / "folders" / split / folder).mkdir(parents=True)
            for i in range(6):
                path = tmp_path / "folders" / split / folder / f"{i}.json"
                path.write_text(json.dumps(math_row(i, 1 + i % 5, subject)))
    (tmp_path / "lines").mkdir()
    for split in ("train", "test"):
        rows = [json.dumps(math_row(i, 1 + i % 5)) for i in range(10)]
        (tmp_path / "lines" / f"{split}.jsonl").write_text("\n".join(rows))
    folders = HendrycksMathDataModule(tmp_path / "folders", n_val=2, contamination="off")
    assert (folders.n_train, len(folders.problems("test"))) == (10, 12)
    assert folders.problems("test")[7].answer == r"\frac{1}{2}"
    assert {p.details["subject"] for p in folders.problems("test")} == {
        "algebra",
        "counting_and_probability",
    }
    chosen = HendrycksMathDataModule(
        tmp_path / "folders", n_val=0, levels=[2, 3], subjects=["algebra"], contamination="off"
    )
    assert [p.details["level"] for p in chosen.problems("test")] == [2, 3]
    lines = HendrycksMathDataModule(tmp_path / "lines", n_val=0, contamination="drop")
    with pytest.raises(DataError, match="no test problems"):  # every test problem is a training problem
        lines.problems("test")
    with pytest.raises(ConfigError, match="levels go from 1 to 5"):
        HendrycksMathDataModule(levels=[6])
    with pytest.raises(ConfigError, match="subjects are algebra"):
        HendrycksMathDataModule(subjects=["poetry"])
    (tmp_path / "lines/train.jsonl").write_text('{"problem": "p", "solution": "no box"}')
    with pytest.raises(DataError, match=r"train\.jsonl, row 1: the solution has no \\boxed"):
        HendrycksMathDataModule(tmp_path / "lines").n_train  # noqa: B018
    (tmp_path / "folders/train/algebra/0.json").write_text("{")
    with pytest.raises(DataError, match=r"0\.json is not JSON"):
        HendrycksMathDataModule(tmp_path / "folders").n_train  # noqa: B018


def test_math500_is_kept_out_of_train(tmp_path: Path) -> None:
    rows = [math_row(i) for i in range(10)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "m500.jsonl").write_text("\n".join(json.dumps(r | {"answer": "1"}) for r in rows[:3]))
    data = HendrycksMathDataModule(tmp_path, math500=tmp_path / "m500.jsonl", n_val=0)
    assert (data.n_train, len(data.problems("test"))) == (7, 3)


def test_gsm_symbolic_is_seeded_and_splits_are_disjoint() -> None:
    sizes = {"n_train": 60, "n_val": 20, "n_test": 20}
    data, again, other = (GSMSymbolicDataModule(**sizes, seed=s) for s in (0, 0, 1))
    questions = {s: [p.question for p in data.problems(s)] for s in ("train", "val", "test")}  # type: ignore[arg-type]
    assert {s: len(q) for s, q in questions.items()} == {"train": 60, "val": 20, "test": 20}
    assert not set(questions["train"]) & (set(questions["val"]) | set(questions["test"]))
    assert [p.question for p in again.problems("test")] == questions["test"]
    assert [p.question for p in other.problems("test")] != questions["test"]
    problem = data.problems("train")[0]
    assert problem.solution.endswith(f"#### {problem.answer}")


def test_arithmetic_splits_share_no_question_and_solutions_are_right() -> None:
    data = ArithmeticDataModule(
        n_train=300, n_val=50, n_test=50, solutions=ProceduralPolicy(styles=(0, 1, 2), spurious_rate=0.2)
    )
    problems = {s: list(data.problems(s)) for s in ("train", "val", "test")}
    questions = {s: {p.question for p in ps} for s, ps in problems.items()}
    assert not questions["train"] & questions["test"]
    assert not questions["val"] & questions["test"]
    for p in problems["train"]:
        assert judge_steps(p.question, p.solution.split("\n"))[-1] == "answer"
    assert (
        list(ArithmeticDataModule(n_train=5).problems("train"))[3]
        == ArithmeticDataModule(n_train=9).problems("train")[3]
    )
    assert data.problems("train")[:3] == problems["train"][:3]
    assert data.problems("train")[-1] == problems["train"][-1]
    with pytest.raises(IndexError):
        data.problems("train")[300]
    noisy = ArithmeticDataModule(n_train=50, solutions=ProceduralPolicy(0.5, 0.8))
    assert any("wait" in p.solution for p in noisy.problems("train"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chains(4, 3), "1 <= min_steps <= max_steps"),
        (lambda: Chains(operators="/"), "operators lie in"),
        (lambda: ProceduralPolicy(1.0, 1.0), "never ends"),
        (lambda: ProceduralPolicy(-0.1), r"lie in \[0, 1\]"),
        (lambda: ProceduralPolicy(styles=(3,)), r"numbers in 0\.\.2"),
        (lambda: ProceduralPolicy(styles=()), "at least one"),
        (lambda: ArithmeticDataModule(batch_size=0), "batch sizes must be positive"),
    ],
)
def test_arithmetic_refuses_nonsense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_world_that_lacks_a_split_is_too_small() -> None:
    """0+0%10= is its only question, and of one split."""
    data = ArithmeticDataModule(chains=Chains(1, 1, 10, "+", 0))
    only = data.problem("train", 0)
    assert only.question == "0+0%10="
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"1000 questions is of the split {split}"):
            data.problem(split, 0)
    with pytest.raises(DataError, match="too small a world"):  # 0+1 and 2+0 are its variants, and no training questions
        data.variant(only._replace(question="2+1%10="), 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("chains.max_steps", "2", "1 <= min_steps <= max_steps"),
        ("chains.operators", "+^", "operators lie in"),
        ("chains.styles", "[0]", "Option 'styles' is not accepted"),
        ("solutions.styles", "[3]", "styles are numbers in 0..2"),
        ("solutions.error_rate", "1.5", "lie in [0, 1]"),
        ("min_steps", "3", "min_steps"),
    ],
)
def test_wrong_arithmetic_settings_end_in_one_line(
    flag: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[1] / "configs/reasoning/sft_arithmetic.yaml"
    given = ["--config", str(config), f"--data.init_args.{flag}", value, "--runs_root", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *given])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    assert message in error.splitlines()[-1]


def test_missing_and_damaged_files_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUREFOOT_DATA", raising=False)
    with pytest.raises(DataError, match=r"no folder for gsm8k: set data.init_args.root, or .* SUREFOOT_DATA"):
        GSM8KDataModule().problems("test")
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        GSM8KDataModule(tmp_path / "nowhere").problems("test")
    with pytest.raises(DataError, match=r"train\.jsonl is missing"):
        GSM8KDataModule(tmp_path).problems("test")
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "5"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl, row 1: the answer has no '#### '"):
        GSM8KDataModule(tmp_path).problems("test")
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "#### 5"}\n[1]\n')
    with pytest.raises(DataError, match="line 2 is not a JSON object"):
        GSM8KDataModule(tmp_path).problems("test")
    (tmp_path / "train.jsonl").write_text('{"answer": "#### 5"}\n')
    with pytest.raises(DataError, match="row 1 has none of the fields question; it has answer"):
        GSM8KDataModule(tmp_path).problems("test")
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "#### 5"}\n')
    with pytest.raises(ConfigError, match="n_val is 256, but there are 1 training problems"):
        GSM8KDataModule(tmp_path).problems("test")


def test_preferences(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": "q", "chosen": "a", "rejected": f"b{i}"} for i in range(5)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = PreferencesDataModule(pairs=tmp_path / "pairs.jsonl", n_val=2, batch_size=3)
    assert (data.n_train, len(data.pairs("val"))) == (3, 2)
    assert {len(b["pair"]) for b in data.train_dataloader()} == {3}
    (tmp_path / "pairs.jsonl").write_text('{"prompt": [1], "chosen": [2, 3], "rejected": [4]}')
    assert PreferencesDataModule(pairs=tmp_path / "pairs.jsonl").pairs("train") == [PreferencePair([1], [2, 3], [4])]
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": [2, 3], "rejected": [4]}')
    with pytest.raises(DataError, match="row 1: prompt, chosen and rejected must all be texts"):
        PreferencesDataModule(pairs=tmp_path / "pairs.jsonl").n_train  # noqa: B018
    with pytest.raises(ConfigError, match="give either"):
        PreferencesDataModule()
    with pytest.raises(DataError, match="does not exist"):
        CompletionsDataModule(tmp_path / "none").n_train  # noqa: B018


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("...", "neither a digit nor a letter"),
        ("\\\\frac{1}{2", "braces that do not match"),
        ("\\\\frac{1}{}", "LaTeX command without its argument"),
        ("nan", "is no answer"),
        ("7" * 1001, "has 1001 characters"),
    ],
)
def test_a_reference_that_nothing_equals_is_an_error_of_the_data(tmp_path: Path, answer: str, fault: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"question": "q", "answer": "{answer}"}}\n')
    with pytest.raises(DataError, match=rf"test problem p-1: the reference answer .*{fault}"):
        JSONLDataModule(test=tmp_path / "p.jsonl").setup("test")


def test_references_that_only_their_own_text_equals_are_said_when_data_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["5", "x^2", "(1, 2)", "Friday", r"2^{1/2 \\frac 3} !!"]
    (tmp_path / "p.jsonl").write_text(
        "".join(f'{{"question": "q{i}", "answer": "{a}"}}\n' for i, a in enumerate(answers))
    )
    with caplog.at_level("INFO"):
        JSONLDataModule(test=tmp_path / "p.jsonl").setup("test")
    (line,) = [r.message for r in caplog.records if "only the same text equals" in r.message]
    assert line.startswith("JSONLDataModule, test: 1 of the reference answers cannot be read")
    assert "!!" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1234567.0", "1234567"),
        ("12345.678901", "12345.678901"),
        ("2.5", "2.5"),
        ("1e-07", "1e-07"),
        ("3", "3"),
    ],
)
def test_numbers_as_references_keep_their_digits(tmp_path: Path, value: str, text: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"question": "q", "answer": {value}}}\n')
    assert JSONLDataModule(test=tmp_path / "p.jsonl").problems("test")[0].answer == text


@pytest.mark.parametrize("value", ["NaN", "Infinity", '["5"]', '{"a": 5}'])
def test_references_that_are_no_numbers_or_texts_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"question": "q", "answer": {value}}}\n')
    with pytest.raises(DataError, match=r"expected a (finite )?number"):
        JSONLDataModule(test=tmp_path / "p.jsonl").setup("test")


def test_a_reference_in_parentheses_stays(data_root: Path) -> None:
    """ASDiv writes units in parentheses: 9 (apples); but -(1/3) is a number."""
    answers = {p.id: p.answer for p in EvaluationSetDataModule("asdiv").problems("test")}
    assert (answers["asdiv-0"], answers["asdiv-1313"]) == ("9", "-(1/3)")
