"""Groups of examples: indices from attributes, and statistics per group; groups may overlap."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ("combine_attributes", "group_counts", "group_means", "group_names", "membership")


def membership(group: Tensor, n_groups: int) -> Bool[Tensor, "batch groups"]:
    """Return which groups each example belongs to.

    Args:
        group: Group index per example ``(batch,)``, or membership ``(batch, groups)`` where groups overlap.
        n_groups: Number of groups.

    Returns:
        True where the example is in the group, ``(batch, groups)``.

    Raises:
        ValueError: If the shape is neither of the two or an index is outside ``[0, n_groups)``.
    """
    if group.ndim == 2 and group.shape[1] == n_groups:
        return group.bool()
    if group.ndim != 1:
        raise ValueError(f"group must have shape (batch,) or (batch, {n_groups}), got {tuple(group.shape)}.")
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < n_groups:
        raise ValueError(f"group indices must be in [0, {n_groups}), got {int(group.min())} to {int(group.max())}.")
    return group[:, None] == torch.arange(n_groups, device=group.device)


def group_counts(group: Int[Tensor, " batch"], n_groups: int) -> Int[Tensor, " groups"]:
    """Count the examples of each group, ``(groups,)``."""
    return torch.zeros(n_groups, dtype=torch.long, device=group.device).index_add(
        0, group, torch.ones_like(group, dtype=torch.long)
    )


def group_means(
    values: Float[Tensor, " batch"], group: Int[Tensor, " batch"], n_groups: int
) -> Float[Tensor, " groups"]:
    """Average values within each group; an absent group averages to zero, ``(groups,)``."""
    sums = values.new_zeros(n_groups).index_add(0, group, values)
    return sums / group_counts(group, n_groups).clamp_min(1)


def combine_attributes(columns: Sequence[Int[Tensor, " batch"]], sizes: Sequence[int]) -> Int[Tensor, " batch"]:
    """Number the combinations of several attributes; the last attribute varies fastest.

    Args:
        columns: One attribute each, values in ``[0, size)``, ``(batch,)``.
        sizes: Number of values of each attribute.

    Returns:
        Group index in ``[0, prod(sizes))``, ``(batch,)``.

    Raises:
        ValueError: If the numbers of columns and sizes differ.
    """
    if len(columns) != len(sizes) or not columns:
        raise ValueError(f"one size per column expected, got {len(columns)} columns and {len(sizes)} sizes.")
    group = torch.zeros_like(columns[0])
    for column, size in zip(columns, sizes, strict=True):
        group = group * size + column
    return group


def group_names(attributes: Sequence[tuple[str, int]]) -> list[str]:
    """Name the combinations of attributes in the order of `combine_attributes`: ``"y=0,a=1"``."""
    names = [""]
    for attribute, size in attributes:
        names = [f"{name},{attribute}={value}" for name in names for value in range(size)]
    return [name.removeprefix(",") for name in names]
