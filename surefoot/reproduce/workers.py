"""Processes that work side by side, one thread each, and stay for what comes next."""

import logging
import warnings
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import active_children, get_context
from typing import TypeVar

from surefoot.errors import SurefootError
from surefoot.processes import die_with_parent, n_cores

__all__ = ("call_side_by_side", "end_workers")

Found = TypeVar("Found")
Name = TypeVar("Name", bound=Hashable)


@cache
def _workers() -> ProcessPoolExecutor:
    """Return the processes that work side by side: up to one per core, each kept for what comes next."""
    return ProcessPoolExecutor(n_cores(), get_context("spawn"), _prepare_worker)


def end_workers(at_once: bool = False) -> None:
    """End the processes that worked side by side, and cancel what they have not begun.

    Args:
        at_once: Whether they are asked to stop what they do, as this process was; training leaves a checkpoint.
    """
    if _workers.cache_info().currsize:
        pool = _workers()
        _workers.cache_clear()
        pool.shutdown(wait=False, cancel_futures=True)
        if at_once:
            for worker in active_children():
                worker.terminate()
        pool.shutdown()


def call_side_by_side(
    work: Callable[..., Found], arguments: Mapping[Name, tuple[object, ...]], label: str
) -> dict[Name, Found]:
    """Call a function in processes of their own, one thread each, under a progress bar.

    Args:
        work: A function of a module.
        arguments: Name -> arguments.
        label: Of the progress bar.

    Returns:
        Name -> value, in the order in which calls end.

    Raises:
        SurefootError: If a call fails, or its process dies; what has not begun is cancelled.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    if not arguments:
        return {}
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    found = {}
    with Progress(*columns) as bar:
        task = bar.add_task(label, total=len(arguments))
        futures = {_workers().submit(work, *given): name for name, given in arguments.items()}
        for future in as_completed(futures):
            name = futures[future]
            try:
                found[name] = future.result()
            except Exception as error:
                end_workers()
                raise SurefootError(f"run {name!r} failed: {error}") from error
            bar.advance(task)
    return found


def _prepare_worker() -> None:
    """Keep a worker to one thread and quiet, and let it end with the process that started it."""
    die_with_parent()
    import torch

    import surefoot.cli.training  # noqa: F401 - most work needs it: all import it at once, not each at its first run

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
