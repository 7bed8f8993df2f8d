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
from surefoot.classification.pretrained_encoders import TimmEncoder, TransformersEncoder
from surefoot.classification.token_encoder import TokenEncoder

__all__ = (
    "Augmentation",
    "CheckpointEncoder",
    "Composed",
    "Flip",
    "PerImage",
    "Repeated",
    "ResizedCropFlip",
    "ShiftFlip",
    "TimmEncoder",
    "TokenEncoder",
    "TransformersEncoder",
    "Views",
)
