"""What every rank has to know of the others; without a process group there is one rank."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = (
    "gather_batch",
    "gather_rows",
    "is_distributed",
    "is_sharded",
    "local_slice",
    "sum_over_ranks",
    "whole_tensor",
)

Row = TypeVar("Row")


def is_distributed() -> bool:
    """Return whether more than one rank takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_sharded(module: nn.Module) -> bool:
    """Return whether each rank holds a part only of a module's parameters (FSDP)."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph; one that is sharded is put together, for which all ranks have to call this."""
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach()


def gather_batch(values: Tensor) -> Tensor:
    """Bring every rank's rows together in the order in which one rank would have them; no gradient flows.

    With `EpochSampler` ranks take examples in turn: row i of rank r was row ``i * ranks + r``.

    Args:
        values: This rank's rows, ``(batch, ...)``; every rank has the same number.

    Returns:
        All rows, ``(ranks * batch, ...)``; the argument, detached, where there is one rank.
    """
    values = values.detach()
    if not is_distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def local_slice(values: Tensor) -> Tensor:
    """Return this rank's rows of what `gather_batch` returned."""
    if not is_distributed():
        return values
    return values[dist.get_rank() :: dist.get_world_size()]


def gather_rows(rows: list[Row]) -> list[Row]:
    """Return all ranks' rows, rank by rank, on every rank; ranks may have different numbers of them.

    Args:
        rows: This rank's rows, of plain types.
    """
    if not is_distributed():
        return rows
    parts: list[list[Row]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor of the same shape over all ranks; a new tensor comes back."""
    if not is_distributed():
        return values
    on_gpu = dist.get_backend() == "nccl"  # which moves nothing but tensors on a GPU
    total = values.to("cuda") if on_gpu and not values.is_cuda else values.clone()
    dist.all_reduce(total)
    return total.to(values.device)
