"""Images read from files: the same size on the way in, augmented and normalised on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from surefoot.errors import DataError

__all__ = ("Augmentation", "ImageExamples", "ImagePipeline", "is_training", "open_image")

Augmentation = Literal["none", "flip", "crop_flip"]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def open_image(path: Path) -> Image.Image:
    """Open an RGB image.

    Raises:
        DataError: If the file is missing or not a readable image.
    """
    try:
        return Image.open(path).convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"image {path} is missing.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(
            f"image {path} cannot be read: {error}. Replace it or take it out of the metadata."
        ) from error


class ImagePipeline:
    """Resize in the loading process to ``uint8``; augment and normalise batches on the device."""

    def __init__(self, size: int, augmentation: Augmentation = "none") -> None:
        """Initialize the pipeline.

        Args:
            size: Height and width, pixels.
            augmentation: ``flip`` (horizontal) or ``crop_flip`` (random crop of 70 to 100% of the area, then flip).
        """
        from torchvision.transforms import v2

        self.size = size
        flip = v2.RandomHorizontalFlip()
        crop = v2.RandomResizedCrop(size, scale=(0.7, 1.0), antialias=True)
        self.augmentation: Callable[[Tensor], Tensor] | None = {
            "none": None,
            "flip": flip,
            "crop_flip": v2.Compose([crop, flip]),
        }[augmentation]

    def load(self, image: Image.Image) -> Tensor:
        """Return an image as ``uint8 (3, size, size)``."""
        from torchvision.transforms.v2 import functional as TF

        pixels: Tensor = TF.pil_to_tensor(
            image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        )
        return pixels

    def finish(self, pixels: Tensor, training: bool) -> Tensor:
        """Return a batch as normalised floats, ``(batch, 3, size, size)``, each image augmented by itself."""
        if training and self.augmentation is not None:
            pixels = torch.stack([self.augmentation(image) for image in pixels])
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (_MEAN, _STD))
        return (pixels.float() / 255 - mean) / std


class ImageExamples(Dataset[dict[str, Any]]):
    """Images opened when asked for."""

    def __init__(
        self,
        open_input: Callable[[int], Image.Image],
        pipeline: ImagePipeline,
        target: Tensor,
        group: Tensor,
    ) -> None:
        """Initialize the dataset.

        Args:
            open_input: From the position in the split to an image.
            pipeline: How an image becomes a tensor.
            target: Class per example, ``(examples,)``.
            group: Evaluation group ``(examples,)`` or membership ``(examples, groups)``.
        """
        self.open_input, self.pipeline, self.target, self.group = (
            open_input,
            pipeline,
            target,
            group,
        )

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one example."""
        return {
            "input": self.pipeline.load(self.open_input(index)),
            "target": self.target[index],
            "group": self.group[index],
            "index": index,
        }


def is_training(datamodule: LightningDataModule) -> bool:
    """Tell whether batches that arrive now are for training."""
    return datamodule.trainer is not None and datamodule.trainer.training
