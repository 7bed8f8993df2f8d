"""Classifiers under distribution shift: networks, groups, adversaries, shifts and what is measured in layers."""

from surefoot.classification.augmentations import (
    Augmentation,
    Composed,
    Flip,
    PerImage,
    Repeated,
    ResizedCropFlip,
    ShiftFlip,
    Views,
)
from surefoot.classification.checkpoint_encoder import CheckpointEncoder

__all__ = (
    "Augmentation",
    "CheckpointEncoder",
    "Composed",
    "Flip",
    "PerImage",
    "Repeated",
    "ResizedCropFlip",
    "ShiftFlip",
    "Views",
)
