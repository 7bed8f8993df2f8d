"""Attributes painted on images that agree with the label too often: spurious features by construction."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.errors import ConfigError

__all__ = (
    "CONFOUNDERS",
    "Confounder",
    "Confounding",
    "LabelNoise",
    "assign_attribute",
    "flip_labels",
    "paint",
    "palette",
)

Confounder = Literal["colour", "patch", "texture"]
CONFOUNDERS: tuple[Confounder, ...] = ("colour", "patch", "texture")


@dataclass(frozen=True)
class Confounding:
    """What is painted on images, and how often it disagrees with the label.

    Args:
        confounders: ``colour`` (background), ``patch`` (corner), ``texture`` (stripes); at least one.
        minority_fraction: Share of the training examples whose confounder disagrees, ``1 - rho``, for each of them.
        eval_minority_fraction: The same share in val and test.
        strength: Brightness of the paint in [0, 1].

    Raises:
        ConfigError: If there is no confounder, or one is unknown or listed twice, or a number is outside [0, 1].
    """

    confounders: tuple[Confounder, ...] = ("colour",)
    minority_fraction: float = 0.05
    eval_minority_fraction: float = 0.5
    strength: float = 0.5

    def __post_init__(self) -> None:
        """Check names and numbers."""
        names = self.confounders
        if not names or set(names) - set(CONFOUNDERS) or len(set(names)) != len(names):
            raise ConfigError(
                f"confounding.confounders must be distinct, one or more of {', '.join(CONFOUNDERS)}, got"
                f" {', '.join(names) or 'none'}. To paint nothing, set confounding to null."
            )
        for name in ("minority_fraction", "eval_minority_fraction", "strength"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"confounding.{name} must be in [0, 1], got {value}.")


@dataclass(frozen=True)
class LabelNoise:
    """Training labels that are flipped at random.

    Args:
        share: Share of the labels that is flipped, in [0, 1].
        among: Whose labels: ``all``, those of the ``majority``, with whose label every confounder agrees, or of the
            ``minority``, the others.

    Raises:
        ConfigError: If the share is outside [0, 1].
    """

    share: float
    among: Literal["all", "majority", "minority"] = "all"

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.share <= 1:
            raise ConfigError(f"label_noise.share must be in [0, 1], got {self.share}.")


def assign_attribute(
    target: Int[Tensor, " examples"],
    n_values: int,
    minority_fraction: float,
    generator: torch.Generator,
) -> Int[Tensor, " examples"]:
    """Give each example an attribute that equals its label but for a share of each class.

    Within a class exactly ``round(minority_fraction * size)`` examples disagree, evenly spread over the other
    values; with two values and a half, attribute and label are independent.

    Args:
        target: Class per example in ``[0, n_values)``, ``(examples,)``.
        n_values: Number of values, one per class.
        minority_fraction: Share that disagrees, ``1 - rho``, in [0, 1].
        generator: Source of randomness.

    Returns:
        Attribute per example in ``[0, n_values)``, ``(examples,)``.

    Raises:
        ConfigError: If the share is outside [0, 1].
    """
    if not 0 <= minority_fraction <= 1:
        raise ConfigError(f"minority_fraction must be in [0, 1], got {minority_fraction}.")
    attribute = target.clone()
    for label in range(n_values):
        members = (target == label).nonzero()[:, 0]
        n_minority = round(minority_fraction * len(members))
        chosen = members[torch.randperm(len(members), generator=generator)[:n_minority]]
        offsets = 1 + torch.arange(n_minority) % (n_values - 1)
        attribute[chosen] = (label + offsets) % n_values
    return attribute


def flip_labels(
    target: Int[Tensor, " examples"],
    share: float,
    candidates: Tensor,
    n_classes: int,
    generator: torch.Generator,
) -> Int[Tensor, " examples"]:
    """Give a share of the candidates another label, uniformly among the wrong ones.

    Args:
        target: True class per example, ``(examples,)``.
        share: Share of the candidates that is flipped, in [0, 1].
        candidates: True where an example may be flipped, ``(examples,)``.
        n_classes: Number of classes.
        generator: Source of randomness.

    Returns:
        Observed class per example, ``(examples,)``.

    Raises:
        ConfigError: If the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"label_noise must be in [0, 1], got {share}.")
    pool = candidates.nonzero()[:, 0]
    chosen = pool[torch.randperm(len(pool), generator=generator)[: round(share * len(pool))]]
    noisy = target.clone()
    offsets = torch.randint(1, n_classes, (len(chosen),), generator=generator)
    noisy[chosen] = (target[chosen] + offsets) % n_classes
    return noisy


def palette(n_values: int) -> Float[Tensor, "values 3"]:
    """Return evenly spaced hues at full saturation, RGB in [0, 1], ``(values, 3)``."""
    hue = torch.arange(n_values).float()[:, None] / n_values
    return ((hue + torch.tensor([0.0, 2 / 3, 1 / 3])) % 1 * 6 - 3).abs().sub(1).clamp(0, 1)


def paint(
    images: Float[Tensor, "examples 3 height width"],
    attribute: Int[Tensor, " examples"],
    n_values: int,
    kind: Confounder,
    strength: float,
) -> Float[Tensor, "examples 3 height width"]:
    """Paint an attribute on images.

    ``colour`` tints the background, ``patch`` puts a coloured square of a quarter of the height into a corner,
    ``texture`` lays stripes on the background whose direction is that of the value.

    Args:
        images: RGB in [0, 1], dark background, ``(examples, 3, height, width)``.
        attribute: Value per example, ``(examples,)``.
        n_values: Number of values.
        kind: What is painted.
        strength: Brightness of the paint in [0, 1].

    Returns:
        New images in [0, 1], of the same shape.
    """
    height, width = images.shape[-2:]
    background = 1 - images.amax(1, keepdim=True)
    colours = strength * palette(n_values)[attribute][:, :, None, None]  # (examples, 3, 1, 1)
    if kind == "colour":
        return (images + background * colours).clamp(0, 1)
    if kind == "patch":
        size = max(1, height // 4)
        painted = images.clone()
        painted[:, :, :size, -size:] = colours
        return painted
    angle = torch.pi * attribute.float()[:, None, None] / n_values  # (examples, 1, 1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = rows * angle.cos() + columns * angle.sin()
    stripes = (0.5 + 0.5 * (torch.pi * phase).cos())[:, None]
    return (images + background * strength * stripes).clamp(0, 1)
