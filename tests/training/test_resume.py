"""Killed anywhere, a run resumes and ends in the same weights, bit for bit."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit, tiny
from fresh_processes import run_fresh
from pseudo_labels import read_streams, two_streams

from surefoot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

#: Runs the command line in a process that kills itself, as kill -9 would, before a given optimizer step ends.
KILLED = """
import os, signal, sys
import lightning_modules
from surefoot.cli import main

def kill(self, batch, batch_idx):
    if self.global_step >= int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)

lightning_modules.ResumableModule.on_train_batch_start = kill
main(sys.argv[1:])
"""


def settings(method: str) -> dict[str, Any]:
    classes = {"augmented": "ERM", "two streams": "pseudo_labels.PseudoLabels"}
    config = tiny(classes.get(method, method))
    config["trainer"]["max_epochs"] = 4
    config["model"]["init_args"]["lr_scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 1},
    }
    if method == "JTT":
        config["model"]["init_args"]["identification_epochs"] = 2
    if method == "BRDRO":
        update = {"hedge_step": 0.5, "importance": "sampling"}
        config["model"]["init_args"] |= {
            "update": {"class_path": "NoRegretUpdate", "init_args": update},
            "tail": {"threshold_decay": 0.5},
        }
    if method == "augmented":
        views = {"input": {"class_path": "ShiftFlip", "init_args": {"padding": 1}}, "weak": {"class_path": "Flip"}}
        config["data"]["init_args"]["augmentation"] = {"class_path": "Views", "init_args": {"views": views}}
    if method == "two streams":
        config["trainer"]["callbacks"] = [
            {"class_path": "GroupMetrics"},
            {"class_path": "pseudo_labels.StreamRecorder"},
        ]
        config["data"] = two_streams()
    # Dropout draws on the global generator, whose state has to come back too.
    config["model"]["init_args"]["encoder"] = {"class_path": "tests.training.test_resume.Dropping"}
    return config


from surefoot.classification.networks import MLP


class Dropping(MLP):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__(192, (8,))
        self.layers.append(torch.nn.Dropout(0.3))


def final_state(run: Path) -> dict[str, Any]:
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint["state_dict"] | {"lr": checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]}


@pytest.mark.parametrize(
    ("method", "kill_at"),
    [
        ("ERM", 21),
        pytest.param("GroupDRO", 21, marks=pytest.mark.slow),
        ("JTT", 12),
        ("JTT", 22),
        ("JTT", 18),
        ("BRDRO", 21),
        pytest.param("LfF", 21, marks=pytest.mark.slow),
        ("augmented", 21),
        ("two streams", 21),
    ],
    ids=[
        "ERM",
        "GroupDRO",
        "JTT-identifying",
        "JTT-retraining",
        "JTT-at-the-switch",
        "BRDRO",
        "LfF",
        "augmented",
        "two-streams",
    ],
)
def test_a_killed_run_ends_like_one_that_was_not(method: str, kill_at: int, fit: Fit, tmp_path: Path) -> None:
    """Nine steps an epoch, a checkpoint every fourth: steps 12, 21 and 22 are in mid-epoch, 18 is at an epoch's end."""
    flags = ("--checkpoint_every_n_steps", "4")
    whole = fit(settings(method), *flags, name="whole")
    config = tmp_path / "killed.yaml"
    config.write_text(yaml.safe_dump(settings(method)))
    arguments = ["fit", "--config", str(config), "--runs_root", str(tmp_path / "runs"), *flags]
    ended = run_fresh(KILLED, arguments, {"KILL_AT": str(kill_at)})
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    run = tmp_path / "runs/killed/0"
    assert (run / "checkpoints/last.ckpt").is_file()
    assert not (run / "finished.json").exists()
    main(arguments)
    assert (run / "finished.json").is_file()
    assert not (tmp_path / "runs/killed/1").exists(), "the same settings lead back to the same folder"
    expected, resumed = final_state(whole), final_state(run)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        same = value.equal(resumed[name]) if isinstance(value, torch.Tensor) else value == resumed[name]
        assert same or (
            isinstance(value, torch.Tensor)
            and torch.equal(value.isnan(), resumed[name].isnan())
            and torch.equal(value.nan_to_num(), resumed[name].nan_to_num())
        ), name
    whole_rules, rules = ((r / "selection.csv").read_text() for r in (whole, run))
    assert whole_rules == rules, "the history that selection rules choose from survived"
    if method == "two streams":
        assert read_streams(run) == read_streams(whole), "both streams went on where they were"
