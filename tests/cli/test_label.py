"""surefoot label as users meet it: values of steps, resumed after kill -9, refused when something has changed."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh_processes import run_fresh
from tiny_reasoning import tiny_reasoning
from tiny_tokenizers import byte_level, model_with

from surefoot.cli import main
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.completions.store import read_completions, read_trajectories
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import REQUIRED_COLUMNS
from surefoot.statistics import proportion_interval

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "model": tiny_reasoning("SFT")["model"]["init_args"]["language_model"],
        "engine": {"class_path": "HFEngine", "init_args": {"max_sequences": 64}},
        "prompt": {"class_path": "PlainPrompt"},
        "grader": {"rule": "last_number"},
        "sampling": {"n": 2, "max_tokens": 24},
    } | changes


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three completions of each of 10 problems, a few of them of several lines."""
    folder = tmp_path_factory.mktemp("completions")
    data = {"class_path": "ArithmeticDataModule", "init_args": {"n_test": 10, "n_train": 10}}
    sampled = settings(data=data, sampling={"n": 3, "max_tokens": 24})
    (folder / "generate.yaml").write_text(yaml.safe_dump(sampled))
    main(["generate", "--config", str(folder / "generate.yaml"), "--out", str(folder / "sampled")])
    return folder / "sampled"


def label(completions: Path, folder: Path, out: str, *flags: str, **changes: Any) -> Path:
    config = folder / "label.yaml"
    config.write_text(yaml.safe_dump({"completions": str(completions), "problems_per_shard": 3} | settings(**changes)))
    main(["label", "--config", str(config), "--out", str(folder / out), *flags])
    return folder / out


def rows(folder: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in read_completions(folder)]


def test_every_step_has_a_value(completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = label(completions, tmp_path, "a")
    found = list(read_trajectories(out))
    assert len(found) == 30
    assert any(len(t.spans) > 1 for t in found)
    for t, before in zip(found, read_trajectories(completions), strict=True):
        assert (t.completion, t.text, t.grade) == (before.completion, before.text, before.grade)
        assert "".join(t.steps) == t.text
        assert len(t.values) == len(t.value_counts) == len(t.spans) + 1
        assert t.grade is not None
        assert t.values[-1] == t.grade.correct
        assert list(t.value_counts) == [2] * len(t.spans) + [0]
        assert all(v in (0, 0.5, 1) for v in t.values)
    assert len({t.values[0] for t in found if t.problem.id == found[0].problem.id}) == 1
    printed = capsys.readouterr()
    assert "completions              30.000" in printed.out
    n_whole = sum(len(t.spans) == 1 for t in found)
    assert n_whole, "some completions have no separator"
    assert f"one_step                 {n_whole:.3f}" in printed.out
    assert "value_after_0_steps" in printed.out
    assert "10/10 problems" in printed.err
    label(completions, tmp_path, "a")
    assert "10/10 problems" not in capsys.readouterr().err, "a finished folder is left as it is"


def summary(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "summary.json").read_text())
    return found


def test_help_says_what_settings_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["label", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "95% interval is not wider, in (0, 0.5); by default each gets all sampling.n",
        "from 1 to sampling.n - 1, with --half_width or --first_pit; by default a quarter of sampling.n",
        "this value or more, in (0, 1]; by default each gets all sampling.n",
        "ends a step; by default a line break",
    ):
        assert said in text


def test_intervals_are_over_problems(completions: Path, tmp_path: Path) -> None:
    """All completions of a problem share the prompt's value: three of each say no more of it than one."""
    three, one = (label(completions, tmp_path, f"{n}", "--per_problem", n) for n in ("3", "1"))
    names = [f"value_after_0_steps{end}" for end in ("", "_low", "_high")]
    assert [summary(three)[n] for n in names] == pytest.approx([summary(one)[n] for n in names])
    means: dict[str, list[float]] = {}
    for t in read_trajectories(three):
        if len(t.values) > 2:
            means.setdefault(t.problem.id, []).append(t.values[1])
    expected = proportion_interval([sum(own) / len(own) for own in means.values()])
    names = [f"value_after_1_steps{end}" for end in ("", "_low", "_high")]
    assert [summary(three)[n] for n in names] == pytest.approx(expected[:3])
    assert all(0 <= value <= 1 for name, value in summary(three).items() if name.startswith("value_after"))


