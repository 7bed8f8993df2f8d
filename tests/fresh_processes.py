"""Processes for code that kills itself, forked from one that has imported everything and run nothing."""

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ("FORK_SERVER", "Ended", "run_fresh")

ROOT = Path(__file__).parents[1]
#: Starts processes that have imported everything.
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(
    ["fresh_processes", "lightning_modules", "datamodules", "callbacks", "surefoot.cli.training"]
)


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # the signal's number below 0 where one killed it
    errors: str  # what it wrote to stderr


def run_fresh(
    code: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    seconds: float | None = None,
) -> Ended:
    """Run ``python -W ignore -c CODE ARGUMENTS...`` without the seconds that its imports take.

    Args:
        code: A program; it finds the project's packages and the tests' modules.
        arguments: Its arguments.
        environment: Added to this process's.
        folder: Where it runs.
        seconds: When it is killed; never by default.
    """
    with tempfile.NamedTemporaryFile() as errors:
        process = FORK_SERVER.Process(
            target=_run, args=(code, list(arguments), dict(environment or {}), str(folder), errors.name)
        )
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, Path(errors.name).read_text(errors="replace"))


def _run(code: str, arguments: list[str], environment: dict[str, str], folder: str, errors: str) -> None:
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    sys.argv = ["-c", *arguments]
    warnings.simplefilter("ignore")
    exec(compile(code, "<fresh process>", "exec"), {"__name__": "__main__"})  # noqa: S102  a test's own program
