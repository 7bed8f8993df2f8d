"""surefoot generate and surefoot pipeline as users meet them: resumed after kill -9, refused when settings change."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from conftest import Fit, from_weights, tiny
from fresh_processes import run_fresh
from pseudo_labels import two_streams
from safetensors.torch import load_file
from tiny_reasoning import tiny_reasoning

from surefoot import pipelines
from surefoot.cli import main
from surefoot.errors import DataError
from surefoot.processes import run_to_the_end
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


def settings(**changes: Any) -> dict[str, Any]:
    tiny = tiny_reasoning("SFT")["model"]["init_args"]
    return {
        "model": tiny["language_model"],
        "engine": {"class_path": "HFEngine", "init_args": {"max_sequences": 16}},
        "data": {"class_path": "ArithmeticDataModule", "init_args": {"n_test": 22, "n_train": 10}},
        "prompt": {"class_path": "PlainPrompt"},
        "grader": {"rule": "last_number"},
        "sampling": {"n": 3, "max_tokens": 8},
        "problems_per_shard": 4,
    } | changes


def generate(folder: Path, out: str, *flags: str, **changes: Any) -> Path:
    config = folder / "generate.yaml"
    config.write_text(yaml.safe_dump(settings(**changes)))
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
    assert RandomPairs(9)(given, 0) in (
        [([1], [4], [1]), ([1], [3], [1])],
        [([1], [3], [1]), ([1], [4], [1])],
    )
    assert len(RandomPairs(1)(given, 0)) == 1


def test_rft_as_a_pipeline_resumes_at_the_first_missing_stage(
    tmp_path: Path, fit: Fit, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sampled = settings(sampling={"n": 8, "max_tokens": 40}, grader={"rule": "mixed"}, split="train")
    easy = {
        "chains": {"min_steps": 1, "max_steps": 1, "modulus": 2, "max_operand": 1},
        "n_train": 64,
        "n_test": 4,
    }
    base = tiny_reasoning("SFT", engine=None)
    base["trainer"] |= {
        "max_epochs": 6,
        "callbacks": [{"class_path": "ModelExporter"}],
        "limit_val_batches": 0,
    }
    base["data"]["init_args"] = easy | {"batch_size": 8, "n_val": 4}
    base["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.02
    sampled["data"] = {"class_path": "ArithmeticDataModule", "init_args": easy}
    tuned = json.loads(json.dumps(base))
    tuned["data"] = {
        "class_path": "CompletionsDataModule",
        "init_args": {"completions": "x", "batch_size": 8},
    }
    tuned["trainer"]["max_epochs"] = 1
    sampled["model"] = {"class_path": "PretrainedLanguageModel", "init_args": {"name": "x"}}
    tuned["model"]["init_args"]["language_model"] = sampled["model"]
    for name, content in (("base", base), ("sample", sampled), ("tune", tuned)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    stages = [
        {"name": "base", "verb": "fit", "config": "base.yaml"},
        {
            "name": "sample",
            "verb": "generate",
            "config": "sample.yaml",
            "flags": {"model.init_args.name": "{base}/model"},
        },
        {
            "name": "tune",
            "verb": "fit",
            "config": "tune.yaml",
            "flags": {
                "data.init_args.completions": "{sample}",
                "model.init_args.language_model.init_args.name": "{base}/model",
            },
        },
    ]
    (tmp_path / "rft.yaml").write_text(yaml.safe_dump({"stages": stages}))
    main(["pipeline", "rft.yaml"])
    first = capfd.readouterr()
    assert first.err.count(": running") == 3
    tuned_model = next((tmp_path / "runs/pipelines/rft").glob("tune-*/latest/model"))
    assert (tuned_model / "model.safetensors").is_file()
    main(["pipeline", "rft.yaml"])
    again = capfd.readouterr()
    assert again.err.count(": done") == 3
    assert again.out == first.out.splitlines()[-3] + "\n" + "\n".join(first.out.splitlines()[-2:]) + "\n"
    shard = next((tmp_path / "runs/pipelines/rft").glob("sample-*/*.arrow"))
    shard.unlink()
    main(["pipeline", "rft.yaml"])
    third = capfd.readouterr().err
    assert (third.count(": done"), third.count("sample: running")) == (2, 1), "made again, with the same content"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stages: [", "is not a pipeline"),
        ("[1, 2]", "no mapping with a list of stages"),
        ("stages: {a: 1}", "no mapping with a list of stages"),
        ("stages: [fit]", "no mapping with a list of stages"),
        ("stages: [{name: a, verb: fit}]", "(no 'config')"),
        ("stages: []", "has no stages"),
        ("stages: [{name: a, verb: dance, config: x.yaml}]", "a verb among fit, generate"),
        ("stages: [{name: a, verb: fit, config: none.yaml}]", "has no config none.yaml"),
        (
            "stages: [{name: a, verb: fit, config: x.yaml, flags: {k: '{b}'}}]",
            "reads 'b', which is no earlier stage",
        ),
    ],
)
def test_bad_pipelines_end_in_one_line(
    content: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("a: 1\n")
    Path("p.yaml").write_text(content)
    with pytest.raises(SystemExit):
        main(["pipeline", "p.yaml"])
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pipeline", "missing.yaml"])
    assert "missing.yaml cannot be read" in capsys.readouterr().err


def test_a_failing_stage_says_which(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("a: 1\n")
    Path("p.yaml").write_text("stages: [{name: a, verb: fit, config: x.yaml}]")
    with pytest.raises(SystemExit):
        main(["pipeline", "p.yaml"])
    assert "the stage 'a' ended with code 2; the same command again goes on from here" in capfd.readouterr().err


def two_classifiers(**erm: Any) -> dict[str, Any]:
    """Write a pipeline of ERM, then DFR on its encoder; return its stages."""
    first = tiny("ERM")
    first["trainer"] |= {"max_epochs": 1, "callbacks": [{"class_path": "GroupMetrics"}]}
    second = from_weights(tiny("DFR", n_subsets=1), None)
    second["trainer"] |= {"max_epochs": 1, "callbacks": [{"class_path": "GroupMetrics"}]}
    del second["model"]["init_args"]["optimizer"]
    second["data"]["init_args"]["training"] = {"split": "val"}
    for name, content in (("erm", first), ("dfr", second)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    stages = [
        {"name": "erm", "verb": "fit", "config": "erm.yaml", "flags": erm},
        {
            "name": "dfr",
            "verb": "fit",
            "config": "dfr.yaml",
            "flags": {"model.init_args.encoder.init_args.weights": "{erm}"},
        },
    ]
    Path("two.yaml").write_text(yaml.safe_dump({"stages": stages}))
    return {"stages": stages}


def run_stages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages in this process, which spares the imports; one test runs them as users do."""

    def run(command: list[str], environment: Any) -> int:
        try:
            main(command[3:])
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    monkeypatch.setattr(pipelines, "run_to_the_end", run)


