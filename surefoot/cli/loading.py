"""Modules and datamodules from settings, and from what a checkpoint holds."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule

# Imported so that settings may name a class without its module path.
import callbacks  # noqa: F401
import datamodules  # noqa: F401
import lightning_modules  # noqa: F401
from surefoot.cli.checkpoints import metadata
from surefoot.cli.settings import stored_descriptions, stored_settings
from surefoot.errors import SurefootError
from surefoot.training.rebuilding import check_weights, descriptions, weights_follow
from surefoot.training.weights import read_checkpoint

__all__ = ("build_datamodule", "load_module", "rebuild_module")


def _build(base: type, settings: Mapping[str, object]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object")
    own = copy.deepcopy(dict(settings))  # the parser changes lists in place
    return parser.instantiate_classes(parser.parse_object({"object": own})).object


def rebuild_module(settings: Mapping[str, object], checkpoint: Path) -> LightningModule:
    """Build a module whose weights a checkpoint will bring, all of them.

    Raises:
        SurefootError: If the checkpoint lacks some.
    """
    with descriptions(stored_descriptions(checkpoint)), weights_follow():
        module: LightningModule = _build(LightningModule, settings)
    if checkpoint.is_file():  # a folder's tensors are checked where they are loaded
        check_weights(module, metadata(checkpoint)["state_dict"], checkpoint)
    return module


def build_datamodule(settings: Mapping[str, object]) -> LightningDataModule:
    """Build a datamodule from what a config says under ``data``.

    Args:
        settings: ``class_path`` and ``init_args``.
    """
    datamodule: LightningDataModule = _build(LightningDataModule, settings)
    return datamodule


def load_module(checkpoint: Path) -> LightningModule:
    """Build the module of a run's checkpoint with its weights.

    Args:
        checkpoint: Checkpoint written by ``surefoot fit``.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        SurefootError: If the file is not such a checkpoint.
    """
    settings = stored_settings(checkpoint)
    if settings is None:
        raise SurefootError(f"{checkpoint} was not written by surefoot fit: it holds no settings.")
    module = rebuild_module(settings["model"], checkpoint)
    state = read_checkpoint(checkpoint)
    module.on_load_checkpoint(state)
    module.load_state_dict(state["state_dict"])
    return module.eval()
