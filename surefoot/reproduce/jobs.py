"""Many training runs and calls side by side, one thread each; training runs go through ``main()`` and are done once."""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from surefoot.errors import SurefootError
from surefoot.report.runs import read_metrics, read_selection
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured
from surefoot.reproduce.workers import call_side_by_side
from surefoot.storage.json_files import fingerprint, read_json, write_json

__all__ = (
    "QUIET",
    "Job",
    "Result",
    "changed",
    "component",
    "measure_rows",
    "run_calls",
    "run_jobs",
    "run_named_jobs",
    "seconds_of",
    "slug",
)

#: Settings of a trainer that runs beside others.
QUIET: Mapping[str, object] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}

Found = TypeVar("Found")
Name = TypeVar("Name", bound=Hashable)


class Job(NamedTuple):
    """One training run."""

    name: str
    settings: Mapping[str, object]  # what a config file would say
    test: bool = False  # whether the trained model is tested, with the shifted sets of its data


class Result(NamedTuple):
    """What a run measured."""

    selection: Mapping[str, Mapping[str, float]]  # rule -> quantities at the chosen epoch
    last: Mapping[str, float]  # last value of every logged quantity
    history: Mapping[str, list[float]]  # every logged value, in order
    folder: str = ""  # the run folder
    test_folder: str | None = None  # the run folder of the test
    seconds: float = 0.0  # that it took, in a process of its own


def component(class_path: str, /, **init_args: object) -> dict[str, object]:
    """Return an object as a config describes it, by its class and its arguments."""
    return {"class_path": class_path, "init_args": init_args}


def changed(described: Mapping[str, Any], **init_args: object) -> dict[str, object]:
    """Return such a description with other arguments."""
    return component(described["class_path"], **{**described.get("init_args", {}), **init_args})


def slug(text: str) -> str:
    """Return a name that is good for files."""
    return "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_")


def seconds_of(results: Iterable[Result]) -> float:
    """Return the work behind some results, in seconds, summed over processes."""
    return sum(result.seconds for result in results)


def run_jobs(jobs: Sequence[Job], out: Path) -> dict[str, Result]:
    """Run all jobs and return their results by name; what an earlier call finished is only read.

    Args:
        jobs: Runs with distinct names.
        out: Folder for configs and run folders.

    Returns:
        Name -> result.

    Raises:
        SurefootError: If a run fails.
    """
    if len({job.name for job in jobs}) != len(jobs):
        raise ValueError("jobs must have distinct names.")
    results = {job.name: found for job in jobs if (found := _finished(job, out)) is not None}
    missing = {job.name: (job, out) for job in jobs if job.name not in results}
    results |= call_side_by_side(_run, missing, "training runs")
    return {job.name: results[job.name] for job in jobs}


def run_named_jobs(jobs: Mapping[Name, Job], out: Path) -> dict[Name, Result]:
    """Run all jobs and return their results by the names that they are given here; see `run_jobs`."""
    found = run_jobs([*jobs.values()], out)
    return {name: found[job.name] for name, job in jobs.items()}


def run_calls(
    work: Callable[..., Found], arguments: Mapping[Name, tuple[object, ...]], side_by_side: bool = True
) -> tuple[dict[Name, Found], float]:
    """Return a function's values for many arguments, and the seconds of work.

    Args:
        work: A function of a module.
        arguments: Name -> arguments.
        side_by_side: Whether to use a process per core; otherwise this process, where there is little to do.

    Returns:
        Name -> value, and seconds, summed over processes.

    Raises:
        SurefootError: If a call in another process fails.
    """
    if side_by_side:
        timed = call_side_by_side(_timed, {name: (work, given) for name, given in arguments.items()}, work.__name__)
    else:
        timed = {name: _timed(work, given) for name, given in arguments.items()}
    return {name: timed[name][0] for name in arguments}, sum(seconds for _, seconds in timed.values())


def measure_rows(
    table: str,
    work: Callable[..., Rows],
    arguments: Mapping[Name, tuple[object, ...]],
    side_by_side: bool = True,
) -> Measured:
    """Return one table of the rows that a function returns for many arguments, in their order; see `run_calls`."""
    found, seconds = run_calls(work, arguments, side_by_side)
    return Measured({table: [row for rows in found.values() for row in rows]}, {table: seconds})


def _timed(work: Callable[..., Found], arguments: Sequence[object]) -> tuple[Found, float]:
    started = time.monotonic()
    return work(*arguments), time.monotonic() - started


def _run(job: Job, out: Path) -> Result:
    """Train one job in this process, and test it where asked to."""
    import yaml

    from surefoot.cli import main

    started = time.monotonic()
    config = out / "configs" / f"{job.name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(job.settings), sort_keys=False))
    common = ["--config", str(config), "--runs_root", str(out / "runs")]
    main(["fit", *common])
    folder = out / "runs" / job.name / "latest"
    result = _read_run(folder)._replace(folder=f"runs/{job.name}/latest")
    if job.test:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        name = f"{job.name}-test"
        given = ["--experiment", name, "--ckpt_path", str(checkpoint), "--verbose", "false"]
        main(["test", *common, *given])
        result = result._replace(test_folder=f"runs/{name}/latest")
    result = result._replace(seconds=round(time.monotonic() - started, 1))
    cached = _cached(job, out)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_json(cached, result._asdict())  # with folders below `out`, which may be moved
    return _located(result, out)


def _cached(job: Job, out: Path) -> Path:
    """Return where a job's result is kept."""
    key = fingerprint({**job.settings, "test": True} if job.test else job.settings)
    return out / "results" / f"{key}.json"


def _finished(job: Job, out: Path) -> Result | None:
    """Return the result that an earlier call has kept, where its run folders are still there.

    Raises:
        SurefootError: If what was kept is damaged.
    """
    path = _cached(job, out)
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.keys() != set(Result._fields):
        raise SurefootError(f"{path} is no result of a training run: remove it, and the run is done again.")
    result = _located(Result(**found), out)
    folders = [folder for folder in (result.folder, result.test_folder) if folder is not None]
    return result if all(Path(folder).is_dir() for folder in folders) else None


def _located(result: Result, out: Path) -> Result:
    """Return a result with the paths of its run folders, which are kept as they are below ``out``."""
    test_folder = None if result.test_folder is None else str(out / result.test_folder)
    return result._replace(folder=str(out / result.folder), test_folder=test_folder)


def _read_run(folder: Path) -> Result:
    """Read what a run folder recorded."""
    history = read_metrics(folder)
    last = {name: values[-1] for name, values in history.items() if not math.isnan(values[-1])}
    return Result(read_selection(folder), last, history)