def test_a_stage_runs_again_when_the_classifier_that_it_reads_is_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)
    states = []
    for seed in (1, 1, 2, 1):
        two_classifiers(seed_everything=seed)
        main(["pipeline", "two.yaml"])
        lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("[")]
        states.append([x.split(": ")[1].split(",")[0] for x in lines])
    assert states == [["running"] * 2, ["done"] * 2, ["running"] * 2, ["done"] * 2]
    runs = [p.resolve() for p in (tmp_path / "runs/pipelines/two").glob("dfr-*/latest")]
    assert len(runs) == 2
    a, b = (load_file(r / "weights.safetensors") for r in runs)
    assert set(a) == {
        "encoder.encoder.layers.1.weight",
        "encoder.encoder.layers.1.bias",
        "head.weight",
        "head.bias",
    }
    name = "encoder.encoder.layers.1.weight"
    assert not torch.equal(a[name], b[name])
    erms = [p.resolve() for p in (tmp_path / "runs/pipelines/two").glob("erm-*/latest")]
    trained = [load_file(r / "weights.safetensors")["encoder.layers.1.weight"] for r in erms]
    assert all(any(torch.equal(w, t) for t in trained) for w in (a[name], b[name])), "DFR keeps ERM's encoder"
    erm = erms[0]
    manifest = json.loads((erm / "manifest.json").read_text())
    assert manifest["model"]["class_path"] == "lightning_modules.ERM"
    assert manifest["data"]["class_path"] == "datamodules.DigitsDataModule"
    weights = (erm / "weights.safetensors").read_bytes()
    expected = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert manifest["files"]["weights.safetensors"] == expected


