"""Classifiers under distribution shift: networks, groups, adversaries, shifts and what is measured in layers."""

__all__ = ()
