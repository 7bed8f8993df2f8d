"""Poisson sampling: every example is in a step independently with the same probability, as amplification assumes."""

from typing import Any

import torch.distributed as dist
from torch.utils.data import Dataset

from surefoot.privacy.noise import NoiseSource
from surefoot.training.distributed import is_distributed

__all__ = ("PoissonBatches",)


class PoissonBatches(Dataset[object]):
    """Item i is the batch of step i. Ranks share a step's examples: together they have one rank's batch."""

    def __init__(self, examples: Any, rate: float, source: NoiseSource) -> None:
        """Initialize the batches.

        Args:
            examples: Dataset that gathers a batch of indices at once (``__getitems__``).
            rate: Chance of each example to be in a step, in (0, 1].
            source: Where the samples come from.
        """
        self.examples, self.rate, self.source = examples, rate, source

    def __getitem__(self, step: int) -> object:
        """Return this rank's examples of a step."""
        rows = self.source.poisson_sample(len(self.examples), self.rate, step)
        if is_distributed():
            rows = rows[dist.get_rank() :: dist.get_world_size()]
        return self.examples.__getitems__(rows.tolist())