def write_two_stages(change: Callable[[dict[str, Any], dict[str, Any]], Any] | None) -> None:
    """Write a pipeline of ERM, then a method on two streams that starts with ERM's encoder; change their settings."""
    first, second = tiny("ERM"), from_weights(tiny("pseudo_labels.PseudoLabels"), None)
    for settings in (first, second):
        settings["trainer"] |= {"max_epochs": 1, "callbacks": [], "limit_train_batches": 2, "limit_val_batches": 1}
    second["data"] = two_streams()
    if change is not None:
        change(first, second)
    for name, content in (("erm", first), ("streams", second)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    flags = {"model.init_args.encoder.init_args.weights": "{erm}"}
    stages = [
        {"name": "erm", "verb": "fit", "config": "erm.yaml"},
        {"name": "streams", "verb": "fit", "config": "streams.yaml", "flags": flags},
    ]
    Path("two.yaml").write_text(yaml.safe_dump({"stages": stages}))


def test_exactly_the_fits_of_what_changed_run_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)

    def streams(settings: dict[str, Any]) -> Any:
        return settings["data"]["init_args"]["streams"]

    flip = {"class_path": "Flip"}
    changes: dict[str, tuple[Any, list[str]]] = {
        "nothing was there": (None, ["running", "running"]),
        "nothing": (None, ["done", "done"]),
        "the second's learning rate": (
            lambda a, b: b["model"]["init_args"]["optimizer"]["init_args"].update(lr=0.02),
            ["done", "running"],
        ),
        "a stream of the second": (
            lambda a, b: streams(b)["labelled"]["init_args"].update(batch_size=20),
            ["done", "running"],
        ),
        "back": (None, ["done", "done"]),
        "the first's augmentation": (
            lambda a, b: a["data"]["init_args"].update(augmentation=flip),
            ["running", "running"],
        ),
        "both": (
            lambda a, b: (a.update(seed_everything=4), b.update(seed_everything=4)),
            ["running", "running"],
        ),
        "back again": (None, ["done", "done"]),
    }
    found, expected = {}, {}
    for name, (change, states) in changes.items():
        write_two_stages(change)
        main(["pipeline", "two.yaml"])
        lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("[")]
        found[name], expected[name] = [x.split(": ")[1].split(",")[0] for x in lines], states
    assert found == expected
    folder = tmp_path / "runs/pipelines/two"
    assert len(list(folder.glob("erm-*/latest"))) == 3
    assert len(list(folder.glob("streams-*/latest"))) == 5


def test_a_damaged_or_unfinished_fit_is_not_done(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)
    two_classifiers()
    main(["pipeline", "two.yaml"])
    for harm in (
        lambda run: (run / "finished.json").unlink(),
        lambda run: (run / "weights.safetensors").unlink(),
        lambda run: (run / "weights.safetensors").write_bytes(b"other"),
    ):
        harm(next((tmp_path / "runs/pipelines/two").glob("erm-*/latest")).resolve())
        capfd.readouterr()
        main(["pipeline", "two.yaml"])
        error = capfd.readouterr().err
        assert "erm: running" in error
        assert "dfr: done" in error, "what it reads is the same again"


