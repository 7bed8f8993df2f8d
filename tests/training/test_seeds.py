"""One flag seeds a run: weights, splits, order, noise; what is given apart stays."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Fit, from_weights, tiny
from pseudo_labels import two_streams

import callbacks
import datamodules
import lightning_modules
import surefoot
from surefoot.cli import main
from surefoot.cli.settings import fill_seeds
from surefoot.report.runs import read_run
from surefoot.training.seeds import derive_seed, numbered_seed

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
#: Sets that are evaluated are the same whatever the run's seed.
FIXED = {"Corruption", "TextPerturbation"}


def test_seeds_depend_on_every_part() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert len({derive_seed(1, "a"), derive_seed(2, "a"), derive_seed(1, "b"), derive_seed("1/a")}) == 3
    assert 0 <= derive_seed("x") < 2**56


def test_numbered_draws_of_two_seeds_differ() -> None:
    seeds = {numbered_seed(seed, number) for seed in range(20) for number in range(500)}
    assert len(seeds) == 20 * 500


#: Seeds made by adding and multiplying. Studies (`reproduce`) are apart: they list the seeds of their runs.
ARITHMETIC = re.compile(r"(manual_seed|Random|default_rng)\([^()]*[+*][^()]*\)|random_state=\w*seed\w* *[+*]")


def test_no_seed_is_made_by_hand() -> None:
    root = Path(surefoot.__file__).parents[1]
    rooms = [root / room for room in ("surefoot", "lightning_modules", "datamodules", "callbacks")]
    files = [p for r in rooms for p in r.rglob("*.py") if "reproduce" not in p.parts]
    assert not [f"{p}: {m[0]}" for p in files for m in ARITHMETIC.finditer(p.read_text())]


#: Where seeds are made of texts by hand, from before `derive_seed`: committed results hang on these draws.
TEXTS = {
    "datamodules/reasoning/arithmetic.py": 1,
    "surefoot/classification/shifts/texts.py": 1,
    "surefoot/reasoning/arithmetic.py": 1,
    "surefoot/reasoning/completions/selection.py": 1,
}


def test_no_new_seed_is_made_of_a_text() -> None:
    root = Path(__file__).parents[2]
    files = [p for r in ("surefoot", "lightning_modules", "datamodules", "callbacks") for p in (root / r).rglob("*.py")]
    found = {str(p.relative_to(root)): len(re.findall(r"(Random|manual_seed|sha256)\(f", p.read_text())) for p in files}
    assert {path: n for path, n in found.items() if n} == TEXTS


def unseeded(method: str = "ERM", **model: Any) -> dict[str, Any]:
    """Return a tiny config whose data have no seed of their own."""
    config = tiny(method, **model)
    del config["data"]["init_args"]["seed"]
    config["trainer"]["max_epochs"] = 1
    return config


def recorded(run: Path) -> tuple[dict[str, Any], dict[str, str]]:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    return settings, json.loads((run / "environment.json").read_text())["data"]


def test_one_flag_seeds_weights_and_data_and_a_seed_given_apart_stays(fit: Fit) -> None:
    followed = fit(unseeded(), "--seed_everything", "5")
    again = fit(unseeded(), "--seed_everything", "5", "--data.init_args.seed", "5")
    assert again == followed, "the same settings are the same run"
    apart = fit(unseeded(), "--seed_everything", "5", "--data.init_args.seed", "0")
    (settings, data), (other, data_apart) = recorded(followed), recorded(apart)
    assert (settings["data"]["init_args"]["seed"], other["data"]["init_args"]["seed"]) == (5, 0)
    assert settings["seed_everything"] == other["seed_everything"] == 5
    assert data["test"] != data_apart["test"], "another split"
    assert recorded(fit(unseeded(), "--data.init_args.seed", "0"))[1] == data_apart


def test_a_checkpoint_is_tested_on_the_split_that_it_was_trained_with(fit: Fit) -> None:
    run = fit(unseeded(), "--seed_everything", "5")
    root = run.parents[1]
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    main(["test", "--ckpt_path", checkpoint, "--runs_root", str(root), "--seed_everything", "1"])
    settings = yaml.safe_load((root / "tiny-test/latest/config.yaml").read_text())
    assert settings["data"]["init_args"]["seed"] == 5


def test_a_second_stage_refuses_weights_of_another_split(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    first = fit(unseeded(), "--seed_everything", "5")
    shutil.copytree(first, moved := first.parents[2] / "moved", ignore=shutil.ignore_patterns("checkpoints"))
    for weights in (first, first / "weights.safetensors", first / "checkpoints/last.ckpt", moved):
        config = from_weights(unseeded("DFR"), weights)
        del config["model"]["init_args"]["optimizer"]
        config["trainer"]["callbacks"] = []
        with pytest.raises(SystemExit):
            fit(config, "--seed_everything", "6", name="dfr")
        assert "was trained on data of seed 5 and this run's have seed 6" in capsys.readouterr().err
    fit(config, "--seed_everything", "6", "--data.init_args.seed", "5", name="dfr")


@pytest.mark.parametrize("seed", [5, 6])
def test_the_same_dataset_in_a_stream_is_known(seed: int, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    config = from_weights(tiny("pseudo_labels.PseudoLabels"), fit(unseeded(), "--seed_everything", "5"))
    config["trainer"] |= {"callbacks": [], "max_epochs": 1, "limit_train_batches": 1}
    config["data"] = two_streams()
    for stream in config["data"]["init_args"]["streams"].values():
        stream["init_args"]["seed"] = seed
    if seed == 5:
        assert read_run(fit(config, name="streams")).pair == (3, 5), "seeds of training and of the data"
        return
    with pytest.raises(SystemExit):
        fit(config, name="streams")
    assert "was trained on data of seed 5 and this run's have seed 6" in capsys.readouterr().err


def test_every_seed_of_every_class_follows_the_run_by_default() -> None:
    found = set()
    for package in (lightning_modules, datamodules, callbacks, surefoot):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__") or ".reproduce" in module.name:
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(value) and value.__module__ == module.name:
                    seed = inspect.signature(value.__init__).parameters.get("seed")
                    if seed is not None and seed.default is not inspect.Parameter.empty:
                        found.add(name)
                        assert seed.default is None or name in FIXED, f"{name} ignores the run's"
    assert {"SeededNoise", "TinyLanguageModel", "DFR", "MemorizationTracker"} <= found


@pytest.mark.slow
def test_the_loop_in_the_docs_runs_word_for_word(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    loop = (root / "docs/running.md").read_text().split("```sh\n")[1].split("```")[0]
    (tmp_path / "configs").symlink_to(root / "configs")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    surefoot_command = tmp_path / ".venv/bin/surefoot"
    surefoot_command.write_text(f'#!/bin/sh\nexec {sys.executable} -m surefoot "$@"\n')
    surefoot_command.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run(["sh", "-ec", loop], cwd=tmp_path, env=environment, check=True)
    table = (tmp_path / "report/table.md").read_text().splitlines()[2]
    assert table.startswith("| erm_digits |")
    assert table.endswith(" 5 |")


def test_seeds_are_filled_at_any_depth_and_given_ones_stay() -> None:
    settings = {"seed": None, "a": [{"seed": None}, {"seed": 0}], "b": {"c": {"seed": None}}}
    fill_seeds(settings, 7)
    assert settings == {"seed": 7, "a": [{"seed": 7}, {"seed": 0}], "b": {"c": {"seed": 7}}}
