"""What lies beneath: torchvision beside a CPU torch, random states, run folders, WILDS' gaps."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.compatibility.wilds import scatter, torch_scatter_available
from surefoot.errors import SurefootError
from surefoot.runs import await_run, list_runs, mark_latest, open_run
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.storage.locks import hold
from surefoot.training.random_state import capture_random_state, restore_random_state


def test_torchvision_imports_in_a_fresh_interpreter() -> None:
    code = (
        "import sys, torch, surefoot\n"
        "assert 'torchvision' not in sys.modules\n"
        "import torchvision\n"
        "from torchvision.transforms import v2\n"
        "assert v2.functional.hflip(torch.arange(3.)[None, None]).tolist() == [[[2., 1., 0.]]]\n"
        "torchvision.models.resnet18().eval()(torch.rand(1, 3, 32, 32))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_operators_are_declared_once_and_only_where_needed() -> None:
    from surefoot.compatibility import torchvision_cpu

    declared = torchvision_cpu.declare_missing_operators()
    assert torchvision_cpu.declare_missing_operators() == declared  # torch refuses a second declaration
    assert not (declared and torch.version.cuda is not None)


def test_random_states_come_back_through_a_safe_checkpoint(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    torch.save(capture_random_state(), tmp_path / "state.pt")
    values = draw()
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == values


def test_the_same_settings_lead_back_to_the_same_folder(tmp_path: Path) -> None:
    first = open_run(tmp_path, "x", {"a": 1, "b": 2})
    assert open_run(tmp_path, "x", {"b": 2, "a": 1}).path == first.path
    second = open_run(tmp_path, "x", {"a": 2})
    mark_latest(second)
    assert (second.path.name, (tmp_path / "x/latest").resolve()) == ("1", second.path)
    assert open_run(tmp_path, "x", {"a": 1, "b": 2}, fresh=True).path.name == "2"
    assert [r.path.name for r in list_runs(tmp_path / "x")] == ["0", "1", "2"]
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_other_ranks_find_the_run_that_rank_zero_holds(tmp_path: Path) -> None:
    run = open_run(tmp_path, "x", {"a": 1})
    with pytest.raises(SurefootError, match="rank zero opened no run"):
        await_run(tmp_path, "x", {"a": 1}, seconds=0.3)
    with hold(run.path):
        assert await_run(tmp_path, "x", {"a": 1}, seconds=5).path == run.path
    assert not (run.path / "running.json").exists()


def test_a_corrupt_identity_blocks_no_other_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (open_run(tmp_path, "x", {"a": i}) for i in range(2))
    for damage in ("{", "[]", '{"created": 1}', "\0\0"):
        (first.path / "identity.json").write_text(damage)
        assert open_run(tmp_path, "x", {"a": 1}).path == second.path
        said = capsys.readouterr().err.splitlines()
        assert said == [f"left out: {first.path}/identity.json cannot be read"]


def test_json_is_written_whole_and_damage_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(SurefootError, match=r"x.json cannot be read as JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("reduce", ["mean", "sum", "amax"])
def test_the_stand_in_reduces_as_torch_scatter_documents(reduce: str) -> None:
    values, index = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0, 2, 0])
    expected = {"mean": [1.5, 0.0, 5.0], "sum": [3.0, 0.0, 5.0], "amax": [2.0, 0.0, 5.0]}[reduce]
    assert scatter(values, index, 3, reduce).tolist() == expected
    with torch_scatter_available():
        import torch_scatter  # type: ignore[import-not-found]

        assert torch_scatter.scatter(src=values, index=index, dim_size=3, reduce=reduce).tolist() == expected


def test_wilds_asks_nothing_of_the_internet() -> None:
    code = (
        "import socket, sys, threading\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from datamodules import WILDSDataModule\n"
        "WILDSDataModule('waterbirds')\n"
        "assert 'wilds' in sys.modules and 'outdated' not in sys.modules\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
