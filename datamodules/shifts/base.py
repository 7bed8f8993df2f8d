"""What a shift is: one or several sets of another distribution than the training data, evaluated after val or test."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from datamodules.splits import ChosenExamples, Split

__all__ = ("Shift", "ShiftedData", "changed")


class ShiftedData(Protocol):
    """What a shift reads of a datamodule that is set up."""

    splits: dict[str, Split]

    def held_out(self, split: str) -> dict[str, Split]:
        """Return sets of another distribution that the dataset itself holds out, for ``val`` or ``test``."""


class Shift(ABC):
    """Makes sets of another distribution out of a datamodule's split, or finds them elsewhere."""

    @abstractmethod
    def sets(self, data: ShiftedData, split: str) -> dict[str, Split]:
        """Return sets by name; graded ones are called ``<kind>_<level>``, mildest first.

        Args:
            data: The datamodule, set up.
            split: Split that is evaluated before them, ``val`` or ``test``.
        """


def changed(clean: Split, change: Callable[[object, Tensor], object]) -> Split:
    """Return a split with changed inputs, the same targets and the same groups.

    Args:
        clean: The split.
        change: See `ChosenExamples`.
    """
    positions = torch.arange(len(clean.target))
    examples = ChosenExamples(clean.examples, positions, clean.target, clean.eval_group, change)
    return Split(examples, clean.target, clean.group, clean.eval_group)
