"""Poisson sampling: every example is in a step independently with the same probability, as amplification assumes."""

from typing import Protocol, runtime_checkable

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from surefoot.privacy.noise import NoiseSource
from surefoot.training.distributed import is_distributed

__all__ = ("GatheredExamples", "PoissonBatches")


@runtime_checkable
class GatheredExamples(Protocol):
    """A dataset that gathers a batch at once."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return a batch, ``(batch, ...)`` each; it may be empty."""


class PoissonBatches(Dataset[dict[str, Tensor]]):
    """Item i is the batch of step i. Ranks share a step's examples: together they have one rank's batch."""

    def __init__(self, examples: GatheredExamples, rate: float, source: NoiseSource) -> None:
        """Initialize the batches.

        Args:
            examples: The private examples.
            rate: Chance of each example to be in a step, in (0, 1].
            source: Where the samples come from.
        """
        self.examples, self.rate, self.source = examples, rate, source

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return this rank's examples of a step."""
        rows = self.source.poisson_sample(len(self.examples), self.rate, step)
        if is_distributed():
            rows = rows[dist.get_rank() :: dist.get_world_size()]
        return self.examples.__getitems__(rows.tolist())
