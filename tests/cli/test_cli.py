"""The command line as users meet it: run folders, LightningCLI's traps, logged keys."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Fit, tiny
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[2]


def test_help_is_fast_and_heavy_packages_stay_out() -> None:
    code = "import sys; from surefoot.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout
    assert time.monotonic() - start < 1


def test_packages_left_out_while_lightning_is_imported_are_there_again() -> None:
    code = (
        "import sys\n"
        "from surefoot.compatibility.lean_imports import without_optional_metrics\n"
        "with without_optional_metrics():\n"
        "    import lightning.pytorch, torchmetrics\n"
        "assert not {'scipy.signal', 'transformers', 'torchvision'} & set(sys.modules)\n"
        "from lightning_utilities.core.imports import RequirementCache, package_available\n"
        "assert RequirementCache('scipy') and package_available('scipy')\n"
        "assert torchmetrics.package_available('scipy')\n"
        "import transformers, torchvision, scipy.signal\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_of_fit_takes_little_longer_than_the_import_of_lightning() -> None:
    def seconds(*arguments: str) -> float:
        start = time.monotonic()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.monotonic() - start

    code = "import surefoot, lightning.pytorch"
    times = [(seconds("-m", "surefoot", "fit", "--help"), seconds("-c", code)) for _ in range(4)]
    of_help, of_import = (min(t) for t in zip(*times, strict=True))
    assert of_help < 1.5 * of_import, times


def test_a_run_may_write_no_checkpoints(fit: Fit) -> None:
    config = tiny("ERM")
    config["trainer"]["enable_checkpointing"] = False
    run = fit(config)
    assert (run / "finished.json").is_file()
    assert not list(run.rglob("*.ckpt"))


def test_a_run_folder_holds_what_it_promises(fit: Fit) -> None:
    run = fit(tiny("BRDRO"))
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert set(environment["data"]) == {"train", "val", "test"}
    effective = yaml.safe_load((run / "config.yaml").read_text())
    assert effective["model"]["init_args"]["n_classes"] == 2, "the data's fact shows in the saved config"
    assert effective["model"]["init_args"]["penalty"] == 0.05, "defaults show too"
    assert json.loads((run / "finished.json").read_text())["steps"] == 18
    assert list((run / "tensorboard").glob("events*"))
    with (run / "metrics.csv").open() as file:
        assert any(row["val/worst_group_accuracy"] for row in csv.DictReader(file))
    assert (run.parent / "latest").resolve() == run


def test_a_finished_run_is_not_run_again_and_fresh_runs_it(fit: Fit) -> None:
    run = fit(tiny())
    before = (run / "finished.json").stat().st_mtime_ns
    assert fit(tiny()) == run
    assert (run / "finished.json").stat().st_mtime_ns == before
    assert fit(tiny(), "--fresh", "true") == run.parent / "1"
    assert fit(tiny(), "--trainer.max_epochs", "1") == run.parent / "2", "other settings are another run"


# Trap 1: lists are replaced when configs merge; `callbacks+` appends.
def test_callbacks_replace_and_plus_appends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, extra, plus = (tmp_path / f"{n}.yaml" for n in ("base", "extra", "plus"))
    base.write_text(yaml.safe_dump(tiny()))
    extra.write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": "OfficialEvaluation"}]}}))
    plus.write_text(yaml.safe_dump({"trainer": {"callbacks+": [{"class_path": "OfficialEvaluation"}]}}))
    counts = []
    for second in (extra, plus):
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(base), "--config", str(second), "--print_config"])
        counts.append(len(yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]))
    assert counts == [1, 3]


# Trap 2: a class-valued default leaks its arguments; no constructor of ours has one.
def test_no_constructor_has_a_class_valued_default(fit: Fit) -> None:
    import inspect

    import lightning_modules

    for name in lightning_modules.__all__:
        for parameter in inspect.signature(getattr(lightning_modules, name).__init__).parameters.values():
            assert not callable(parameter.default) or parameter.default is inspect.Parameter.empty
    config = tiny()
    config["model"]["init_args"]["optimizer"] = {
        "class_path": "torch.optim.SGD",
        "init_args": {"lr": 0.1},
    }
    effective = yaml.safe_load((fit(config) / "config.yaml").read_text())
    assert effective["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == 0


LR = "--model.init_args.optimizer.init_args.lr"


def learning_rate(run: Path) -> float:
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return float(checkpoint["optimizer_states"][0]["param_groups"][0]["lr"])


# Trap 3: on resume a flag beats the checkpoint, and says so; the optimizer's own state needs an explicit word.
def test_flags_beat_the_checkpoint(fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = fit(tiny())
    last = str(run / "checkpoints/last.ckpt")
    more = ("--ckpt_path", last, "--trainer.max_epochs", "3", LR, "0.001")
    with caplog.at_level("INFO"):
        resumed = fit(tiny(), *more)
    effective = yaml.safe_load((resumed / "config.yaml").read_text())
    assert effective["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.001
    assert "optimizer.init_args.lr was 0.01 in the checkpoint and is now 0.001" in caplog.text
    assert "learning rate 0.01 (restored from the checkpoint; settings say 0.001" in caplog.text
    assert learning_rate(resumed) == 0.01
    overridden = fit(tiny(), *more, "--override_optimizer", "true", "--fresh", "true")
    assert learning_rate(overridden) == 0.001


def test_a_checkpoints_settings_fill_in_what_nothing_else_says(fit: Fit, tmp_path: Path) -> None:
    run = fit(tiny("BRDRO", penalty=0.123))
    last = str(run / "checkpoints/last.ckpt")
    main(
        [
            "test",
            "--ckpt_path",
            last,
            "--runs_root",
            str(tmp_path / "runs"),
            "--experiment",
            "tested",
        ]
    )
    effective = yaml.safe_load((tmp_path / "runs/tested/latest/config.yaml").read_text())
    assert effective["model"]["init_args"]["penalty"] == 0.123


# Trap 5: load without passing anything again.
def test_load_module_rebuilds_a_run(fit: Fit, tmp_path: Path) -> None:
    from surefoot.cli.loading import load_module
    from surefoot.errors import SurefootError

    for method in ("BRDRO", "JTT", "LfF"):
        run = fit(tiny(method), name=method)
        module = load_module(run / "checkpoints/last.ckpt")
        state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name, value in module.network.state_dict().items():  # type: ignore[union-attr]
            assert value.equal(state[f"network.{name}"])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(SurefootError, match="was not written by surefoot fit"):
        load_module(tmp_path / "foreign.ckpt")


def test_validate_test_and_predict(fit: Fit, tmp_path: Path) -> None:
    last = str(fit(tiny()) / "checkpoints/last.ckpt")
    for verb in ("validate", "test", "predict"):
        main([verb, "--ckpt_path", last, "--runs_root", str(tmp_path / "runs"), "--experiment", verb])
    with (tmp_path / "runs/predict/latest/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 359
    assert float(rows[0]["probability_0"]) + float(rows[0]["probability_1"]) == pytest.approx(1, abs=1e-5)


def test_the_newest_run_s_checkpoint_is_read_before_another_is_the_newest(fit: Fit, tmp_path: Path) -> None:
    """As the config names the experiment, the command's own run lies beside the checkpoint's."""
    assert fit(tiny()).name == "0"
    link = tmp_path / "runs/tiny/latest"
    shared = ("--config", str(tmp_path / "tiny.yaml"), "--runs_root", str(tmp_path / "runs"))
    main(["fit", *shared, "--ckpt_path", f"{link}/checkpoints/last.ckpt", "--trainer.max_epochs", "3"])
    assert link.resolve().name == "1"
    assert torch.load(link / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
    main(["test", *shared, "--ckpt_path", f"{link}/checkpoints/last.ckpt"])
    assert link.resolve().name == "2"
    assert (link / "metrics.csv").is_file()


def test_every_logged_key_is_documented(fit: Fit) -> None:
    import re

    text = (ROOT / "docs/metrics.md").read_text()
    keys = re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE)
    patterns = [re.compile(re.sub(r"<[a-z_ ]+>", "[^/]+", re.sub(r"([.+])", r"\\\1", k)) + "$") for k in keys]
    for method in ("GroupDRO", "BRDRO", "JTT", "SFT", "RFT", "GRPO"):
        if method in ("SFT", "RFT", "GRPO"):
            config = tiny_reasoning(method, evaluation={"n": 2, "max_tokens": 8})
            if method == "GRPO":
                config["model"]["init_args"]["updates"] = {"minibatches": 2}
            if method == "SFT":
                answers = {"sampling": {"n": 2, "max_tokens": 8}}
                tracker = {"answers": answers, "problems": {"test_split": "test"}}
                config["trainer"]["callbacks"] += [
                    {"class_path": "MemorizationTracker", "init_args": tracker},
                    {"class_path": "GeneralizationPredictors", "init_args": {"batch_size": 4}},
                ]
        else:
            config = tiny(method)
            config["data"]["init_args"]["label_noise"] = {"share": 0.1}
            config["trainer"]["callbacks"].append({"class_path": "ExampleDynamics"})
        run = fit(config, name=method)
        with (run / "metrics.csv").open() as file:
            logged = set(next(csv.reader(file))) - {"epoch", "step"}
        missing = {k for k in logged if not any(p.match(k) for p in patterns)}
        assert not missing
    config = tiny("ERM")
    config["trainer"]["callbacks"] += [
        {
            "class_path": "ConstantSolutionAnalysis",
            "init_args": {
                "score_encoder": {"class_path": "Flatten", "init_args": {"n_inputs": 192}},
                "score_repeats": 2,
            },
        },
        {"class_path": "SelectiveRisk"},
        {"class_path": "OODDetection"},
    ]
    config["data"]["init_args"]["shifts"] = [{"class_path": "Corruption", "init_args": {"kind": "noise"}}]
    run = fit(config, name="shifted")
    checkpoint = run / "checkpoints/last.ckpt"
    main(["test", "--ckpt_path", str(checkpoint), "--runs_root", str(run.parents[2] / "tests")])
    with (run.parents[2] / "tests/shifted-test/latest/metrics.csv").open() as file:
        logged = set(next(csv.reader(file))) - {"epoch", "step"}
    assert not {k for k in logged if not any(p.match(k) for p in patterns)}
    assert {
        "shift/noise_5/distance",
        "shift/test/reward_oracle",
        "shift/noise_1/auroc_knn",
    } <= logged


def test_one_batch_is_not_the_whole_split_whatever_was_imported_before() -> None:
    """An earlier ``Optional[Union[float, int]]`` would make the parser read 1 as 1.0, which means 100%."""
    code = (
        "import typing; typing.Optional[typing.Union[float, int]]\n"
        "import surefoot, lightning.pytorch\nfrom surefoot.cli import main\n"
        "main(['fit', '--config', 'configs/erm_digits.yaml', '--trainer.limit_val_batches', '1',"
        " '--trainer.limit_test_batches', '0.5', '--print_config'])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    out = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    trainer = yaml.safe_load(out.stdout)["trainer"]
    assert (trainer["limit_val_batches"], trainer["limit_test_batches"]) == (1, 0.5)
    assert isinstance(trainer["limit_val_batches"], int)
