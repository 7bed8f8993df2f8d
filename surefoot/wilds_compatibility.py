"""What WILDS 2.0.0 needs to run beside current pandas, and without the compiled package torch_scatter.

WILDS' evaluators call one function of torch_scatter, a mean per index, which torch has had itself since 1.12. Its
CivilComments loader writes integers into a column of strings, which pandas 3 refuses for its new string type.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

__all__ = ("object_strings", "scatter", "torch_scatter_available")


def scatter(src: Tensor, index: Tensor, dim_size: int, reduce: str) -> Tensor:
    """Reduce values by index as ``torch_scatter.scatter`` does on vectors; an index that never occurs gives 0.

    Args:
        src: Values, ``(examples,)``.
        index: Place of each value, ``(examples,)``.
        dim_size: Number of places.
        reduce: ``mean``, ``sum``, ``amin`` or ``amax``.

    Returns:
        Reduced values, ``(dim_size,)``.
    """
    return src.new_zeros(dim_size).scatter_reduce(0, index, src, reduce, include_self=False)


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
