"""Recorded runs: which training and test examples a fine-tuning run solved at its checkpoints, in one schema.

Two forms on disk hold the same:

- ``NAME.npz``, many runs: ``meta`` is JSON, run -> ``steps`` of the checkpoints, ``samples_per_train_example`` and
  ``samples_per_test_example``; per run ``RUN/train_correct`` (checkpoints, examples), ``RUN/train_perplexity`` (the
  same) and ``RUN/test_correct`` (checkpoints, test examples). Counts are numbers of correct samples.
- A folder that ``MemorizationTracker`` wrote, one run: ``step-00000120.parquet`` per checkpoint, a row per example.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.errors import DataError
from surefoot.reasoning.metrics.memorization import LearningCurves

__all__ = (
    "COLUMNS",
    "TrackedRun",
    "checkpoint_path",
    "checkpoint_step",
    "learning_curves",
    "read_record",
    "read_recorded_runs",
    "thin_samples",
    "write_checkpoint",
    "write_recorded_runs",
)

#: Columns of a checkpoint's rows; ``perplexity`` (of the reference trace) is null for test examples, ``greedy_logprob``
#: (of the greedy answer, nats) where it was not asked for.
COLUMNS = (
    "split",
    "id",
    "step",
    "epoch",
    "n_samples",
    "n_correct",
    "perplexity",
    "greedy_logprob",
)


@dataclass(frozen=True)
class TrackedRun:
    """One run's counts of correct samples."""

    name: str
    steps: list[int]  # optimizer steps at the checkpoints
    n_train_samples: int  # per training example and checkpoint
    train_correct: Tensor  # counts, (checkpoints, examples)
    train_perplexities: Tensor  # of the reference trace, (checkpoints, examples)
    n_test_samples: int = 0
    test_correct: Tensor | None = None  # counts, (checkpoints, test examples)
    train_ids: list[str] = field(default_factory=list)  # where they are known
    greedy_logprobs: Tensor | None = None  # of greedy answers, nats, (checkpoints, examples)
    n_dropped: int = 0  # examples that were missing at some checkpoint, and are left out

    @property
    def train_accuracies(self) -> Tensor:
        """Share of correct samples, ``(checkpoints, examples)``."""
        return self.train_correct.double() / self.n_train_samples

    def curves(self) -> LearningCurves:
        """Return what the metrics need.

        Raises:
            DataError: If the run has no test samples.
        """
        if self.test_correct is None:
            raise DataError(f"the recorded run {self.name} has no test samples.")
        test = self.test_correct.double().mean(1) / self.n_test_samples
        return LearningCurves(self.name, self.train_accuracies, self.train_perplexities.double(), test)


def read_recorded_runs(path: Path) -> list[TrackedRun]:
    """Return the runs of an .npz file, of a tracker's folder, or of all trackers' folders below a folder.

    Raises:
        DataError: If there is nothing there, or it is damaged; what is wrong is named.
    """
    if path.is_dir():
        if any(path.glob("step-*.parquet")):
            return [read_record(path, path.parent.name)]
        folders = sorted({p.parent for p in path.rglob("step-*.parquet")})
        if not folders:
            raise DataError(f"{path} holds no recorded run: expected step-*.parquet files below.")
        return [read_record(f, str(f.parent.relative_to(path))) for f in folders]
    if not path.is_file():
        raise DataError(f"{path} does not exist: expected an .npz file or a folder of records.")
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        pickled = "allow_pickle" in str(error)  # numpy's advice is to load it all the same
        reason = "no numpy file, or one with pickled objects" if pickled else error
        raise DataError(f"{path} cannot be read as .npz: {reason}.") from error
    return _from_arrays(arrays, path)


def _from_arrays(arrays: Mapping[str, object], path: Path) -> list[TrackedRun]:
    try:
        meta = json.loads(str(arrays["meta"]))
        described = {str(name): dict(about) for name, about in meta.items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} has no entry `meta` with JSON that describes its runs.") from error
    if not described:
        raise DataError(f"{path} describes no run.")
    return [_one_run(name, about, arrays, path) for name, about in described.items()]


