"""Many training runs through the command line's own ``main()``, side by side, each done once."""

import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.errors import SurefootError
from surefoot.report.runs import read_metrics, read_selection
from surefoot.runs import fingerprint, read_json, write_json

__all__ = ("Job", "Result", "run_jobs")


class Job(NamedTuple):
    """One training run."""

    name: str
    settings: Mapping[str, Any]  # what a config file would say


class Result(NamedTuple):
    """What a run measured."""

    selection: Mapping[str, Mapping[str, float]]  # rule -> quantities at the chosen epoch
    last: Mapping[str, float]  # last value of every logged quantity
    history: Mapping[str, list[float]]  # every logged value, in order


def run_jobs(jobs: Sequence[Job], out: Path, n_workers: int | None = None) -> dict[str, Result]:
    """Run all jobs and return their results by name; what an earlier call finished is only read.

    Args:
        jobs: Runs with distinct names.
        out: Folder for configs and run folders.
        n_workers: Processes, one thread each; one per core by default.

    Returns:
        Name -> result.

    Raises:
        SurefootError: If a run fails.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    if len({job.name for job in jobs}) != len(jobs):
        raise ValueError("jobs must have distinct names.")
    results = {}
    n_workers = n_workers or len(os.sched_getaffinity(0))
    context = get_context("spawn")
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        ProcessPoolExecutor(n_workers, context, _prepare_worker) as pool,
        Progress(*columns) as bar,
    ):
        task = bar.add_task("training runs", total=len(jobs))
        futures = {pool.submit(_run, job, out): job for job in jobs}
        for future in as_completed(futures):
            job = futures[future]
            try:
                results[job.name] = future.result()
            except Exception as error:
                pool.shutdown(cancel_futures=True)
                raise SurefootError(f"run {job.name!r} failed: {error}") from error
            bar.advance(task)
    return {job.name: results[job.name] for job in jobs}


def _prepare_worker() -> None:
    """Keep a worker to one thread and quiet."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)


def _run(job: Job, out: Path) -> Result:
    """Train one job in this process, unless its run folder is finished."""
    import yaml

    from surefoot.cli import main

    key = fingerprint(job.settings)
    cached = out / "results" / f"{key}.json"
    if not cached.is_file():
        config = out / "configs" / f"{job.name}.yaml"
        for folder in (cached.parent, config.parent):
            folder.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(dict(job.settings), sort_keys=False))
        main(["fit", "--config", str(config), "--runs_root", str(out / "runs")])
        write_json(cached, _read_run(out / "runs" / job.name / "latest")._asdict())
    return Result(**read_json(cached))


def _read_run(folder: Path) -> Result:
    """Read what a run folder recorded."""
    history = read_metrics(folder)
    last = {name: values[-1] for name, values in history.items() if not math.isnan(values[-1])}
    return Result(read_selection(folder), last, history)
