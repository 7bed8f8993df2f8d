"""What a run of the trainer imports, as the command line does: for processes that are forked from one that has."""

from surefoot.compatibility.lean_imports import without_optional_metrics

with without_optional_metrics():
    import callbacks
    import datamodules
    import lightning_modules
    import surefoot.cli.training

__all__ = ("callbacks", "datamodules", "lightning_modules", "surefoot")
