"""Let every process that another library starts import ``surefoot`` before anything else.

vLLM imports torchvision in its engines and workers, in the servers that it is started as, and in a process that it asks
about a model's class before any of them; beside a CPU build of torch, torchvision imports only after ``surefoot``. What
starts them, and how, is vLLM's own affair: what reaches all of them and their children is Python's ``sitecustomize``,
found through their ``PYTHONPATH``.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ("importing_surefoot", "starting_with_surefoot")

_AT_START = str(Path(__file__).with_name("at_start"))


def importing_surefoot(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that imports ``surefoot`` first, as its children will."""
    others = (p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", _AT_START))
    return {**environment, "PYTHONPATH": os.pathsep.join((_AT_START, *others))}


@contextmanager
def starting_with_surefoot() -> Iterator[None]:
    """Let the processes that are started meanwhile import ``surefoot`` first, as their children will."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = importing_surefoot(os.environ)["PYTHONPATH"]
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before
