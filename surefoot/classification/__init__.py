"""Classifiers under distribution shift: networks, groups, adversaries, shifts and what is measured in layers."""

from surefoot.classification.checkpoint_encoder import CheckpointEncoder

__all__ = ("CheckpointEncoder",)
