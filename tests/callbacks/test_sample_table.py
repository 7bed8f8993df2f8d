"""The table of samples holds whatever a model writes, and loses nothing of it when a run resumes."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from callbacks import SampleTable
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.trajectories import Trajectory

#: Line ends of str.splitlines and of universal newlines; json writes some of them as they are.
LINE_ENDS = "\n \r \r\n \v \f \x1c \x1d \x1e \x85 \u2028 \u2029"


class Sampled(LightningModule):
    """Has sampled already."""

    def __init__(self, trajectories: list[Trajectory]) -> None:
        super().__init__()
        self.rollout = self.evaluated = trajectories


@pytest.mark.filterwarnings("ignore")
def test_rows_with_any_line_end_survive_a_resumption(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    problem = Problem(LINE_ENDS, "q", "1")
    written = [
        Trajectory(problem, 0, [1], [2], [0.0], "stop", 0, text=end.join("ab"), grade=Grade("wrong", None))
        for end in LINE_ENDS.split(" ")
    ]
    table = SampleTable(n_samples=20)
    table.on_test_epoch_end(trainer, Sampled(written))
    path = tmp_path / "samples.jsonl"
    whole = path.read_bytes()
    later = json.dumps({"step": 7, "completion": "after the checkpoint\u2028"}, ensure_ascii=False)
    path.write_bytes(whole + later.encode() + b'\n{"step": 0, "completion": "cut\xe2\x80\xa8')
    table.on_train_start(trainer, LightningModule())
    assert path.read_bytes() == whole
    rows = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
    assert [r["completion"] for r in rows] == [t.text for t in written]
