"""surefoot pipeline as users meet it: it resumes at the first missing stage, and remakes what reads something else."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import from_weights, tiny
from pseudo_labels import two_streams
from safetensors.torch import load_file
from tiny_reasoning import save_tiny_model, tiny_generation, tiny_reasoning

from surefoot import pipelines
from surefoot.cli import main
from surefoot.processes import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]


def run_here(command: list[str], environment: Any) -> int:
    """Run a stage in this process."""
    try:
        main(command[3:])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def run_stages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages in this process, which spares the imports; one test runs two of them as users do."""
    monkeypatch.setattr(pipelines, "run_to_the_end", run_here)


def test_rft_as_a_pipeline_resumes_at_the_first_missing_stage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling and tuning run as users run them, in processes of their own; what is not new to them runs here."""
    monkeypatch.chdir(tmp_path)
    processes: list[str] = []

    def run(command: list[str], environment: Any) -> int:
        config = command[command.index("--config") + 1]
        if config == "base.yaml" or config in processes:
            return run_here(command, environment)
        processes.append(config)
        return run_to_the_end(command, environment)

    monkeypatch.setattr(pipelines, "run_to_the_end", run)
    sampled = tiny_generation(sampling={"n": 8, "max_tokens": 40}, grader={"rule": "mixed"}, split="train")
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
    assert processes == ["sample.yaml", "tune.yaml"]
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
    two_classifiers()

    def end_early(command: list[str], environment: Any) -> int:
        code = run_here(command, environment)
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


def test_a_stage_runs_again_when_what_a_path_holds_has_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model and an overlay named by their paths, one of them in a config, one in a flag."""
    monkeypatch.chdir(tmp_path)
    run_stages_here(monkeypatch)
    content = tiny_generation(
        model={"class_path": "PretrainedLanguageModel", "init_args": {"name": "./first"}},
        data={"class_path": "ArithmeticDataModule", "init_args": {"n_test": 2}},
        sampling={"n": 1, "max_tokens": 2},
    )
    Path("sample.yaml").write_text(yaml.safe_dump(content))
    save_tiny_model(Path("first"), 1)
    save_tiny_model(Path("second"), 1)

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
    save_tiny_model(Path("first"), 2)
    assert states({}) == ["running", "done"]
    second = {"model.init_args.name": "./second"}
    assert states(second) == ["running", "done"]
    save_tiny_model(Path("first"), 3)
    assert states(second) == ["done", "done"], "the config's path is overridden"
    save_tiny_model(Path("second"), 3)
    assert states(second) == ["running", "done"]


@pytest.mark.slow
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
