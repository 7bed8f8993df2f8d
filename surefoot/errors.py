"""Errors that a user can cause and mend; the command line prints them as one line."""

__all__ = ("ConfigError", "DataError", "NonFiniteLossError", "SurefootError")


class SurefootError(ValueError):
    """What was given, what was expected and what to do, in one line."""


class ConfigError(SurefootError):
    """Settings that contradict each other or the data."""


class DataError(SurefootError):
    """Missing, unreadable or inconsistent data."""


class NonFiniteLossError(SurefootError):
    """A loss became NaN or infinite."""
