"""Where a private mechanism's randomness comes from: a seed, to repeat, or the operating system, to publish."""

import os
from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from surefoot.training.distributed import is_distributed

__all__ = ("NoiseSource", "SecureNoise", "SeededNoise")


class NoiseSource(ABC):
    """Random numbers for one step of a mechanism; all ranks get the same ones."""

    @abstractmethod
    def normal(self, shape: tuple[int, ...], step: int) -> Tensor:
        """Return standard normal numbers, float64, on the CPU.

        Args:
            shape: Shape.
            step: Number of the step; each is asked for once.
        """

    @abstractmethod
    def poisson_sample(self, n_examples: int, rate: float, step: int) -> Tensor:
        """Return a step's examples, each sampled independently with probability ``rate``, ``(sampled,)``."""


class SeededNoise(NoiseSource):
    """Numbers that depend on seed and step alone: repeatable, resumable, no protection from who knows the seed."""

    def __init__(self, seed: int | None = None) -> None:
        """Initialize the source.

        Args:
            seed: Seed; the run's ``seed_everything`` by default, 0 outside the command line.
        """
        self.seed = seed or 0

    def _generator(self, step: int, purpose: int) -> torch.Generator:
        mixed = np.random.SeedSequence([self.seed, step, purpose]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))

    def normal(self, shape: tuple[int, ...], step: int) -> Tensor:
        """Return the step's noise."""
        return torch.randn(shape, generator=self._generator(step, 0), dtype=torch.float64)

    def poisson_sample(self, n_examples: int, rate: float, step: int) -> Tensor:
        """Return the step's examples."""
        if rate >= 1:
            return torch.arange(n_examples)
        chance = torch.rand(n_examples, generator=self._generator(step, 1), dtype=torch.float64)
        return (chance < rate).nonzero()[:, 0]


class SecureNoise(NoiseSource):
    """Numbers from the operating system's cryptographic generator: nobody can repeat them.

    A normal number is the sum of four, halved, each by Box and Muller from 53 random bits: attacks on the gaps between
    floating-point numbers then have to search a space squared twice (Holohan & Braghin, 2021, arXiv 2107.10138).
    """

    def _uniform(self, n: int) -> np.ndarray:
        bits = np.frombuffer(os.urandom(8 * n), np.uint64) >> np.uint64(11)
        return (bits.astype(np.float64) + 0.5) / 2.0**53

    def normal(self, shape: tuple[int, ...], step: int) -> Tensor:
        """Return fresh noise, the first rank's on every rank."""
        n = int(np.prod(shape))
        radius = np.sqrt(-2 * np.log(self._uniform(4 * n)))
        numbers = radius * np.cos(2 * np.pi * self._uniform(4 * n))
        return _of_first_rank(torch.from_numpy(numbers.reshape(4, n).sum(0) / 2).view(shape))

    def poisson_sample(self, n_examples: int, rate: float, step: int) -> Tensor:
        """Return fresh examples, the first rank's on every rank."""
        if rate >= 1:
            return torch.arange(n_examples)
        taken = torch.from_numpy((self._uniform(n_examples) < rate).astype(np.int64))
        return _of_first_rank(taken).nonzero()[:, 0]


def _of_first_rank(values: Tensor) -> Tensor:
    if is_distributed():
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        moved = values.to(device)
        dist.broadcast(moved, 0)
        values = moved.cpu()
    return values