def test_the_prefill_is_reported(completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other every completion's prefixes are read; together each that is another, by an engine without a
    prefix cache from its first token on."""
    out = label(completions, tmp_path, "a")
    prefixes = [
        (t.problem.id, *t.prompt, *t.completion[:end])
        for t in read_trajectories(out)
        for end in [0, *(s.end for s in t.spans[:-1])]
    ]
    found = summary(out)
    assert found["prefill_naive"] == sum(len(p) - 1 for p in prefixes)
    assert found["prefill_computed"] == sum(len(p) - 1 for p in set(prefixes)) < found["prefill_naive"]
    assert found["prefix_hit_rate"] == 0
    printed = capsys.readouterr().out
    assert f"prefill_naive            {found['prefill_naive']:.3f}" in printed
    assert "prefix_hit_rate          0.000" in printed
    assert "sampled_ungraded         0.000" in printed
    (out / "summary.json").unlink()
    next(out.glob("*.counts.json")).unlink()
    label(completions, tmp_path, "a")
    assert "prefill_computed" not in summary(out), "a shard of an earlier version does not say what it took"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_label_as_one_engine_does(completions: Path, tmp_path: Path) -> None:
    inner = {"class_path": "HFEngine", "init_args": {"max_sequences": 64}}
    ray_engine = {"class_path": "RayEngine", "init_args": {"engine": inner, "n_workers": 2, "batch_size": 4}}
    alone, spread = label(completions, tmp_path, "alone"), label(completions, tmp_path, "spread", engine=ray_engine)
    for a, b in zip(read_trajectories(alone), read_trajectories(spread), strict=True):
        assert (a.completion, a.values, a.value_counts) == (b.completion, b.values, b.value_counts)


def test_a_prover_with_another_tokenizer_is_refused_or_retokenised(
    completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The values stand at the ends of the completions' own steps, in their own tokens, with the prover beside them."""
    own = tiny_reasoning("SFT")["model"]["init_args"]["language_model"]["init_args"]
    TinyLanguageModel(**own).save(tmp_path / "policy")
    model_with(byte_level()).save(tmp_path / "prover")
    prover = {"class_path": "PretrainedLanguageModel", "init_args": {"name": str(tmp_path / "prover")}}
    with pytest.raises(SystemExit):
        label(completions, tmp_path, "refused", model=prover)
    assert "or retokenise (surefoot label: --tokenizer" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="prefixes of completions are retokenised"):
        out = label(completions, tmp_path, "a", "--tokenizer", str(tmp_path / "policy"), model=prover)
    plain = list(read_trajectories(label(completions, tmp_path, "plain")))
    for t, same in zip(read_trajectories(out), plain, strict=True):
        assert (t.completion, t.spans, t.steps) == (same.completion, same.spans, same.steps)
        assert list(t.value_counts) == [2] * len(t.spans) + [0]
        described = json.loads(t.prover)
        assert described["tokenizer"] == str(tmp_path / "policy")
        assert described["model"]["init_args"]["name"] == str(tmp_path / "prover")
        assert json.loads(same.prover)["sampling"]["max_tokens"] == 24
    with pytest.raises(SystemExit):
        label(completions, tmp_path, "b", "--tokenizer", str(tmp_path / "prover"), model=prover)
    assert "give the one that the completions were sampled with" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        label(completions, tmp_path, "c", "--tokenizer", str(tmp_path / "nowhere"), model=prover)
    assert "nowhere" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from surefoot.reasoning.completions import sharded
from surefoot.cli import main
write, n = sharded.write_shard, 0

def killed(trajectories, path):
    global n
    n += 1
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(trajectories, path)

