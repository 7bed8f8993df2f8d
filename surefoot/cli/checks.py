"""Settings that cannot work together, refused before anything is built."""

from pathlib import Path

from jsonargparse import Namespace

from surefoot.cli.settings import stored_settings
from surefoot.errors import ConfigError
from surefoot.storage.manifests import WEIGHTS

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
                " compare"
                " runs with --model.init_args.optimizer.init_args.lr instead."
            )


def check_seed(seed: bool | int | None) -> None:
    """Raise a `ConfigError` for a seed that generators do not take."""
    if seed is not None and not 0 <= seed < 2**32:
        raise ConfigError(f"seed_everything must be in [0, {2**32 - 1}], got {seed}.")


def check_data_seed(config: Namespace) -> None:
    """Refuse to train on from a checkpoint whose data were split by another seed: it may have seen our test examples.

    Raises:
        ConfigError: If the two seeds of one dataset differ.
    """
    data, given = config.data, config.model.get("init_args", {}).get("checkpoint")
    if given is None:
        return
    path = Path(given)
    if path.is_dir() or path.name == WEIGHTS:  # a run folder, or its weights
        path = (path if path.is_dir() else path.parent) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return
    stored = (stored_settings(path) or {}).get("data") or {}
    was, now = (d.get("init_args", {}).get("seed") for d in (stored, data))
    if stored.get("class_path") == data.class_path and was is not None and was != now:
        raise ConfigError(
            f"{given} was trained on data of seed {was} and this run's have seed {now}: its training examples may be"
            f" among this run's test examples. Give a checkpoint of seed {now}, or --data.init_args.seed {was}."
        )
