"""Language-model runs killed anywhere, within a rollout too, end in the same weights, bit for bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit
from fresh_processes import run_fresh
from labelled_completions import labelled_completions
from small_datasets import write_pairs
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

#: Kills its own process at the nth call of a method.
KILLED = """
import os, signal, sys
import lightning_modules
from surefoot.cli import main
from surefoot.reasoning.rollouts import HFEngine

where, nth = os.environ["KILL_IN"], int(os.environ["KILL_AT"])
owner = HFEngine if where == "_batch" else lightning_modules.LanguageModelModule
original, n = getattr(owner, where), 0

def killed(self, *arguments, **named):
    global n
    n += 1
    if n == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments, **named)

setattr(owner, where, killed)
main(sys.argv[1:])
"""


#: A method without prompt and engine, of a user's own.
VALUES = "value_regression.ValueRegression"


def settings(method: str, folder: Path) -> dict[str, Any]:
    config = tiny_reasoning(method, schedule="linear", warmup=2)
    model = config["model"]["init_args"]
    config["trainer"]["limit_val_batches"] = 0
    if method == "GRPO":
        model |= {"updates": {"minibatches": 2, "epochs": 2}, "loss": {"kl_coefficient": 0.05}}
    if method == "DPO":
        model["engine"] = None
        config["data"] = {
            "class_path": "PreferencesDataModule",
            "init_args": {"pairs": str(write_pairs(folder)), "batch_size": 2, "n_val": 2},
        }
    if method == "AdvantageWeightedSFT":
        labels = labelled_completions(folder / "labels", n_problems=8)
        config["data"] = {
            "class_path": "LabelledTrajectoriesDataModule",
            "init_args": {"completions": str(labels), "batch_size": 8, "seed": 0},
        }
    if method == VALUES:
        del model["engine"], model["evaluation"], config["trainer"]["callbacks"]
    if method == "SFT":  # dropout draws on the global generator
        model["language_model"]["init_args"]["lora"] = {"rank": 2, "dropout": 0.2}
    return config


@pytest.mark.parametrize(
    ("method", "where", "nth"),
    [
        ("SFT", "update", 6),
        ("AdvantageWeightedSFT", "update", 6),
        ("DPO", "update", 6),
        ("RFT", "_batch", 6),
        ("GRPO", "_batch", 6),
        ("GRPO", "update", 23),
        (VALUES, "update", 6),
    ],
    ids=["SFT", "AdvantageWeightedSFT", "DPO", "RFT-mid-rollout", "GRPO-mid-rollout", "GRPO-mid-update", "value-head"],
)
def test_a_killed_run_ends_like_one_that_was_not(method: str, where: str, nth: int, fit: Fit, tmp_path: Path) -> None:
    """Four batches an epoch, two epochs; checkpoints every two batches (GRPO takes four steps a batch)."""
    config = settings(method, tmp_path)
    flags = ("--checkpoint_every_n_steps", "8" if method == "GRPO" else "2")
    whole = fit(config, *flags, name="whole")
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(config))
    arguments = ["fit", "--config", str(path), "--runs_root", str(tmp_path / "runs"), *flags]
    ended = run_fresh(KILLED, arguments, {"KILL_IN": where, "KILL_AT": str(nth)})
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    run = tmp_path / "runs/killed/0"
    before = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    whole_state = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)
    assert 0 < before["global_step"] < whole_state["global_step"]
    main(arguments)
    after = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert after["global_step"] == whole_state["global_step"]
    for name, value in whole_state["state_dict"].items():
        assert value.equal(after["state_dict"][name]), name
    assert after.get("sampling_seed") == whole_state.get("sampling_seed")
    rates = [s["optimizer_states"][0]["param_groups"][0]["lr"] for s in (after, whole_state)]
    assert rates[0] == rates[1]
    if method == "GRPO":
        tables = [
            [json.loads(line) for line in (r / "samples.jsonl").read_text().split("\n")[:-1]] for r in (whole, run)
        ]
        assert tables[0] == tables[1], "the table of samples has no row twice and none missing"
