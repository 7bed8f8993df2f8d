"""CONTRIBUTING's worked examples run as they stand there, from files of a user's own."""

import ast
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from documented_code import read_blocks

from surefoot import reproduce
from surefoot.cli import main

BLOCKS = read_blocks(Path(__file__).parents[1] / "CONTRIBUTING.md")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with all files of the document, in which all its commands have run.

    Its papers are found as if they were in Surefoot's own folder.
    """
    folder = tmp_path_factory.mktemp("mine")
    for name, text in BLOCKS.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(reproduce, "__path__", [*reproduce.__path__, str(folder / "surefoot/reproduce")])
        for command in BLOCKS.commands:
            main(command)
        yield folder
    sys.modules.pop("surefoot.reproduce.coins", None)
    vars(reproduce).pop("coins", None)


def test_every_own_file_is_used_by_a_config_that_is_run() -> None:
    modules = {name.removesuffix(".py") for name in BLOCKS.files if name.endswith(".py") and "/" not in name}
    configs = {name for name in BLOCKS.files if name.endswith(".yaml")}
    assert configs == {word for command in BLOCKS.commands for word in command if word.endswith(".yaml")}
    named = "\n".join(BLOCKS.files[name] for name in configs)
    assert modules == {module for module in modules if f" {module}." in named}


@pytest.mark.parametrize("name", BLOCKS.files)
def test_examples_are_short_and_clean(name: str) -> None:
    text = BLOCKS.files[name]
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    assert all(len(line) <= 120 for line in text.splitlines())
    if name.endswith(".py"):
        classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        assert all(ast.get_docstring(node) for node in classes)


def test_method_dataset_and_callback_train_from_a_config(folder: Path) -> None:
    run = folder / "runs/focal_moons/latest"
    assert (run / "finished.json").is_file()
    assert len(json.loads((run / "epoch_seconds.json").read_text())) == 3
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["model"]["init_args"]["n_classes"] == 2
    header = (folder / "runs/focal_moons-test/latest/metrics.csv").read_text().splitlines()[0]
    assert "test/worst_group_accuracy" in header


def test_an_own_augmentation_changes_what_is_trained_on(folder: Path) -> None:
    run = folder / "runs/erm_cutout/latest"
    assert (run / "finished.json").is_file()
    settings = yaml.safe_load((run / "config.yaml").read_text())
    chain = settings["data"]["init_args"]["augmentation"]["init_args"]["augmentations"]
    assert [part["class_path"].rsplit(".", 2)[-2:] for part in chain] == [
        ["classification", "ShiftFlip"],
        ["cutout", "Cutout"],
    ]
    cutout = runpy.run_path(str(folder / "cutout.py"))["Cutout"](side=2)
    changed = cutout(torch.ones(50, 3, 5, 5))
    assert (changed == 0).sum((1, 2, 3)).tolist() == [2 * 2 * 3] * 50, "a square of each image"
    assert len({image.numpy().tobytes() for image in changed}) > 5, "anywhere in it"


def test_rewards_credit_and_engine_train_from_a_config(folder: Path) -> None:
    run = folder / "runs/grpo_brief/latest"
    assert (run / "finished.json").is_file()
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"rollout/reward_Brevity", "rollout/reward_starts_with_a_digit"} <= set(header)


def test_pairs_of_an_own_builder_are_trained_on(folder: Path) -> None:
    run = folder / "runs/dpo_shorter/latest"
    assert (run / "finished.json").is_file()
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["data"]["init_args"]["builder"]["class_path"] == "shorter.ShorterPairs"
    assert "train/loss" in (run / "metrics.csv").read_text().splitlines()[0].split(",")


@pytest.mark.parametrize(("scale", "verdict", "n_seeds"), [("quick", "undecided", 1), ("laptop", "holds", 5)])
def test_a_paper_s_claim_is_measured_and_judged(scale: str, verdict: str, n_seeds: int, folder: Path) -> None:
    assert not BLOCKS.programs, "every program is a file that a command runs"
    found = folder / "reproduced/coins" / scale
    (claim,) = json.loads((found / "claims.json").read_text())
    assert (claim["id"], claim["verdict"], claim["n_seeds"]) == ("half_are_heads", verdict, n_seeds)
    assert claim["claim"] == "Half of all throws of a coin show heads"
    assert (found / "figures/heads.svg").is_file()