def test_a_stage_that_ends_without_finishing_stops_the_pipeline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when SIGTERM ended with code 0."""
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)
    two_classifiers()

    def end_early(command: list[str], environment: Any) -> int:
        code = run_to_the_end(command, environment)
        folder = Path(command[command.index("--runs_root") + 1]) / command[-1] / "latest"
        (folder / "finished.json").unlink()
        return code

    monkeypatch.setattr(pipelines, "run_to_the_end", end_early)
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main(["pipeline", "two.yaml"])
        error = capfd.readouterr().err
        assert stop.value.code == 2
        assert "the stage 'erm' is not finished" in error
        assert "erm: running" in error


def saved_model(folder: Path, seed: int) -> None:
    """Write a tiny language model, over another one if there is one."""
    from surefoot.reasoning.language_models import TinyLanguageModel

    TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128, seed=seed).save(folder)


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_model(tmp_path / "model", seed=1)
    model = {"class_path": "PretrainedLanguageModel", "init_args": {"name": f"{tmp_path}/model"}}
    out = generate(tmp_path, "a", model=model)
    whole = rows(out)
    for harm in (lambda: None, lambda: next(out.glob("*.arrow")).unlink()):  # finished, then half
        harm()
        saved_model(tmp_path / "model", seed=2)
        with pytest.raises(SystemExit) as stop:
            generate(tmp_path, "a", model=model)
        assert stop.value.code == 2
        assert "what model.init_args.name names has changed" in capsys.readouterr().err
    saved_model(tmp_path / "model", seed=1)
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


def test_a_stage_runs_again_when_what_a_path_holds_has_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model and an overlay named by their paths, one of them in a config, one in a flag."""
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)
    content = settings(
        model={"class_path": "PretrainedLanguageModel", "init_args": {"name": "./first"}},
        data={"class_path": "ArithmeticDataModule", "init_args": {"n_test": 2}},
        sampling={"n": 1, "max_tokens": 2},
    )
    Path("sample.yaml").write_text(yaml.safe_dump(content))
    saved_model(Path("first"), 1)
    saved_model(Path("second"), 1)

    def states(flags: dict[str, str]) -> list[str]:
        stage = {"name": "sample", "verb": "generate", "config": "sample.yaml", "flags": flags}
        Path("p.yaml").write_text(yaml.safe_dump({"stages": [stage]}))
        found = []
        for _ in range(2):
            main(["pipeline", "p.yaml"])
            line = next(x for x in capfd.readouterr().err.splitlines() if x.startswith("[1/1]"))
            found.append(line.split(": ")[1].split(",")[0])
        return found

    assert states({}) == ["running", "done"]
    saved_model(Path("first"), 2)
    assert states({}) == ["running", "done"]
    second = {"model.init_args.name": "./second"}
    assert states(second) == ["running", "done"]
    saved_model(Path("first"), 3)
    assert states(second) == ["done", "done"], "the config's path is overridden"
    saved_model(Path("second"), 3)
    assert states(second) == ["running", "done"]


def test_a_killed_pipeline_takes_its_stage_along(tmp_path: Path) -> None:
    """With SIGKILL; with SIGTERM the stage stops after its step, and the same command goes on from there."""
    config = tiny("ERM")
    config["trainer"] |= {"max_epochs": 100_000, "callbacks": []}
    (tmp_path / "erm.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "p.yaml").write_text("stages: [{name: erm, verb: fit, config: erm.yaml}]")
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "surefoot", "pipeline", "p.yaml"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        pattern = "runs/pipelines/p/erm-*/0/running.json"
        stamp = time.monotonic()
        checkpoints = "runs/pipelines/p/erm-*/0/checkpoints/last.ckpt"
        while not (list(tmp_path.glob(pattern)) and list(tmp_path.glob(checkpoints))):
            assert process.poll() is None
            assert time.monotonic() - stamp < 120
            time.sleep(0.05)
        time.sleep(1)
        stage = json.loads(next(tmp_path.glob(pattern)).read_text())["pid"]
        process.send_signal(signum)
        assert process.wait(60) == code
        assert process.stderr is not None
        error = process.stderr.read()
        process.stderr.close()
        deadline = time.monotonic() + 5
        while Path(f"/proc/{stage}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{stage}").exists()
        if signum == signal.SIGTERM:
            assert "surefoot: interrupted (SIGTERM), the same command resumes" in error
            assert "Traceback" not in error
            assert not list(tmp_path.glob("runs/pipelines/p/erm-*.json"))