sharded.write_shard = killed
main(sys.argv[1:])
"""


def test_killed_it_goes_on_with_the_same_values(completions: Path, tmp_path: Path) -> None:
    whole = rows(label(completions, tmp_path, "whole", "--seed", "5"))
    arguments = ["label", "--config", str(tmp_path / "label.yaml"), "--out", str(tmp_path / "killed"), "--seed", "5"]
    ended = run_fresh(KILLED, arguments)
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    assert len(list((tmp_path / "killed").glob("*.arrow"))) == 1
    main(arguments)
    assert rows(tmp_path / "killed") == whole
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole"), "the prefill of both parts, too"
    other = rows(label(completions, tmp_path, "shards", "--seed", "5", "--problems_per_shard", "10"))
    assert other == whole, "values do not depend on the shards"


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        (["--sampling.n", "3"], {}, "holds completions of other settings (sampling differ"),
        (["--separator", ";"], {}, "separator was '\\n' and is now ';'"),
        (["--seed", "1"], {}, "seed was 0 and is now 1"),
        (["--sampling.temperature", "0.5"], {}, "(sampling differ"),
        ([], {"prompt": {"class_path": "PlainPrompt", "init_args": {"template": "{question} "}}}, "(prompt differ"),
        (["--model.init_args.width", "16"], {}, "(model differ"),
    ],
)
def test_an_interrupted_folder_is_not_gone_on_with_otherwise(
    completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], changes: Any, message: str
) -> None:
    out = label(completions, tmp_path, "a", "--per_problem", "1")
    (out / "summary.json").unlink()
    with pytest.raises(SystemExit) as stop:
        label(completions, tmp_path, "a", "--per_problem", "1", *flags, **changes)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--separator", "@@"], "has the separator '@@'"),
        (["--separator", ""], "separator must not be empty"),
        (["--sampling.max_tokens", "2"], "leaves the prover nothing of max_tokens 2"),
        (["--completions", "nowhere"], "nowhere does not exist"),
        (["--prompt.init_args.template", "{question}?"], "after another prompt, which ends"),
        (["--half_width", "0.7"], "half_width must be in (0, 0.5)"),
        (["--half_width", "0.2", "--per_round", "3"], "per_round must be in [1, n - 1]"),
    ],
)
def test_what_cannot_be_labelled_ends_in_one_line(
    completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        label(completions, tmp_path, "a", *flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_rows_without_the_columns_of_later_versions_are_labelled(completions: Path, tmp_path: Path) -> None:
    stored = read_completions(completions)
    stored.select_columns(list(REQUIRED_COLUMNS)).save_to_disk(str(tmp_path / "old"))
    found, plain = (
        read_trajectories(label(f, tmp_path, f"labelled_{f.name}")) for f in (tmp_path / "old", completions)
    )
    assert [(t.spans, t.values) for t in found] == [(t.spans, t.values) for t in plain]


def test_only_the_first_completions_of_each_problem(completions: Path, tmp_path: Path) -> None:
    found = rows(label(completions, tmp_path, "a", "--per_problem", "2"))
    assert [(r["problem_index"], r["sample"]) for r in found] == [(p, s) for p in range(10) for s in range(2)]


def test_a_separator_at_the_end_alone_cuts_nothing(
    completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [replace(t, spans=(), steps=(), text="@@4@@@@") for t in read_trajectories(completions)]
    folder = ShardedFolder(tmp_path / "ends", "search", {}, [10], [len(found)])
    folder.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    with pytest.raises(SystemExit):
        label(tmp_path / "ends", tmp_path, "a", "--separator", "@@")
    assert "has the separator '@@' between two steps: they are of one step each" in capsys.readouterr().err


def test_a_prefix_that_leaves_nothing_is_refused_before_anything_is_sampled(
    completions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(read_trajectories(completions))
    for t in found:
        t.spans, t.steps = [Span(0, 1), Span(1, len(t.completion))] if len(t.completion) > 1 else [], ()
    last = found[-1]
    last.spans = [Span(0, len(last.completion) - 1), Span(len(last.completion) - 1, len(last.completion))]
    assert len(last.completion) == 24, "as long as they may be"
    folder = ShardedFolder(tmp_path / "cut", "search", {}, [10], [len(found)])
    folder.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    with pytest.raises(SystemExit):
        label(tmp_path / "cut", tmp_path, "a", "--sampling.max_tokens", "23", "--problems_per_shard", "1")
    assert "a prefix of 23 tokens leaves the prover nothing of max_tokens 23: give it more" in capsys.readouterr().err
    assert not list((tmp_path / "a").glob("*.arrow"))


def test_completions_that_are_cut_keep_their_steps(completions: Path, tmp_path: Path) -> None:
    """Those that a search has cut after every digit, say: the separator cuts only what nothing has cut."""
    cut = [replace(t, spans=(), steps=()) for t in read_trajectories(completions)]
    for t in cut[::2]:
        half = len(t.completion) // 2
        t.spans = [s for s in (Span(0, half), Span(half, len(t.completion))) if s.start < s.end]
    folder = ShardedFolder(tmp_path / "cut", "search", {}, [10], [len(cut)])
    folder.write(lambda _: cut, lambda _: None, lambda: None, lambda _: {})
    plain = list(read_trajectories(label(completions, tmp_path, "plain")))
    found = list(read_trajectories(label(tmp_path / "cut", tmp_path, "labelled")))
    assert [list(t.spans) for t in found[::2]] == [list(t.spans) for t in cut[::2]]
    assert [list(t.spans) for t in found[1::2]] == [list(t.spans) for t in plain[1::2]]
    assert {len(t.values) - len(t.spans) for t in found} == {1}
    other = label(tmp_path / "cut", tmp_path, "other", "--separator", "@@")
    assert [list(t.spans) for t in list(read_trajectories(other))[::2]] == [list(t.spans) for t in cut[::2]]
    assert {len(t.spans) for t in list(read_trajectories(other))[1::2]} == {1}, "nothing has cut them"
