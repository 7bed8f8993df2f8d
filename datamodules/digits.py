"""Handwritten digits that come with scikit-learn, with painted confounders."""

from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.confounded_images import ConfoundedImagesDataModule, split_at_random

__all__ = ("DigitsDataModule",)


class DigitsDataModule(ConfoundedImagesDataModule):
    """1,797 real digits of 8x8 pixels, RGB ``(batch, 3, 8, 8)``: 60% train, 20% val, 20% test by a seeded split.

    Source: UCI "Optical Recognition of Handwritten Digits", as embedded in scikit-learn; nothing is downloaded.
    """

    def __init__(
        self,
        target: Literal["digit", "parity"] = "parity",
        **images: Any,
    ) -> None:
        """Initialize the digits.

        Args:
            target: ``digit``, ten classes, or ``parity``, even or odd.
            images: Arguments of `ConfoundedImagesDataModule`.
        """
        super().__init__(target, 10 if target == "digit" else 2, **images)

    def load(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Read and split the digits."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images).float() / 16
        digit = torch.from_numpy(bunch.target).long()
        target = digit if self.target == "digit" else digit % 2
        return split_at_random(images, target, self.seed)
