"""Images read from files: the same size on the way in, normalised on the device."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from surefoot.errors import DataError

__all__ = (
    "UNREADABLE",
    "ImageExamples",
    "ImagePipeline",
    "open_image",
    "scaled_conversion",
    "to_rgb",
)

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


#: What decoders raise for files that are no images, cut off or of implausible size.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB of 8 bits a channel, scaled by the range of its own format.

    Pillow's own conversion cuts 16-bit and float images off at 255. Transparent pixels are seen on white.

    Raises:
        ValueError: If pixels are of a kind whose range is not known, or outside it.
    """
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ValueError(f"pixels of 16 bits must be in [0, 65535], got {low} to {high}")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if mode == "F":
        floats = np.asarray(image)
        if not np.isfinite(floats).all() or floats.min() < 0 or floats.max() > 1:
            raise ValueError(f"float pixels must be in [0, 1], got {floats.min():.6g} to {floats.max():.6g}")
        return Image.fromarray(np.rint(255 * floats).astype(np.uint8)).convert("RGB")
    if mode == "I":
        raise ValueError("pixels are integers of 32 bits, whose range is not known: save 8 or 16")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(ground, seen).convert("RGB")
    return image.convert("RGB")


@contextmanager
def scaled_conversion() -> Iterator[None]:
    """Let what another library converts to RGB be scaled as `to_rgb` does, where Pillow would cut it off."""
    original: Any = Image.Image.convert

    def convert(image: Image.Image, mode: str | None = None, *args: object, **given: object) -> object:
        if mode == "RGB" and (image.mode == "F" or image.mode.startswith("I")):
            return to_rgb(image)
        return original(image, mode, *args, **given)

    Image.Image.convert = convert  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Image.Image.convert = original  # type: ignore[method-assign]


def open_image(path: Path) -> Image.Image:
    """Open an image as RGB of 8 bits a channel.

    Raises:
        DataError: If the file is missing, not a readable image, or has pixels whose range is not known.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except FileNotFoundError as error:
        raise DataError(f"image {path} is missing.") from error
    except UNREADABLE as error:
        raise DataError(f"image {path} cannot be read: {error}. Replace it or take it out of the metadata.") from error


class ImagePipeline:
    """Resize in the loading process to ``uint8``; normalise batches on the device."""

    def __init__(self, size: int) -> None:
        """Initialize the pipeline.

        Args:
            size: Height and width, pixels.
        """
        self.size = size

    def load(self, image: Image.Image) -> Tensor:
        """Return an image as ``uint8 (3, size, size)``."""
        from torchvision.transforms.v2 import functional as TF

        pixels: Tensor = TF.pil_to_tensor(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return pixels

    def scale(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats, ``(..., 3, size, size)``."""
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (_MEAN, _STD))
        return (pixels.float() / 255 - mean) / std


class ImageExamples(Dataset[dict[str, Tensor | int]]):
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

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """Return one example."""
        return {
            "input": self.pipeline.load(self.open_input(index)),
            "target": self.target[index],
            "group": self.group[index],
            "index": index,
        }
