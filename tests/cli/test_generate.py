"""surefoot generate as users meet it: resumed after kill -9, refused when settings change."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from fresh_processes import run_fresh
from tiny_reasoning import save_tiny_model, tiny_generation

from surefoot.cli import main
from surefoot.errors import DataError
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions.pairs import RandomPairs
from surefoot.reasoning.completions.selection import correct_completions
from surefoot.reasoning.completions.store import read_columns, read_completions, read_trajectories
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.trajectories import REQUIRED_COLUMNS, Trajectory
from surefoot.storage.files import partial_path
from surefoot.storage.json_files import read_json

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]


def generate(folder: Path, out: str, *flags: str, **changes: Any) -> Path:
    config = folder / "generate.yaml"
    config.write_text(yaml.safe_dump(tiny_generation(**changes)))
    main(["generate", "--config", str(config), "--out", str(folder / out), *flags])
    return folder / out


def rows(folder: Path) -> list[dict[str, Any]]:
    return [dict(r) for r in read_completions(folder)]


def test_a_dataset_of_graded_completions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = generate(tmp_path, "a")
    found = rows(out)
    assert len(found) == 22 * 3
    assert [r["sample"] for r in found[:4]] == [0, 1, 2, 0]
    assert len({r["problem_id"] for r in found}) == 22
    assert all(len(r["logprobs"]) == len(r["completion_ids"]) for r in found)
    printed = capsys.readouterr().out
    assert "accuracy " in printed
    assert "pass@2" in printed
    summary = json.loads((out / "summary.json").read_text())
    correct = sum(r["status"] == "correct" for r in found) / len(found)
    assert summary["accuracy"] == pytest.approx(correct)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    generate(tmp_path, "a")
    assert before == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}, "a finished one is not touched"


KILLED = """
import os, signal, sys
from surefoot.reasoning.completions import sharded
from surefoot.cli import main
from surefoot.storage.files import partial_path

write, n = sharded.write_shard, 0

