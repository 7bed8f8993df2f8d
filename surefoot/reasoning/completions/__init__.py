"""Stored completions: sampled and graded by ``surefoot generate``, chosen from for training."""

__all__ = ()
