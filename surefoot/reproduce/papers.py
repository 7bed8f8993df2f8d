"""A paper: what is run, what is claimed, what is drawn."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from surefoot import reproduce
from surefoot.errors import SurefootError
from surefoot.reproduce.claims import ClaimDefinition, Scale
from surefoot.reproduce.results import Results
from surefoot.reproduce.running import Run

__all__ = ("Paper", "claims_in", "load_paper", "paper_ids")

_SHARED = "tasks"  # folders are papers, but this one


@dataclass(frozen=True)
class Paper:
    """One folder: runs that write tables, claims and figures that read them."""

    id: str  # the folder's name
    title: str
    reference: str
    run: Callable[[Run], None]  # writes tables
    claims: Sequence[ClaimDefinition]
    figures: Sequence[Callable[[Results, Path], None]]  # each draws from tables into a folder
    default_seeds: Mapping[Scale, int] = field(default_factory=lambda: {"quick": 1, "laptop": 5, "paper": 5})
    seed_budget: int | None = None  # undecided claims get up to so many times as many seeds; none: no more
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # flag -> argparse arguments


def claims_in(*modules: ModuleType) -> list[ClaimDefinition]:
    """Return the claims of modules, in the order in which they are written."""
    return [value for module in modules for value in vars(module).values() if isinstance(value, ClaimDefinition)]


def paper_ids() -> list[str]:
    """Return the ids of all papers, which are their folders' names."""
    folders = (module.name for module in pkgutil.iter_modules(reproduce.__path__) if module.ispkg)
    return sorted(name for name in folders if name != _SHARED)


def load_paper(name: str) -> Paper:
    """Return a paper.

    Raises:
        SurefootError: If there is none of that name.
    """
    if name not in paper_ids():
        raise SurefootError(f"no paper {name!r}; there are {', '.join(paper_ids())}.")
    paper: Paper = importlib.import_module(f"surefoot.reproduce.{name}").PAPER
    return paper
