"""Values: how likely a completion ends right, from its prompt and from the end of each of its spans."""

from surefoot.reasoning.values.base import ValueEstimator, check_values

__all__ = ("ValueEstimator", "check_values")
