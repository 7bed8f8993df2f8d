"""Shared fixtures: warnings become errors, real data is optional, runs go into a temporary folder."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import surefoot  # noqa: F401  (before anything imports torchvision)

# Tiny tensors gain nothing from threads, and one thread sums in one order, in this process and in its children.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A shell that starts tests in the background, or nohup, has them ignore these: tests send them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data_root() -> Path:
    """The folder of real data; the test is skipped without it."""
    root = os.environ.get("SUREFOOT_DATA")
    if root is None or not Path(root).is_dir():
        pytest.skip("SUREFOOT_DATA names no folder: this test needs real data")
    return Path(root)


Fit = Callable[..., Path]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Train a config through the public ``main()``; returns the run folder."""
    from surefoot.cli import main

    def run(settings: dict[str, Any], *flags: str, name: str = "tiny") -> Path:
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        main(["fit", "--config", str(config), "--runs_root", str(tmp_path / "runs"), *flags])
        return (tmp_path / "runs" / name / "latest").resolve()

    return run


def from_weights(settings: dict[str, Any], weights: Path | str | None) -> dict[str, Any]:
    """Let the encoder of a classifier's config start with weights of another run; return the config."""
    arguments = settings["model"]["init_args"]
    started = {"encoder": arguments["encoder"], "weights": None if weights is None else str(weights)}
    arguments["encoder"] = {"class_path": "CheckpointEncoder", "init_args": started}
    return settings


def tiny(method: str = "ERM", **model: Any) -> dict[str, Any]:
    """Return a config that trains a small network on digits for two epochs."""
    init = {
        "encoder": {"class_path": "MLP", "init_args": {"n_inputs": 192, "widths": [8]}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    }
    if method == "BRDRO":
        init |= {
            "adversary": {"class_path": "VIBAdversary", "init_args": {"n_samples": 2}},
            "adversary_optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        }
    if method == "JTT":
        model = {"identification_epochs": 1, "upweight": 5} | model
    return {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": "GroupMetrics"}, {"class_path": "ExampleWeightMonitor"}],
        },
        "model": {"class_path": method, "init_args": init | model},
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 128, "seed": 0}},
    }
