"""Didactic tasks that several papers' experiments may share."""

__all__ = ()
