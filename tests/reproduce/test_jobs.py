"""Training runs that are done once: their results are kept with their run folders, wherever these are moved."""

import json
import shutil
from pathlib import Path

import pytest
from fresh_processes import FORK_SERVER

from surefoot.errors import SurefootError
from surefoot.reproduce import jobs
from surefoot.reproduce.jobs import Job, run_jobs

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


def test_kept_results_are_found_where_their_folder_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(jobs, "get_context", lambda method: FORK_SERVER)  # spares the second worker its imports
    assert Path(run_jobs([JOB], tmp_path / "there")["one"].folder).is_dir(), "trained again: its folder was removed"
