"""Corruptions of images, a whole batch at once, each at five strengths or at any other.

What is random depends on the example's id and the seed alone: batch size, order and number of ranks change nothing.

Reference: Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261 (common corruptions at five severities). Strengths are
ours: theirs are for photographs of 224 pixels; lengths are shares of the height here, so that they fit images of any
size.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import ConfigError

__all__ = ("CORRUPTIONS", "CorruptionKind", "corrupt", "fit_shape", "random_uniform")

Images = Float[Tensor, "batch channels height width"]
_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # of splitmix64, as signed numbers
_STEP = -7046029254386353131


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers right, filling with zeros."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    """Hash int64 numbers one by one (the finaliser of splitmix64)."""
    values = (values ^ _shift_right(values, 30)) * _MULTIPLIERS[0]
    values = (values ^ _shift_right(values, 27)) * _MULTIPLIERS[1]
    return values ^ _shift_right(values, 31)


def random_uniform(index: Int[Tensor, " batch"], n_numbers: int, seed: int) -> Tensor:
    """Return numbers in (0, 1) that depend on example id, position and seed alone, ``(batch, n_numbers)``."""
    rows = _mix(index.long() * _STEP + seed)[:, None]
    columns = torch.arange(1, n_numbers + 1, device=index.device) * _STEP
    return (_shift_right(_mix(rows + columns), 40).float() + 0.5) / 2**24


def _random_normal(images: Tensor, index: Tensor, seed: int) -> Tensor:
    """Return standard normal noise of the images' shape (Box and Muller)."""
    n_numbers = images[0].numel()
    half = -(-n_numbers // 2)
    radius, angle = random_uniform(index, 2 * half, seed).split(half, 1)
    radius, angle = (-2 * radius.log()).sqrt_(), angle * (2 * math.pi)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return noise[:, :n_numbers].view(images.shape)


def _unclipped_noise(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    return images + strength * _random_normal(images, index, seed)


def _noise(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    return _unclipped_noise(images, strength, index, seed).clamp(0, 1)


def _impulse(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    chance = random_uniform(index, images[0].numel(), seed).view(images.shape)
    salt = torch.where(chance > 1 - strength / 2, 1.0, images)
    return torch.where(chance < strength / 2, 0.0, salt)


def _blur(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    sigma = max(strength * images.shape[-2], 1e-3)
    radius = max(1, min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=images.shape[1])


def _contrast(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (1 - strength) * (images - mean)


def _rotation(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    cos, sin = math.cos(math.radians(strength)), math.sin(math.radians(strength))
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=images.device)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _occlusion(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    height, width = images.shape[-2:]
    side = max(1, round(strength * height))
    corner = random_uniform(index, 2, seed)
    covered = []
    for axis, size in ((0, height), (1, width)):
        start = (corner[:, axis] * (size - side + 1)).floor()[:, None]
        position = torch.arange(size, device=images.device)
        covered.append((position >= start) & (position < start + side))
    mask = covered[0][:, None, :, None] & covered[1][:, None, None, :]
    return torch.where(mask, 0.5, images)


def _pixelation(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    height, width = images.shape[-2:]
    size = [max(1, round((1 - strength) * n)) for n in (height, width)]
    return F.interpolate(F.interpolate(images, size, mode="area"), (height, width), mode="nearest")


def _brightness(images: Images, strength: float, index: Tensor, seed: int) -> Images:
    return (images + strength).clamp(0, 1)


class CorruptionKind(NamedTuple):
    """A corruption and its strengths at levels 1 to 5."""

    apply: Callable[[Tensor, float, Tensor, int], Tensor]
    strengths: tuple[float, ...]
    unit: str


#: Name -> corruption. `unclipped_noise` leaves [0, 1]: a negative control, see Kang et al., ICLR 2024.
CORRUPTIONS: Mapping[str, CorruptionKind] = {
    "noise": CorruptionKind(_noise, (0.1, 0.2, 0.3, 0.45, 0.6), "standard deviation"),
    "impulse": CorruptionKind(_impulse, (0.03, 0.06, 0.1, 0.17, 0.27), "share of the pixels"),
    "blur": CorruptionKind(_blur, (0.02, 0.04, 0.06, 0.08, 0.12), "deviation, share of the height"),
    "contrast": CorruptionKind(_contrast, (0.25, 0.5, 0.65, 0.8, 0.9), "share of the contrast lost"),
    "rotation": CorruptionKind(_rotation, (15, 30, 45, 60, 90), "degrees"),
    "occlusion": CorruptionKind(_occlusion, (0.2, 0.3, 0.4, 0.5, 0.6), "side, share of the height"),
    "pixelation": CorruptionKind(_pixelation, (0.4, 0.6, 0.7, 0.8, 0.85), "share of the rows lost"),
    "brightness": CorruptionKind(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "added"),
    "unclipped_noise": CorruptionKind(_unclipped_noise, (0.25, 0.5, 1, 2, 4), "standard deviation"),
}


def corrupt(images: Images, index: Int[Tensor, " batch"], kind: str, strength: float, seed: int = 0) -> Images:
    """Corrupt a batch of images.

    Args:
        images: Pixels in [0, 1], ``(batch, channels, height, width)``.
        index: Id per example, ``(batch,)``: the same id gets the same noise.
        kind: One of `CORRUPTIONS`.
        strength: How strong, in the corruption's unit, at least 0.
        seed: Seed of the noise.

    Returns:
        New images of the same shape, in [0, 1] except for ``unclipped_noise``.

    Raises:
        ConfigError: If there is no such corruption, or the strength is negative or, for a share, above 1.
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"no corruption {kind!r}; there are {', '.join(CORRUPTIONS)}.")
    if strength < 0 or ("share" in CORRUPTIONS[kind].unit and strength > 1):
        raise ConfigError(
            f"strength of {kind} must be at least 0 (a share at most 1), got {strength} ({CORRUPTIONS[kind].unit})."
        )
    return CORRUPTIONS[kind].apply(images, strength, index, seed)


def fit_shape(images: Images, shape: tuple[int, int, int]) -> Float[Tensor, "batch new_channels new_height new_width"]:
    """Bring another dataset's images to ``(channels, height, width)``: grey repeated or averaged, size interpolated."""
    channels, height, width = shape
    if images.shape[1] != channels:
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if images.shape[-2:] != (height, width):
        images = F.interpolate(images, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return images
