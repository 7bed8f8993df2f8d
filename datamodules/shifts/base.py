"""What a shift is: one or several sets of another distribution than the training data, evaluated after val or test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.splits import ChosenExamples, Split

if TYPE_CHECKING:
    from datamodules.classification import ClassificationDataModule

__all__ = ("Shift", "changed")


class Shift(ABC):
    """Makes sets of another distribution out of a datamodule's split, or finds them elsewhere."""

    @abstractmethod
    def sets(self, data: ClassificationDataModule, split: str) -> dict[str, Split]:
        """Return sets by name; graded ones are called ``<kind>_<level>``, mildest first.

        Args:
            data: The datamodule, set up.
            split: Split that is evaluated before them, ``val`` or ``test``.
        """


def changed(clean: Split, change: Callable[[Any, Tensor], Any]) -> Split:
    """Return a split with changed inputs, the same targets and the same groups.

    Args:
        clean: The split.
        change: See `ChosenExamples`.
    """
    places = torch.arange(len(clean.target))
    examples = ChosenExamples(clean.examples, places, clean.target, clean.eval_group, change)
    return Split(examples, clean.target, clean.group, clean.eval_group)
