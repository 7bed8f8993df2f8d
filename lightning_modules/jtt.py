"""JTT: just train twice."""

from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_modules.base import with_schedule
from lightning_modules.classification import AllExamples, ReweightedClassifier, uniform_weights
from surefoot.classification.networks import Encoder
from surefoot.contracts import TrainPass, datamodule_as
from surefoot.errors import ConfigError
from surefoot.losses import upsampling_multiplicity
from surefoot.training.distributed import sum_over_ranks
from surefoot.training.modes import evaluation_mode

__all__ = ("JTT",)


class JTT(ReweightedClassifier):
    """Train by ERM for a few epochs, then train afresh with the misclassified examples drawn more often.

    One fit does both: ``trainer.max_epochs`` counts the identification epochs too. At the switch the network goes
    back to its first weights, optimizer and schedule start anew, and checkpoints of the first stage stop counting
    as best ones. An epoch keeps as many draws as there are examples; they are drawn in proportion to the
    multiplicities, with replacement. The error set is taken in evaluation mode after the last identification
    epoch (the authors' code logs it during that epoch).

    Reference: Liu et al., ICML 2021, arXiv 2107.09044, Algorithm 1.
    """

    needs_cross_entropy = True

    errors: Tensor
    retraining: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable,
        identification_epochs: int,
        upweight: float,
        identification_optimizer: OptimizerCallable | None = None,
        **classifier: Any,
    ) -> None:
        """Initialize JTT.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the final model, and of the identification model unless it has its own.
            identification_epochs: T, epochs of the identification model (Waterbirds 60, CelebA 1).
            upweight: lambda_up, extra copies of each misclassified example (Waterbirds 100, CelebA 50).
            identification_optimizer: Optimizer of the identification model.
            classifier: Arguments of `ClassifierModule`.

        Raises:
            ConfigError: If there is no identification epoch or ``upweight`` is negative.
        """
        super().__init__(encoder, optimizer, **classifier)
        if identification_epochs < 1 or upweight < 0:
            raise ConfigError(
                f"identification_epochs must be at least 1 and upweight at least 0,"
                f" got {identification_epochs} and {upweight}."
            )
        self.identification_epochs, self.upweight = identification_epochs, upweight
        self.final_optimizer = optimizer
        self.identification_optimizer = identification_optimizer or optimizer
        self.first_weights = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.register_buffer("retraining", torch.tensor(False))

    @property
    def selectable(self) -> bool:
        """Return whether the network is the final model, so that its checkpoints may be chosen."""
        return bool(self.retraining)

    def first_stage(self) -> tuple[str, int]:
        """Return the length of identification."""
        return "identification_epochs", self.identification_epochs

    def unfinished(self) -> str | None:
        """Return what is missing until there is a final model."""
        missing = super().unfinished()
        if missing is None and not self.retraining:
            return "the final model was never trained"
        return None if missing is None else f"the final model was not trained: {missing}"

    def setup(self, stage: str) -> None:
        """Allocate the error set."""
        if stage == "fit":
            self.register_example_buffer("errors", False)

    def on_train_epoch_start(self) -> None:
        """Switch from identification to the final model when its first epoch begins."""
        if not self.retraining and self.current_epoch >= self.identification_epochs:
            self.errors = self.misclassified()
            self.network.load_state_dict(self.first_weights)
            self.retraining.fill_(True)
            self.trainer.strategy.setup_optimizers(self.trainer)
            self._forget_best_checkpoints()
        if self.retraining:
            self._draw_errors_more_often()  # by the loader of this epoch, which may be a new one
            self.log("train/error_set_size", self.errors.sum().float())

    def on_train_start(self) -> None:
        """Go on with a resumed second stage, in mid-epoch too."""
        super().on_train_start()
        if self.retraining:
            self._draw_errors_more_often()

    def _draw_errors_more_often(self) -> None:
        multiplicity = upsampling_multiplicity(self.errors, self.upweight)
        self.draw_by(multiplicity)

    @torch.no_grad()
    def misclassified(self) -> Tensor:
        """Return the error set of the current network, ``(examples,)``.

        Raises:
            ConfigError: If the set is empty or everything.
        """
        wrong = torch.zeros(len(self.errors), device=self.device)
        with evaluation_mode(self):
            for batch in datamodule_as(self.trainer, TrainPass, "JTT").train_examples():
                wrong[batch["index"]] = (self(batch["input"]).argmax(1) != batch["target"]).float()
        errors = sum_over_ranks(wrong) > 0
        if not errors.any() or errors.all():
            count = "no" if not errors.any() else "every"
            raise ConfigError(
                f"JTT's error set is degenerate: {count} training example is misclassified after"
                f" {self.identification_epochs} epochs. Train the identification model less (fewer epochs, a lower"
                " learning rate, more weight decay) if it is empty, more if it is everything."
            )
        return errors

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Weight every draw alike; the sampler does the upweighting."""
        return uniform_weights(examples)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the current stage's optimizer and its schedule."""
        make = self.final_optimizer if self.retraining else self.identification_optimizer
        return with_schedule(make(self.network.parameters()), self.lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the first weights, to which the network returns, while they are still needed."""
        super().on_save_checkpoint(checkpoint)
        if not self.retraining:
            checkpoint["first_weights"] = self.first_weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the first weights."""
        super().on_load_checkpoint(checkpoint)
        self.first_weights = checkpoint.get("first_weights", self.first_weights)

    def _forget_best_checkpoints(self) -> None:
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
                for path in callback.best_k_models:
                    self.trainer.strategy.remove_checkpoint(path)
                callback.best_k_models.clear()
                callback.best_model_score, callback.best_model_path = None, ""
                callback.kth_best_model_path = ""
                callback.kth_value = None  # type: ignore[assignment]
