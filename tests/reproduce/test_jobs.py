"""Training runs that are done once: their results are kept with their run folders, wherever these are moved."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_processes import FORK_SERVER

from surefoot.errors import SurefootError
from surefoot.reproduce import workers as pool
from surefoot.reproduce.jobs import Job, run_calls, run_jobs
from surefoot.reproduce.workers import end_workers

JOB = Job(
    "one",
    {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 1,
            "enable_progress_bar": False,
        },
        "model": {
            "class_path": "ERM",
            "init_args": {
                "encoder": {"class_path": "SmallCNN", "init_args": {"widths": [4]}},
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
            },
        },
        "data": {"class_path": "DigitsDataModule", "init_args": {"seed": 0}},
    },
)


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork workers from a process that has imported everything, and end them."""
    monkeypatch.setattr(pool, "get_context", lambda method: FORK_SERVER)
    yield
    end_workers()


def test_kept_results_are_found_where_their_folder_is_moved(tmp_path: Path) -> None:
    first = run_jobs([JOB], tmp_path / "here")["one"]
    assert Path(first.folder) == tmp_path / "here/runs/one/latest"
    (tmp_path / "here").rename(tmp_path / "there")
    again = run_jobs([JOB], tmp_path / "there")["one"]
    assert Path(again.folder) == tmp_path / "there/runs/one/latest"
    assert again._replace(folder="") == first._replace(folder=""), "the same seconds: it was not trained again"

    kept = next((tmp_path / "there/results").glob("*.json"))
    whole = kept.read_text()
    for damaged in ("[]", json.dumps({"last": {}}), whole[:50]):
        kept.write_text(damaged)
        with pytest.raises(SurefootError, match=kept.name):
            run_jobs([JOB], tmp_path / "there")
    kept.write_text(whole)
    shutil.rmtree(tmp_path / "there/runs")
    assert Path(run_jobs([JOB], tmp_path / "there")["one"].folder).is_dir(), "trained again: its folder was removed"


def test_processes_are_kept_for_what_comes_next_and_replaced_when_one_dies() -> None:
    first, _ = run_calls(os.getpid, {"a": ()})
    again, _ = run_calls(os.getpid, {"b": ()})
    assert first["a"] == again["b"] != os.getpid()
    with pytest.raises(SurefootError, match="run 'c' failed: A process in the process pool was terminated"):
        run_calls(os._exit, {"c": (1,)})
    other, _ = run_calls(os.getpid, {"d": ()})
    assert other["d"] not in (first["a"], os.getpid())


def test_work_is_stopped_at_once_where_the_command_is_interrupted() -> None:
    run_calls(os.getpid, {"a": ()})  # the process stands
    failed: list[str] = []

    def work() -> None:
        with pytest.raises(SurefootError) as error:
            run_calls(time.sleep, {"long": (60,)})
        failed.append(str(error.value))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    end_workers(at_once=True)
    thread.join(20)
    assert time.monotonic() - began < 20
    assert "run 'long' failed" in failed[0]
