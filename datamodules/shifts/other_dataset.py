"""Another dataset's inputs."""

from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.shifts.base import Shift, ShiftedData
from datamodules.splits import Batch, ChosenExamples, Split, gather
from surefoot.classification.shifts import fit_shape
from surefoot.errors import ConfigError
from surefoot.losses.prediction import UNLABELLED

__all__ = ("OtherDataset",)


@runtime_checkable
class _Source(Protocol):
    """What is read of the other datamodule: `ClassificationDataModule` cannot be imported, it has shifts itself."""

    splits: dict[str, Split]

    def prepare_data(self) -> None: ...

    def setup(self, stage: str) -> None: ...


class OtherDataset(Shift):
    """Inputs of another datamodule's val or test, without labels: its classes are not those of the model.

    Images are brought to the size, the channels and the range of pixels of the training data.
    """

    def __init__(self, data: LightningDataModule, name: str, n_examples: int | None = None) -> None:
        """Initialize the shift.

        Args:
            data: The other datamodule, with splits ``val`` and ``test``.
            name: Name of the set.
            n_examples: How many of its first examples are taken; all by default.

        Raises:
            ConfigError: If the datamodule has no splits or the number is below one.
        """
        if not isinstance(data, _Source):
            raise ConfigError(f"{type(data).__name__} is not a classification datamodule.")
        if n_examples is not None and n_examples < 1:
            raise ConfigError(f"n_examples must be at least 1, got {n_examples}.")
        self.data: _Source = data
        self.name, self.n_examples = name, n_examples

    def sets(self, data: ShiftedData, split: str) -> dict[str, Split]:
        """Return the set.

        Raises:
            ConfigError: If one dataset holds images and the other texts.
        """
        self.data.prepare_data()
        self.data.setup("test")
        theirs = self.data.splits[split]
        ours, other = (_first_input(s.examples) for s in (data.splits[split], theirs))
        if isinstance(ours, str) != isinstance(other, str):
            raise ConfigError(f"{self.name} cannot be put to a model of another kind of input.")
        positions = torch.arange(len(theirs.target))[: self.n_examples]
        target = torch.full((len(positions),), UNLABELLED)
        change = None
        if isinstance(ours, Tensor):
            shape, dtype = ours.shape, ours.dtype

            def change(images: Tensor, index: Tensor) -> Tensor:
                pixels = images / 255 if images.dtype == torch.uint8 else images
                scale = 255.0 if dtype == torch.uint8 else 1.0
                return scale * fit_shape(pixels, (shape[0], shape[1], shape[2]))

        examples = ChosenExamples(theirs.examples, positions, target, None, change)
        return {self.name: Split(examples, target, torch.zeros_like(target), None)}


def _first_input(examples: Dataset[Batch]) -> object:
    found = gather(examples, [0])
    return found["input"][0] if isinstance(found, dict) else found[0]["input"]
