"""Two gloo ranks train like one: whole-batch weights, thresholds and adversaries agree within float tolerance."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Fit, tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
METHODS = ("ERM", "GroupDRO", "CVaRDRO", "BRDRO", "LfF", "JTT")

#: Runs every config given, one after the other, as one rank of two.
RANK = """
import sys
from surefoot.cli import main
for config in sys.argv[2:]:
    main(["fit", "--config", config, "--runs_root", sys.argv[1]])
"""


def settings(method: str, n_ranks: int) -> dict[str, object]:
    config = tiny(method)
    config["data"]["init_args"]["batch_size"] = 104 // n_ranks
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 10}
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    if method == "BRDRO":
        config["model"]["init_args"] |= {"update": "no_regret", "hedge_step": 0.05}
    if method == "GroupDRO":
        config["data"]["init_args"]["sampling"] = "group_balanced"
        config["model"]["init_args"]["step_size"] = 0.5
    if method == "CVaRDRO":
        config["model"]["init_args"]["level"] = 0.25
    return config


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train every method on two ranks, launched as torchrun would."""
    folder = tmp_path_factory.mktemp("ranks")
    configs = []
    for method in METHODS:
        path = folder / f"{method}.yaml"
        path.write_text(yaml.safe_dump(settings(method, 2)))
        configs.append(str(path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", RANK, str(folder / "runs"), *configs]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=240)
        assert rank.returncode == 0, errors[-3000:]
    return folder / "runs"


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_equal_one(method: str, two_ranks: Path, fit: Fit) -> None:
    alone = fit(settings(method, 1), name=method)
    states = [
        torch.load(r / "checkpoints/last.ckpt", weights_only=True)
        for r in (alone, two_ranks / method / "0")
    ]
    one, two = (s["state_dict"] for s in states)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(
                two[name],
                value,
                rtol=1e-4,
                atol=1e-5,
                equal_nan=True,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    assert len(states[1]["random_states"]) == 2, "each rank's random state is in the checkpoint"
    metrics = ((r / "selection.csv").read_text() for r in (alone, two_ranks / method / "0"))
    rows = [[line.split(",")[:7] for line in text.splitlines()] for text in metrics]
    assert rows[0] == rows[1], "each example is evaluated once, on one rank or the other"
    assert (two_ranks / method / "0/finished.json").is_file()
    assert not (two_ranks / method / "1").exists(), "both ranks write to one folder"
