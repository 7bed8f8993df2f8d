"""Random changes of training images, which leave what they show: each image of a batch by itself.

All draw from torch's global generator, which the run's seed sets and its checkpoints keep, and on the CPU: the same
whatever device the images are on.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError

__all__ = ("Augmentation", "Composed", "Flip", "PerImage", "Repeated", "ResizedCropFlip", "ShiftFlip", "Views")


class Augmentation(ABC):
    """A random change of images ``(batch, channels, height, width)``: ``uint8`` in [0, 255], or floats in [0, 1]."""

    @abstractmethod
    def augment(self, images: Tensor) -> Tensor:
        """Return changed images, ``(batch, channels, height, width)``; the argument stays as it is."""

    def __call__(self, images: object) -> Tensor:
        """Return changed images of a batch.

        Args:
            images: ``(batch, channels, height, width)``.

        Raises:
            ConfigError: If they are none, or do not come back one by one.
        """
        if not isinstance(images, Tensor) or images.ndim != 4:
            given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ConfigError(
                f"{type(self).__name__} is for images (batch, channels, height, width), got {given}: leave augmentation"
                " out where inputs are no images, and put Repeated last."
            )
        changed = self.augment(images)
        if len(changed) != len(images):
            raise ConfigError(f"{type(self).__name__} made {len(changed)} images of {len(images)}.")
        return changed


class Flip(Augmentation):
    """Mirror images left to right."""

    def __init__(self, probability: float = 0.5) -> None:
        """Initialize the augmentation.

        Args:
            probability: Share of the images that are mirrored.

        Raises:
            ConfigError: If it is outside [0, 1].
        """
        if not 0 <= probability <= 1:
            raise ConfigError(f"probability must be in [0, 1], got {probability}.")
        self.probability = probability

    def augment(self, images: Tensor) -> Tensor:
        """Return images, some of them mirrored."""
        mirrored = (torch.rand(len(images)) < self.probability).to(images.device)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


class ShiftFlip(Augmentation):
    """Shift images by a few pixels, black where nothing is, and mirror half of them: He et al.'s for CIFAR.

    Reference: He et al., CVPR 2016, arXiv 1512.03385, section 4.2.
    """

    def __init__(self, padding: int = 4) -> None:
        """Initialize the augmentation.

        Args:
            padding: Longest shift along each axis, pixels.

        Raises:
            ConfigError: If it is negative.
        """
        if padding < 0:
            raise ConfigError(f"padding must be at least 0, got {padding}.")
        self.padding = padding

    def augment(self, images: Tensor) -> Tensor:
        """Return shifted images, half of them mirrored."""
        n, _, height, width = images.shape
        padded = nn.functional.pad(images, (self.padding,) * 4)
        shifts = torch.randint(0, 2 * self.padding + 1, (2, n))
        rows = shifts[0][:, None] + torch.arange(height)
        columns = shifts[1][:, None] + torch.arange(width)
        mirrored = torch.rand(n) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns).to(images.device)
        rows, which = rows.to(images.device), torch.arange(n, device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


class PerImage(Augmentation):
    """Any transform of torchvision, drawn for each image anew, such as ``torchvision.transforms.v2.RandAugment``."""

    def __init__(self, transform: nn.Module) -> None:
        """Initialize the augmentation.

        Args:
            transform: From an image ``(channels, height, width)`` to another; its draws are from torch's generator.
        """
        self.transform = transform

    def augment(self, images: Tensor) -> Tensor:
        """Return transformed images.

        Raises:
            ConfigError: If they are not of one size and of three axes each.
        """
        changed = [self.transform(image) for image in images]
        shapes = {tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__ for image in changed}
        if len(shapes) != 1 or not all(isinstance(s, tuple) and len(s) == images.ndim - 1 for s in shapes):
            name, found = type(self.transform).__name__, ", ".join(map(str, sorted(shapes, key=str)))
            raise ConfigError(f"{name} must make images of one size, (channels, height, width), got {found}.")
        return torch.stack(changed)


class ResizedCropFlip(Augmentation):
    """Cut out a part of each image, bring it to the image's size, and mirror half of them."""

    def __init__(self, smallest_area: float = 0.7) -> None:
        """Initialize the augmentation.

        Args:
            smallest_area: Smallest share of the area that is cut out, in (0, 1].

        Raises:
            ConfigError: If it is outside.
        """
        if not 0 < smallest_area <= 1:
            raise ConfigError(f"smallest_area must be in (0, 1], got {smallest_area}.")
        self.smallest_area = smallest_area

    def augment(self, images: Tensor) -> Tensor:
        """Return resized parts, half of them mirrored."""
        from torchvision.transforms import v2

        height, width = images.shape[-2:]
        crop = v2.RandomResizedCrop((height, width), scale=(self.smallest_area, 1.0), antialias=True)
        return PerImage(v2.Compose([crop, v2.RandomHorizontalFlip()]))(images)


class Composed(Augmentation):
    """Several augmentations, one after the other."""

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        """Initialize the augmentation.

        Args:
            augmentations: In their order.
        """
        self.augmentations = tuple(augmentations)

    def augment(self, images: Tensor) -> Tensor:
        """Return images that have gone through all."""
        for augmentation in self.augmentations:
            images = augmentation(images)
        return images


class Repeated(Augmentation):
    """Several draws of one augmentation side by side, for `Views`: ``(batch, draws, channels, height, width)``."""

    def __init__(self, augmentation: Augmentation, n: int = 2) -> None:
        """Initialize the augmentation.

        Args:
            augmentation: What is drawn.
            n: Draws of each image.

        Raises:
            ConfigError: If there are none.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}.")
        self.augmentation, self.n = augmentation, n

    def augment(self, images: Tensor) -> Tensor:
        """Return the draws, ``(batch, n, channels, height, width)``."""
        return torch.stack([self.augmentation(images) for _ in range(self.n)], dim=1)


class Views:
    """Several versions of each image of a batch by name, in place of its ``input``.

    For example ``weak`` and ``strong`` versions; an entry called ``input`` is what methods of one version train on.
    """

    def __init__(self, views: Mapping[str, Augmentation | None]) -> None:
        """Initialize the views.

        Args:
            views: Augmentation by the name of its entry in the batch; none leaves the images as they are.

        Raises:
            ConfigError: If there is none, or one has the name of another entry.
        """
        taken = sorted({"target", "group", "index"} & views.keys())
        if taken or not views:
            given = ", ".join(taken) or "none"
            raise ConfigError(f"views need names of their own, such as weak and strong, got {given}.")
        self.views = dict(views)

    def __call__(self, images: object) -> dict[str, Any]:
        """Return the views of images ``(batch, channels, height, width)`` by name."""
        return {name: images if view is None else view(images) for name, view in self.views.items()}
