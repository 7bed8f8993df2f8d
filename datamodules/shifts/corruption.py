"""Corrupted images at graded strengths."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from datamodules.shifts.base import Shift, ShiftedData, changed
from datamodules.splits import Split
from surefoot.classification.shifts import CORRUPTIONS, corrupt
from surefoot.errors import ConfigError

__all__ = ("Corruption",)


class Corruption(Shift):
    """Images of the evaluated split, corrupted; sets ``<kind>_1`` (mildest) to ``<kind>_5``."""

    def __init__(self, kind: str, strengths: Sequence[float] | None = None, seed: int = 0) -> None:
        """Initialize the corruption.

        Args:
            kind: ``noise``, ``impulse``, ``blur``, ``contrast``, ``rotation``, ``occlusion``, ``pixelation``,
                ``brightness`` or ``unclipped_noise``.
            strengths: Strength of each level; the five usual ones by default.
            seed: Seed of what is random.

        Raises:
            ConfigError: If there is no such corruption or a strength is out of range.
        """
        if kind not in CORRUPTIONS:
            raise ConfigError(f"no corruption {kind!r}; there are {', '.join(CORRUPTIONS)}.")
        self.kind, self.seed = kind, seed
        self.strengths = CORRUPTIONS[kind].strengths if strengths is None else tuple(strengths)
        for strength in self.strengths:  # refuses what is out of range
            corrupt(torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.long), kind, strength)

    def sets(self, data: ShiftedData, split: str) -> dict[str, Split]:
        """Return one set per strength, with the split's targets and groups."""

        def change(strength: float, images: Tensor, index: Tensor) -> Tensor:
            if not isinstance(images, Tensor) or images.ndim != 4:
                given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ConfigError(f"a corruption needs images (batch, channels, height, width), got {given}.")
            scale = 255.0 if images.dtype == torch.uint8 else 1.0
            return scale * corrupt(images / scale, index, self.kind, strength, self.seed)

        return {
            f"{self.kind}_{level}": changed(data.splits[split], partial(change, strength))
            for level, strength in enumerate(self.strengths, 1)
        }