def killed(trajectories, path):
    global n
    n += 1
    if n == int(os.environ["KILL_AT"]):
        partial_path(path).write_bytes(b"half a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    write(trajectories, path)

sharded.write_shard = killed
main(sys.argv[1:])
"""


def test_killed_it_goes_on_with_no_duplicate_and_no_loss(tmp_path: Path) -> None:
    whole = rows(generate(tmp_path, "whole"))
    arguments = [
        "generate",
        "--config",
        str(tmp_path / "generate.yaml"),
        "--out",
        str(tmp_path / "killed"),
    ]
    (tmp_path / "killed").mkdir()
    partial_path(tmp_path / "killed/generation.json").write_text("killed at the very start")
    for kill_at in ("3", "1"):
        ended = run_fresh(KILLED, arguments, {"KILL_AT": kill_at})
        assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    shards = list((tmp_path / "killed").glob("*.arrow"))
    assert len(shards) == 2
    with pytest.raises(DataError, match="is not finished: run the same surefoot generate again"):
        read_completions(tmp_path / "killed")
    stamps = {p: p.stat().st_mtime_ns for p in shards}
    damaged, kept = sorted(shards)
    damaged.write_bytes(damaged.read_bytes()[:-200])
    main(arguments)
    assert rows(tmp_path / "killed") == whole
    assert kept.stat().st_mtime_ns == stamps[kept], "a whole shard is not sampled again"
    assert not list((tmp_path / "killed").glob(".*")), "halves are removed"


def test_a_full_disk_is_named_and_the_rest_is_written_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = rows(generate(tmp_path, "whole"))
    sizes = [p.stat().st_size for p in (tmp_path / "whole").glob("*.arrow")]
    for name, limit in (("shard", min(sizes) // 2), ("info", 700)):
        out = tmp_path / name
        if name == "info":  # all shards are there, and what describes them does not fit any more
            shutil.copytree(tmp_path / "whole", out)
            for left in ("summary.json", "dataset_info.json"):
                (out / left).unlink()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(SystemExit) as stop:
                generate(tmp_path, name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert stop.value.code == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("surefoot: error: File too large")
        assert name == "info" or f"{out}/data-0000" in line
        assert rows(generate(tmp_path, name)) == whole
        assert not list(out.glob(".*"))


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "a")
    for flags, message in (
        (("--seed", "5"), "(seed differ; seed was 0 and is now 5)"),
        (("--sampling.temperature", "0.5"), "(sampling differ"),
        (("--data.init_args.n_test", "21"), "(data, problems differ"),
    ):
        with pytest.raises(SystemExit):
            generate(tmp_path, "a", *flags)
        assert message in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        generate(tmp_path, "other")
    assert "is not empty and not a folder of surefoot generate" in capsys.readouterr().err


def test_a_folder_of_an_earlier_schema_is_read_if_finished_and_refused_if_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = generate(tmp_path, "a")
    written = [t.completion for t in read_trajectories(out)]
    for path in out.glob("data-*.arrow"):  # as the first schema has it
        table = read_columns(path, REQUIRED_COLUMNS)
        path.unlink()  # the table is a map of it
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    described = read_json(out / "dataset_info.json")
    described["features"] = {k: v for k, v in described["features"].items() if k in REQUIRED_COLUMNS}
    (out / "dataset_info.json").write_text(json.dumps(described))
    record = {k: v for k, v in read_json(out / "generation.json").items() if k != "schema_version"}
    (out / "generation.json").write_text(json.dumps(record))
    generate(tmp_path, "a")  # finished: nothing is sampled
    assert [t.completion for t in read_trajectories(out)] == written
    assert all(t.n_given == 0 and not t.values for t in read_trajectories(out))
    (out / "dataset_info.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        generate(tmp_path, "a")
    assert stop.value.code == 2
    assert "was begun by a version of Surefoot that stores other columns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", "dev"), "with --split dev has no problems"),
        (("--sampling.n", "0"), "n and max_tokens must be positive"),
        (("--grader.rule", "x"), "no extraction rule 'x'"),
        (("--engine", "NoEngine"), "NoEngine"),
        (("--nonsense", "1"), "nonsense"),
    ],
)
def test_bad_settings_end_in_one_line(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        generate(tmp_path, "a", *flags)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (stop.value.code, error.startswith("surefoot: error:")) == (2, True)
    assert message in error


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_equal_one_engine(tmp_path: Path) -> None:
    alone = rows(generate(tmp_path, "alone"))
    ray_engine = {
        "class_path": "RayEngine",
        "init_args": {"engine": {"class_path": "HFEngine"}, "n_workers": 2, "batch_size": 2},
    }
    spread = rows(generate(tmp_path, "spread", engine=ray_engine))
    for a, b in zip(alone, spread, strict=True):
        assert a.pop("logprobs") == pytest.approx(b.pop("logprobs"), abs=1e-5)
        assert a == b


def completion(problem: str, text: str, status: Any, finish: Any = "stop") -> Trajectory:
    ids = [len(text), 0]
    known = {"text": text, "target": ids[:1], "grade": Grade(status, None)}
    return Trajectory(Problem(problem, "q", "1"), 0, [1], ids, [-1.0, -1.0], finish, 0, **known)


def test_what_is_chosen_for_training() -> None:
    given = [
        completion("a", "x  y", "correct"),
        completion("a", "x y", "correct"),
        completion("a", "xyz", "correct"),
        completion("a", "cut", "correct", "length"),
        completion("a", "w", "wrong"),
        completion("a", "w ", "wrong"),
        completion("b", "z", "wrong"),
        completion("c", "q", "correct"),
    ]
    assert [t.text for t in correct_completions(given, 5)] == ["x  y", "xyz", "q"]
    assert len(correct_completions(given, 1)) == 2
    kept = [t.text for t in correct_completions(given, 5, distinct=False)]
    assert kept == ["x  y", "x y", "xyz", "q"]
    assert [pair[:3] for pair in RandomPairs(9)(given, 0)] in (
        [([1], [4], [1]), ([1], [3], [1])],
        [([1], [3], [1]), ([1], [4], [1])],
    )
    assert len(RandomPairs(1)(given, 0)) == 1


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny_model(tmp_path / "model", seed=1)
    model = {"class_path": "PretrainedLanguageModel", "init_args": {"name": f"{tmp_path}/model"}}
    out = generate(tmp_path, "a", model=model)
    whole = rows(out)
    for harm in (lambda: None, lambda: next(out.glob("*.arrow")).unlink()):  # finished, then half
        harm()
        save_tiny_model(tmp_path / "model", seed=2)
        with pytest.raises(SystemExit) as stop:
            generate(tmp_path, "a", model=model)
        assert stop.value.code == 2
        assert "what model.init_args.name names has changed" in capsys.readouterr().err
    save_tiny_model(tmp_path / "model", seed=1)
    generate(tmp_path, "a", model=model)
    assert rows(out) == whole


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "curated").mkdir()
    out = generate(tmp_path, "a")
    next(out.glob("*.arrow")).unlink()
    world = {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 8}}
    config = tmp_path / "curate.yaml"
    config.write_text(yaml.safe_dump({"data": world, "method": "iid", "n": 4}))
    code = (
        "import sys, time; from pathlib import Path; from surefoot.storage.locks import hold\n"
        "with hold(Path(sys.argv[1])), hold(Path(sys.argv[2])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(tmp_path / "curated")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    curate = ["curate", "--config", str(config), "--out", str(tmp_path / "curated")]
    for again in (lambda: generate(tmp_path, "a"), lambda: main(curate)):
        with pytest.raises(SystemExit) as stop:
            again()
        assert stop.value.code == 2
        assert f"is being written by process {other.pid}" in capsys.readouterr().err
    other.kill()
    other.wait()
    other.stdout.close()
    assert len(rows(generate(tmp_path, "a"))) == 66
    main(curate)
    assert (tmp_path / "curated/curated.jsonl").is_file()


def test_an_engine_that_does_not_start_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surefoot.reasoning.rollouts import HFEngine

    closed = []

    def fail(self: Any, model: Any, version: int = 0) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(HFEngine, "start", fail)
    monkeypatch.setattr(HFEngine, "close", lambda self: closed.append(True))
    with pytest.raises(RuntimeError, match="no memory"):
        generate(tmp_path, "a")
    assert closed
