"""Perturbed texts at graded strengths."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from datamodules.shifts.base import Shift, ShiftedData, changed
from datamodules.splits import Split
from surefoot.classification.shifts import perturb
from surefoot.errors import ConfigError

__all__ = ("TextPerturbation",)


class TextPerturbation(Shift):
    """Texts of the evaluated split with a share of their words changed; sets ``<kind>_1`` to ``<kind>_5``."""

    def __init__(self, kind: str, strengths: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0), seed: int = 0) -> None:
        """Initialize the perturbation.

        Args:
            kind: ``typos``, ``drop``, ``shuffle`` or ``scramble``.
            strengths: Share of the words at each level.
            seed: Seed of the choice.

        Raises:
            ConfigError: If there is no such perturbation or a share is out of range.
        """
        self.kind, self.strengths, self.seed = kind, tuple(strengths), seed
        for strength in self.strengths:  # refuses what is out of range
            perturb("a b", 0, kind, strength)

    def sets(self, data: ShiftedData, split: str) -> dict[str, Split]:
        """Return one set per strength, with the split's targets and groups."""

        def change(strength: float, text: str, position: Tensor) -> str:
            if not isinstance(text, str):
                raise ConfigError(f"a text perturbation needs texts, got {type(text).__name__}.")
            return perturb(text, int(position), self.kind, strength, self.seed)

        return {
            f"{self.kind}_{level}": changed(data.splits[split], partial(change, strength))
            for level, strength in enumerate(self.strengths, 1)
        }
