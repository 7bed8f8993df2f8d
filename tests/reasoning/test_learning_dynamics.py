"""Recorded runs: both forms on disk, what is refused, and how samples are made equal."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from surefoot.errors import DataError
from surefoot.reasoning.learning_dynamics import (
    TrackedRun,
    learning_curves,
    read_record,
    read_recorded_runs,
    thin_samples,
    write_checkpoint,
    write_recorded_runs,
)


def run(name: str = "a", n: int = 5, seed: int = 0) -> TrackedRun:
    draw = torch.Generator().manual_seed(seed)
    correct = torch.randint(n + 1, (3, 20), generator=draw).double()
    perplexities = 1 + torch.rand(3, 20, generator=draw, dtype=torch.float64)
    test = torch.randint(n + 1, (3, 8), generator=draw).double()
    return TrackedRun(name, [10, 20, 30], n, correct, perplexities.float().double(), n, test)


def row(split: str, identity: str, step: int, **changes: Any) -> dict[str, Any]:
    given = {
        "split": split,
        "id": identity,
        "step": step,
        "epoch": 0,
        "n_samples": 5,
        "n_correct": 2,
    }
    return given | {"perplexity": 1.5 if split == "train" else None} | changes


def test_npz_there_and_back(tmp_path: Path) -> None:
    runs = [run(), run("b", 10, 1)]
    write_recorded_runs(runs, tmp_path / "x.npz")
    for given, found in zip(runs, read_recorded_runs(tmp_path / "x.npz"), strict=True):
        assert (found.name, found.steps) == (given.name, given.steps)
        assert (found.n_train_samples, found.n_test_samples) == (given.n_train_samples,) * 2
        torch.testing.assert_close(found.train_correct, given.train_correct)
        torch.testing.assert_close(found.train_perplexities, given.train_perplexities)
        assert found.curves().test_accuracies.tolist() == given.curves().test_accuracies.tolist()
    assert not list(tmp_path.glob("*.part"))


def damaged(tmp_path: Path, **changes: Any) -> Path:
    """Write a record with some of its arrays changed or, with none, left out."""
    path = tmp_path / "x.npz"
    write_recorded_runs([run()], path)
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    for name, value in changes.items():
        key = name if name == "meta" else f"a/{name}"
        if value is None:
            del arrays[key]
        else:
            arrays[key] = value(arrays[key]) if callable(value) else value
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta": None}, "no entry `meta`"),
        ({"meta": np.array("{not json")}, "no entry `meta`"),
        ({"meta": np.array("{}")}, "describes no run"),
        ({"meta": np.array('{"a": {"steps": [1]}}')}, "needs steps, samples_per_train_example"),
        ({"train_correct": None}, "lacks the array a/train_correct"),
        ({"train_correct": lambda a: a[0]}, "two dimensions"),
        ({"train_correct": lambda a: a[:2]}, "expected .checkpoints, examples."),
        ({"train_correct": lambda a: a + 1}, "counts 1 to 6 correct of 5 train samples"),
        ({"test_correct": lambda a: a[:1]}, "3 steps and test_correct"),
        ({"train_correct": np.array([["x"] * 20] * 3)}, "must be numbers"),
    ],
)
def test_a_damaged_record_ends_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_recorded_runs(damaged(tmp_path, **changes))


def test_pickles_torn_files_and_missing_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", meta=np.array({"a": 1}, dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_recorded_runs(tmp_path / "p.npz")
    write_recorded_runs([run()], tmp_path / "x.npz")
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        read_recorded_runs(tmp_path / "x.npz")
    with pytest.raises(DataError, match="does not exist"):
        read_recorded_runs(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match="holds no recorded run"):
        read_recorded_runs(tmp_path)


def test_examples_are_lined_up_by_id_and_dropped_ones_are_counted(tmp_path: Path) -> None:
    first = [row("train", i, 1, n_correct=n) for n, i in enumerate("abcd")]
    second = [row("train", i, 2, n_correct=n + 1) for n, i in reversed(list(enumerate("abc")))]
    second.append(row("train", "e", 2))
    tests = [[row("test", "t", s, n_samples=4, n_correct=s)] for s in (1, 2)]
    write_checkpoint(tmp_path / "memorization", 2, second + tests[1])
    write_checkpoint(tmp_path / "memorization", 1, first + tests[0])
    found = read_record(tmp_path / "memorization", "r")
    assert found.train_ids == ["a", "b", "c"]
    assert found.train_correct.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert found.n_dropped == 2, "d and e were measured once"
    assert found.curves().test_accuracies.tolist() == [0.25, 0.5]
    assert found.steps == [1, 2]
    assert read_recorded_runs(tmp_path / "memorization")[0].name == tmp_path.name
    assert len(read_recorded_runs(tmp_path)) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("train", "a", 1), row("train", "a", 1)], "occurs twice"),
        ([row("train", "a", 1), row("train", "b", 1, n_samples=6)], "5 to 6 samples"),
        ([row("test", "a", 1)], "no training example"),
        ([row("train", "a", 1, n_correct=7)], "of 5 train samples"),
    ],
)
def test_bad_checkpoints_end_in_one_line(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, rows)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path, "r")


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, [row("train", "a", 1)])
    path = next(tmp_path.glob("step-*.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"step-00000001\.parquet is damaged"):
        read_record(tmp_path, "r")


def test_thinning_keeps_the_mean_and_lowers_the_running_maximum() -> None:
    n, kept = 50, 5
    correct = torch.full((6, 4000), 20.0, dtype=torch.float64)
    many = TrackedRun("m", list(range(6)), n, correct, correct * 0 + 3, n, correct)
    few = thin_samples(many, kept)
    assert few.n_train_samples == kept
    accuracies = few.train_accuracies
    # 24,000 draws of variance 0.24 / 5 (less for drawing without replacement): standard error below 0.0015
    assert float(accuracies.mean()) == pytest.approx(0.4, abs=0.006)
    assert set((accuracies * kept).unique().tolist()) <= set(map(float, range(kept + 1)))
    assert float(accuracies.max(0).values.mean()) > 0.6, "the bias that makes numbers incomparable"
    assert torch.equal(thin_samples(many, kept).train_correct, few.train_correct), "seeded"
    assert thin_samples(many, n) is many
    with pytest.raises(ValueError, match="50 samples"):
        thin_samples(many, 51)


def test_runs_are_compared_at_equal_numbers_of_samples() -> None:
    curves = learning_curves([run("a", 5), run("b", 20, 1)])
    assert {round(v * 5, 9) % 1 for v in curves[1].train_accuracies.flatten().tolist()} == {0.0}
    raw = learning_curves([run("a", 5), run("b", 20, 1)], equal_samples=False)
    assert any(math.fmod(round(v * 5, 9), 1) for v in raw[1].train_accuracies.flatten().tolist())
    without = TrackedRun("c", [1], 5, torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(DataError, match="no test samples"):
        learning_curves([without])
    with pytest.raises(DataError, match="no test samples"):
        write_recorded_runs([without], Path("x.npz"))


def test_meta_is_json_that_others_can_read(tmp_path: Path) -> None:
    write_recorded_runs([run()], tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
    assert meta == {"a": {"steps": [10, 20, 30], "samples_per_train_example": 5, "samples_per_test_example": 5}}
