"""Settings that cannot work together, refused before anything is built."""

import sys
from collections.abc import Iterator
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

from surefoot.classification.checkpoint_encoder import CheckpointEncoder, training_settings
from surefoot.errors import ConfigError

__all__ = ("check_data_seed", "check_seed", "check_trainer")


def check_trainer(trainer: Namespace) -> None:
    """Raise a `ConfigError` for what Lightning can do only with loaders and learning rates of its own kind."""
    if trainer.overfit_batches:
        raise ConfigError(
            "trainer.overfit_batches would replace the order of the data, which resumes and reweights here: give"
            " trainer.limit_train_batches and trainer.limit_val_batches instead."
        )
    if trainer.accumulate_grad_batches < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches must be at least 1, got {trainer.accumulate_grad_batches}.")
    if trainer.gradient_clip_val is not None and not trainer.gradient_clip_val >= 0:
        raise ConfigError(f"trainer.gradient_clip_val must be at least 0, got {trainer.gradient_clip_val}.")
    for callback in trainer.callbacks or ():
        if str(callback.class_path).endswith(".LearningRateFinder"):
            raise ConfigError(
                "LearningRateFinder sets one attribute of a module, but optimizers are built from their settings here:"
                " compare runs with --model.init_args.optimizer.init_args.lr instead."
            )


def check_seed(seed: bool | int | None) -> None:
    """Raise a `ConfigError` for a seed that generators do not take."""
    if seed is not None and not 0 <= seed < 2**32:
        raise ConfigError(f"seed_everything must be in [0, {2**32 - 1}], got {seed}.")


def check_data_seed(config: Namespace) -> None:
    """Refuse to train on from weights whose data were split by another seed: they may have seen our test examples.

    Raises:
        ConfigError: If the two seeds of one dataset differ.
    """
    own = _seeds(config.data.as_dict())
    for given in _handed_over(config.model.as_dict()):
        stored = _seeds(training_settings(Path(given)).get("data") or {})
        for dataset in own.keys() & stored.keys():
            was, now = (", ".join(map(str, sorted(seeds[dataset]))) for seeds in (stored, own))
            if stored[dataset] != own[dataset]:
                raise ConfigError(
                    f"{given} was trained on data of seed {was} and this run's have seed {now}: its training examples"
                    " may be among this run's test examples. Give weights of seed"
                    f" {now}, or --data.init_args.seed {was} ({dataset.rpartition('.')[2]})."
                )


def _seeds(settings: object) -> dict[str, set[int]]:
    """Return the seeds of each class of datamodules in nested settings."""
    found: dict[str, set[int]] = {}
    if isinstance(settings, dict):
        module, _, name = str(settings.get("class_path")).rpartition(".")
        seed = (settings.get("init_args") or {}).get("seed")
        kind = getattr(sys.modules.get(module), name, None)
        if seed is not None and isinstance(kind, type) and issubclass(kind, LightningDataModule):
            found[f"{module}.{name}"] = {seed}
        settings = list(settings.values())
    for part in settings if isinstance(settings, list | tuple) else ():
        for dataset, seeds in _seeds(part).items():
            found.setdefault(dataset, set()).update(seeds)
    return found


def _handed_over(settings: object) -> Iterator[str]:
    """Yield the weights of every `CheckpointEncoder` in nested settings."""
    if isinstance(settings, dict):
        arguments = settings.get("init_args")
        if isinstance(arguments, dict) and str(settings.get("class_path")).endswith(f".{CheckpointEncoder.__name__}"):
            yield from [] if arguments.get("weights") is None else [str(arguments["weights"])]
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from _handed_over(value)
