"""surefoot pairs as users meet it: continuations and pairs, resumed after kill -9, refused when something changed."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh_processes import run_fresh
from labelled_completions import stepwise

from datamodules import PreferencesDataModule
from surefoot.cli import main
from surefoot.errors import DataError
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions import PairRecord, Pit, PreferencePair
from surefoot.reasoning.completions.pair_files import read_pairs, write_pairs
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.trajectories import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore")

#: One that has learned nothing and draws letters and digits: a few of its completions end with the answer, 1.
MODEL = {"class_path": "TinyLanguageModel", "init_args": {"width": 32, "n_layers": 1, "n_heads": 2, "seed": 0}}


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "engine": {"class_path": "HFEngine", "init_args": {"max_sequences": 256}},
        "grader": {"rule": "last_number"},
        "sampling": {"n": 30, "max_tokens": 30},
    } | changes


def run(verb: str, folder: Path, out: str, *flags: str, **changes: Any) -> Path:
    config = folder / f"{verb}.yaml"
    config.write_text(yaml.safe_dump(settings(**changes)))
    main([verb, "--config", str(config), "--out", str(folder / out), *flags])
    return folder / out


def pair(completions: Path, folder: Path, out: str, *flags: str, form: str = "shared_prefix", **changes: Any) -> Path:
    builder = {"class_path": "FirstPitPairs", "init_args": {"form": form, "k": 2}}
    changes = {"completions": str(completions), "builder": builder, "prefixes_per_shard": 3} | changes
    return run("pairs", folder, out, *flags, **changes)


def completion(problem: int, steps: list[str], status: Any, sample: int) -> Trajectory:
    """A completion whose first step is worth 1/2; its second step loses it if it is wrong."""
    t = stepwise(str(problem), steps)
    end = digit_tokenizer().encode("\n", add_special_tokens=False)
    after = [0.0, 0.0] if status == "wrong" else [0.75, 1.0]
    known = {"values": [0.5, 0.5, *after], "value_counts": [4, 4, 4, 0], "grade": Grade(status, steps[-1])}
    return replace(t, prompt=[*t.prompt, *end], sample=sample, **known)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of 8 problems two wrong completions that are lost after different first steps; a right one of two."""
    found = [
        completion(p, [f"{step}\n", f"x{p}\n", "8\n"], "wrong", i) for p in range(8) for i, step in enumerate("ab")
    ]
    found += [completion(p, ["a\n", "y\n", "1\n"], "correct", 2) for p in (0, 1)]
    folder = tmp_path_factory.mktemp("labelled") / "labels"
    ShardedFolder(folder, "label", {}, [8], [len(found)]).write(
        lambda _: found, lambda _: None, lambda: None, lambda _: {}
    )
    return folder


def summary(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "summary.json").read_text())
    return found


