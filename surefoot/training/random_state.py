"""The state of every global random generator of a rank, in types that load without unpickling code."""

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.utils.serialization.config  # draws from `random` when first imported, which torch.save does

from surefoot.training.distributed import is_distributed

__all__ = ("capture_random_state", "gather_random_states", "restore_random_state")


def capture_random_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's, torch's and this rank's CUDA generators."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
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


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators back into a captured state."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gather_random_states() -> list[dict[str, Any]]:
    """Return every rank's state, in the order of the ranks."""
    if not is_distributed():
        return [capture_random_state()]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, capture_random_state())
    return states