def _one_run(name: str, about: Mapping[str, Any], arrays: Mapping[str, object], path: Path) -> TrackedRun:
    def array(key: str) -> Tensor:
        full = f"{name}/{key}"
        if full not in arrays:
            raise DataError(f"{path} lacks the array {full}.")
        values = np.asarray(arrays[full])
        if values.ndim != 2 or values.dtype.kind not in "uif":
            raise DataError(f"{path}: {full} must be numbers of two dimensions, is {values.dtype} {values.shape}.")
        return torch.from_numpy(values.astype(np.float64))

    try:
        steps = [int(s) for s in about["steps"]]
        n_train, n_test = (int(about[f"samples_per_{s}_example"]) for s in ("train", "test"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the run {name} needs steps, samples_per_train_example and samples_per_test_example in `meta`."
        ) from error
    run = TrackedRun(
        name,
        steps,
        n_train,
        array("train_correct"),
        array("train_perplexity"),
        n_test,
        array("test_correct"),
    )
    _check(run, str(path))
    return run


def _check(run: TrackedRun, where: str) -> None:
    """Raise a `DataError` if counts and shapes do not fit together."""
    shape = run.train_correct.shape
    if shape != run.train_perplexities.shape or shape[0] != len(run.steps) or 0 in shape:
        raise DataError(
            f"{where}: the run {run.name} has {len(run.steps)} steps, train_correct {tuple(shape)} and"
            f" train_perplexity {tuple(run.train_perplexities.shape)}: expected (checkpoints, examples) both."
        )
    parts = [("train", run.train_correct, run.n_train_samples)]
    if run.test_correct is not None:
        if run.test_correct.shape[0] != len(run.steps) or 0 in run.test_correct.shape:
            raise DataError(
                f"{where}: the run {run.name} has {len(run.steps)} steps and test_correct"
                f" {tuple(run.test_correct.shape)}."
            )
        parts.append(("test", run.test_correct, run.n_test_samples))
    for split, counts, n in parts:
        if n < 1 or not bool(((counts >= 0) & (counts <= n)).all()):
            raise DataError(
                f"{where}: the run {run.name} counts {float(counts.min()):g} to {float(counts.max()):g} correct"
                f" of {n} {split} samples."
            )


def write_recorded_runs(runs: Sequence[TrackedRun], path: Path) -> None:
    """Write runs as one .npz file; example ids are not in that form.

    Raises:
        DataError: If a run has no test samples, or there are more than 65,535 samples per example.
    """
    meta: dict[str, object] = {}
    arrays: dict[str, Any] = {}
    for run in runs:
        if run.test_correct is None:
            raise DataError(f"the recorded run {run.name} has no test samples.")
        meta[run.name] = {
            "steps": run.steps,
            "samples_per_train_example": run.n_train_samples,
            "samples_per_test_example": run.n_test_samples,
        }
        counts = np.uint8 if max(run.n_train_samples, run.n_test_samples) < 256 else np.uint16
        arrays[f"{run.name}/train_correct"] = run.train_correct.numpy().astype(counts)
        arrays[f"{run.name}/train_perplexity"] = run.train_perplexities.numpy().astype(np.float32)
        arrays[f"{run.name}/test_correct"] = run.test_correct.numpy().astype(counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)
    temporary.replace(path)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the file of a checkpoint's rows."""
    return folder / f"step-{step:08d}.parquet"


def checkpoint_step(path: Path) -> int:
    """Return the step of such a file."""
    return int(path.stem.removeprefix("step-"))


def write_checkpoint(folder: Path, step: int, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a checkpoint's rows so that a reader never sees half of them."""
    import pyarrow as pa
    from pyarrow import parquet

    texts, floats = ("split", "id"), ("perplexity", "greedy_logprob")
    types = {n: pa.string() for n in texts} | {n: pa.float64() for n in floats}
    schema = pa.schema([(name, types.get(name, pa.int64())) for name in COLUMNS])
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, step)
    temporary = path.with_suffix(".part")
    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
    temporary.replace(path)


def read_record(folder: Path, name: str) -> TrackedRun:
    """Return a tracker's record.

    Examples are lined up by their ids, whatever their order was; those that were not measured at every checkpoint are
    left out and counted in ``n_dropped``.

    Args:
        folder: Folder with ``step-*.parquet``.
        name: Name of the run.

    Raises:
        DataError: If there is no checkpoint, a file is damaged, no example was measured at all of them, an example
            occurs twice, or the number of samples changes within the run.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables: dict[int, list[dict[str, object]]] = {}
    for path in sorted(folder.glob("step-*.parquet")):
        try:
            tables[checkpoint_step(path)] = parquet.read_table(path).select(list(COLUMNS)).to_pylist()
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    if not tables:
        raise DataError(f"{folder} holds no step-*.parquet of a memorization record.")
    train, n_train, train_ids, n_dropped = _line_up(tables, "train", folder)
    test, n_test, _, _ = _line_up(tables, "test", folder)
    if not train_ids:
        raise DataError(f"{folder}: no training example was measured at every checkpoint.")
    run = TrackedRun(
        name,
        sorted(tables),
        n_train,
        _matrix(train, "n_correct"),
        _matrix(train, "perplexity"),
        n_test,
        _matrix(test, "n_correct") if test and test[0] else None,
        train_ids,
        None if any(r["greedy_logprob"] is None for r in train[0]) else _matrix(train, "greedy_logprob"),
        n_dropped,
    )
    _check(run, str(folder))
    return run


def _matrix(rows: Sequence[Sequence[Mapping[str, Any]]], column: str) -> Tensor:
    values = [[float("nan") if r[column] is None else float(r[column]) for r in line] for line in rows]
    return torch.tensor(values, dtype=torch.float64)


def _line_up(
    tables: Mapping[int, Sequence[Mapping[str, object]]], split: str, folder: Path
) -> tuple[list[list[Mapping[str, object]]], int, list[str], int]:
    """Return a split's rows at each checkpoint in one order, samples per example, ids, and how many were left out."""
    by_step: list[dict[str, Mapping[str, Any]]] = []
    for step in sorted(tables):
        rows = [r for r in tables[step] if r["split"] == split]
        by_id = {str(r["id"]): r for r in rows}
        if len(by_id) < len(rows):
            raise DataError(f"{checkpoint_path(folder, step)}: a {split} example occurs twice.")
        by_step.append(by_id)
    ids = [i for i in by_step[0] if all(i in rows for rows in by_step)]
    n_known = len({i for rows in by_step for i in rows})
    sizes = {int(rows[i]["n_samples"]) for rows in by_step for i in ids}
    if len(sizes) > 1:
        raise DataError(
            f"{folder}: {split} examples have {min(sizes)} to {max(sizes)} samples; one number is needed within a run."
        )
    lined_up = [[rows[i] for i in ids] for rows in by_step]
    return lined_up, next(iter(sizes), 0), ids, n_known - len(ids)


def thin_samples(run: TrackedRun, n_samples: int, seed: int = 0) -> TrackedRun:
    """Return a run as if fewer samples had been drawn per training example.

    The running maximum of noisy accuracies is biased upwards, more so with few samples: runs are compared at equal
    numbers. Of each example's samples ``n_samples`` are kept at random, without replacement.

    Args:
        run: A run with at least so many samples.
        n_samples: Samples to keep.
        seed: Seed of the choice.

    Raises:
        ValueError: If the run has fewer.
    """
    n = run.n_train_samples
    if not 1 <= n_samples <= n:
        raise ValueError(f"{run.name} has {n} samples per example, not {n_samples}.")
    if n_samples == n:
        return run
    correct = run.train_correct.long().numpy()
    kept = np.random.default_rng(seed).hypergeometric(correct, n - correct, n_samples)
    return replace(run, n_train_samples=n_samples, train_correct=torch.from_numpy(kept.astype(np.float64)))


def learning_curves(runs: Iterable[TrackedRun], equal_samples: bool = True, seed: int = 0) -> list[LearningCurves]:
    """Return runs' curves, by default thinned to the smallest number of samples per training example.

    Raises:
        DataError: If a run has no test samples.
    """
    runs = list(runs)
    smallest = min((r.n_train_samples for r in runs), default=0)
    return [(thin_samples(r, smallest, seed) if equal_samples else r).curves() for r in runs]
