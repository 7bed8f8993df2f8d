"""Writes the trained model as a folder that transformers and vLLM load."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from surefoot.contracts import LanguageModelTraining, offers
from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.training.distributed import is_sharded

__all__ = ("ModelExporter",)


class ModelExporter(Callback):
    """Writes ``<run folder>/<folder>`` at the end of training: config, tokenizer, safetensors; LoRA adapters merged."""

    def __init__(self, folder: str = "model", every_n_epochs: int | None = None) -> None:
        """Initialize the callback.

        Args:
            folder: Name of the folder within the run folder.
            every_n_epochs: Also write ``<folder>-epoch-<number>`` after so many epochs each.

        Raises:
            ConfigError: If the interval is not positive.
        """
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ConfigError(f"every_n_epochs must be positive, got {every_n_epochs}.")
        self.folder, self.every_n_epochs = folder, every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is a language model to write."""
        self._language_model(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the model after every so many epochs."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._write(trainer, pl_module, f"{self.folder}-epoch-{trainer.current_epoch + 1}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the model."""
        self._write(trainer, pl_module, self.folder)

    @staticmethod
    def _language_model(pl_module: LightningModule) -> LanguageModel:
        module: object = pl_module
        if not offers(module, LanguageModelTraining):
            raise ConfigError(f"ModelExporter writes language models; {type(pl_module).__name__} has none.")
        return module.language_model

    def _write(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        model = self._language_model(pl_module)
        if trainer.is_global_zero or is_sharded(model):  # every rank has a part of sharded tensors
            model.save(Path(trainer.default_root_dir) / name, write=trainer.is_global_zero)