def test_what_goes_on_rightly_is_sampled_and_preferred(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pair(labelled, tmp_path, "a")
    printed = capsys.readouterr()
    assert "14/14 prefixes" in printed.err, "two of 16 have a right continuation"
    continuations, found = list(read_trajectories(out)), read_pairs(out)
    assert len(continuations) == 14 * 30
    assert all(t.n_given == 2 for t in continuations)
    assert {len(t.completion) for t in continuations if t.finish_reason == "length"} == {30}
    right = {(t.problem.id, *t.target) for t in continuations if t.grade and t.grade.correct}
    before = {(t.problem.id, *t.target) for t in read_trajectories(labelled)}
    assert len(found) > 4
    for one in found:
        assert isinstance(one, PreferencePair)
        assert one.record is not None
        assert one.record.pit == Pit(
            2, 2, (0.5, 0.0), (4, 4), (pytest.approx(5 / 6), 0.0), 2
        )  # 1 - 1 / 6: C(2, 2) / C(4, 2)
        prefix = list(one.prompt[3:])
        assert (one.record.problem, *prefix, *one.chosen) in right | before
        assert digit_tokenizer().decode(one.rejected) == f"x{one.record.problem}\n"
    counted = summary(out)
    assert (counted["problems"], counted["wrong"], counted["correct"]) == (8, 16, 2)
    assert counted["pairs"] == counted["pit_at_step_2"] == len(found) == 16 - counted["left_out_nothing_right"]
    assert counted["paired_problems"] == len({one.record.problem for one in found if one.record})
    assert (counted["value_before_pit"], counted["value_after_pit"]) == (0.5, 0.0)
    assert counted["best_of_k_before_pit"] == pytest.approx(5 / 6)
    assert counted["generated_tokens"] == sum(t.n_sampled for t in continuations)
    assert counted["rejected_tokens"] == 3
    assert f"pairs                    {len(found)}.000" in printed.out
    assert PreferencesDataModule(pairs=out).pairs("train") == found
    pair(labelled, tmp_path, "a")
    assert "prefixes" not in capsys.readouterr().err, "a finished folder is left as it is"


def test_full_pairs_need_nothing_sampled(labelled: Path, tmp_path: Path) -> None:
    out = pair(labelled, tmp_path, "a", form="full")
    assert (summary(out)["pairs"], summary(out)["continuations"], summary(out)["left_out_nothing_right"]) == (4, 0, 12)
    assert not list(out.glob("*.arrow"))


@pytest.mark.parametrize("builder", ["RandomPairs", "EditDistancePairs"])
def test_controls_are_stored_alike(builder: str, labelled: Path, tmp_path: Path) -> None:
    out = pair(labelled, tmp_path, "a", builder={"class_path": builder})
    assert len(found := read_pairs(out)) == 4
    assert all(isinstance(one, PreferencePair) and one.record and one.record.pit is None for one in found)
    assert not [name for name in summary(out) if "pit" in name]


KILLED = """
import os, signal, sys
from surefoot.reasoning.completions import sharded
from surefoot.cli import main
write, n = sharded.write_shard, 0

def killed(trajectories, path):
    global n
    n += 1
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(trajectories, path)

sharded.write_shard = killed
main(sys.argv[1:])
"""


def test_killed_it_goes_on_with_the_same_pairs(labelled: Path, tmp_path: Path) -> None:
    whole = pair(labelled, tmp_path, "whole", "--seed", "5")
    arguments = ["pairs", "--config", str(tmp_path / "pairs.yaml"), "--out", str(tmp_path / "killed"), "--seed", "5"]
    ended = run_fresh(KILLED, arguments)
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    assert len(list((tmp_path / "killed").glob("*.arrow"))) == 2
    with pytest.raises(DataError, match="is not finished: run the same surefoot pairs again"):
        read_pairs(tmp_path / "killed")
    main(arguments)
    for name in ("pairs.jsonl", "summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole / name).read_bytes()
    other = pair(labelled, tmp_path, "shards", "--seed", "5", "--prefixes_per_shard", "14")
    assert (other / "pairs.jsonl").read_bytes() == (whole / "pairs.jsonl").read_bytes()
    another = pair(labelled, tmp_path, "seed", "--seed", "6")
    assert (another / "pairs.jsonl").read_bytes() != (whole / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampling.n", "3"], "holds completions of other settings (sampling differ"),
        (["--builder.init_args.k", "3"], "(builder differ"),
        (["--seed", "1"], "seed was 0 and is now 1"),
        (["--model.init_args.seed", "1"], "(model differ"),
    ],
)
def test_a_folder_is_not_gone_on_with_otherwise(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    out = pair(labelled, tmp_path, "a", form="full")
    (out / "summary.json").unlink()
    with pytest.raises(SystemExit) as stop:
        pair(labelled, tmp_path, "a", *flags, form="full")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampling.max_tokens", "2"], "a prefix of 2 tokens leaves nothing of max_tokens 2"),
        (["--completions", "nowhere"], "nowhere does not exist"),
        (["--prompt.class_path", "PlainPrompt", "--prompt.init_args.template", "{question}?"], "after another prompt"),
        (["--builder.init_args.k", "0"], "k and max_per_problem must be positive"),
        (
            ["--sampling.n", "1", "--sampling.max_tokens", "3"],
            "gives no pairs: 0 completions are correct and 12 wrong, ",
        ),
    ],
)
def test_what_cannot_be_paired_ends_in_one_line(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    wrong = [t for t in read_trajectories(labelled) if t.problem.id not in ("0", "1")]
    ShardedFolder(tmp_path / "wrong", "label", {}, [6], [len(wrong)]).write(
        lambda _: wrong, lambda _: None, lambda: None, lambda _: {}
    )
    with pytest.raises(SystemExit) as stop:
        pair(tmp_path / "wrong", tmp_path, "a", *flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_all_is_of_one_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows say what sampled the completions and what valued them; the verb says what samples now."""
    data = {"class_path": "ArithmeticDataModule", "init_args": {"n_test": 6, "n_train": 4}}
    sampled = run("generate", tmp_path, "sampled", data=data, sampling={"n": 4, "max_tokens": 24})
    labels = [
        run("label", tmp_path, name, completions=str(sampled), sampling={"n": 2, "max_tokens": 30, "temperature": t})
        for name, t in (("own", 1.0), ("other", 0.5))
    ]
    rows = [next(read_trajectories(folder)) for folder in labels]
    assert [json.loads(t.policy)["sampling"]["temperature"] for t in rows] == [1.0, 1.0]
    assert [json.loads(t.prover)["sampling"]["temperature"] for t in rows] == [1.0, 0.5]
    keep = {"class_path": "FirstPitPairs", "init_args": {"form": "shared_prefix", "keep_unsolved": True}}
    for folder, flags, message in (
        (labels[1], [], "sampled with another sampling than the attempts behind their values"),
        (labels[0], ["--model.init_args.width", "16"], "of a policy with another model: what is preferred"),
        (sampled, [], "has no values of its steps: label the completions"),
    ):
        with pytest.raises(SystemExit) as stop:
            pair(folder, tmp_path, "pairs", *flags, builder=keep)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_file_of_pairs_is_read_as_it_was_written(tmp_path: Path) -> None:
    pit = Pit(2, 4, (0.5, 0.0), (10, 10), (0.99, 0.0), 5)
    pairs = [
        PreferencePair([1, 2], [3], [4, 5], PairRecord("p", "full", pit)),
        PreferencePair([1], [3], [4], PairRecord("q", "random")),
        PreferencePair([1], [3], [4]),
    ]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert ["record" in row for row in rows] == [True, True, False]
    for record in ({"nobody": 1}, [1], {"problem": "p", "form": "full", "pit": {"step": 1}}):
        (tmp_path / "bad.jsonl").write_text(json.dumps(rows[0] | {"record": record}))
        with pytest.raises(DataError, match=r"bad\.jsonl, row 1: the record says not where the pair comes from"):
            read_pairs(tmp_path / "bad.jsonl")
