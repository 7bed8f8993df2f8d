"""What WILDS 2.0.0 needs to run beside current pandas, and without the compiled package torch_scatter.

WILDS' evaluators call one function of torch_scatter, a mean per index, which torch has had itself since 1.12. Its
CivilComments loader writes integers into a column of strings, which pandas 3 refuses for its new string type. Its
import starts a thread that asks a server on the internet for a newer version.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

__all__ = ("import_wilds", "object_strings", "scatter", "torch_scatter_available")


def scatter(src: Tensor, index: Tensor, dim_size: int, reduce: str) -> Tensor:
    """Reduce values by index as ``torch_scatter.scatter`` does on vectors; an index that never occurs gives 0.

    Args:
        src: Values, ``(examples,)``.
        index: Position to which each value goes, ``(examples,)``.
        dim_size: Number of positions.
        reduce: ``mean``, ``sum``, ``amin`` or ``amax``.

    Returns:
        Reduced values, ``(dim_size,)``.
    """
    return src.new_zeros(dim_size).scatter_reduce(0, index, src, reduce, include_self=False)


def import_wilds() -> ModuleType:
    """Import WILDS without its question to the internet, which it skips where the package ``outdated`` is missing."""
    if "wilds" not in sys.modules:
        hidden = sys.modules.get("outdated")
        sys.modules["outdated"] = None  # type: ignore[assignment]
        try:
            import_module("wilds")
        finally:
            del sys.modules["outdated"]
            if hidden is not None:
                sys.modules["outdated"] = hidden
    return sys.modules["wilds"]


@contextmanager
def torch_scatter_available() -> Iterator[None]:
    """Stand in for torch_scatter where it is not installed."""
    if "torch_scatter" in sys.modules or find_spec("torch_scatter") is not None:
        yield
        return
    stand_in = ModuleType("torch_scatter")
    stand_in.scatter = scatter  # type: ignore[attr-defined]
    sys.modules["torch_scatter"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torch_scatter"]


@contextmanager
def object_strings() -> Iterator[None]:
    """Let pandas read text as Python objects, as it did before version 3."""
    import pandas as pd

    with pd.option_context("future.infer_string", False):
        yield
