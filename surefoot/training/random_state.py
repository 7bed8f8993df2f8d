"""The state of every global random generator of a rank, in types that load without unpickling code."""

import random
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
import torch.distributed as dist
import torch.utils.serialization.config  # draws from `random` when first imported, which torch.save does
from torch import Tensor

from surefoot.training.distributed import is_distributed

__all__ = ("RandomState", "capture_random_state", "gather_random_states", "restore_random_state")


class RandomState(TypedDict):
    """The state of a rank's generators."""

    python: tuple[Any, ...]  # `random` does not say more of its own
    #: Name, keys, position, whether a Gaussian is kept, and which.
    numpy: tuple[str, Tensor, int, int, float]
    torch: Tensor
    cuda: NotRequired[Tensor]


def capture_random_state() -> RandomState:
    """Return the states of Python's, numpy's, torch's and this rank's CUDA generators."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: RandomState = {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: RandomState) -> None:
    """Put the generators back into a captured state."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gather_random_states() -> list[RandomState]:
    """Return every rank's state, in the order of the ranks."""
    if not is_distributed():
        return [capture_random_state()]
    mine = capture_random_state()
    states = [mine] * dist.get_world_size()
    dist.all_gather_object(states, mine)
    return states
