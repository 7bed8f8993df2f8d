"""What classifiers share, and the loop of those whose method is a weight per example."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.base import ResumableModule
from surefoot.errors import ConfigError
from surefoot.networks import Classifier, Encoder

__all__ = ("ClassifierModule", "Examples", "ReweightedClassifier")


class Examples(NamedTuple):
    """This rank's batch after the forward pass."""

    losses: Tensor  # cross-entropy, (batch,), with gradient
    logits: Tensor  # (batch, classes)
    features: Tensor  # before the head, (batch, features)
    batch: dict[str, Tensor]

    def group(self) -> Tensor:
        """Return the group index per example, ``(batch,)``.

        Raises:
            ConfigError: If the batch has none.
        """
        if "group" not in self.batch:
            raise ConfigError(
                "this method needs a group per training example and the batch has none:"
                " set data.init_args.group_labels to given, or choose a method that needs none."
            )
        return self.batch["group"]


class ClassifierModule(ResumableModule):
    """A network with a linear head: its optimizer, its evaluation and what it logs.

    Batches are dicts with ``input (batch, ...)``, ``target (batch,)``, ``index (batch,)`` and, where known,
    ``group (batch,)``. Evaluation returns ``logits`` and ``losses``, which callbacks read.
    """

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable | None,
        n_classes: int | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
    ) -> None:
        """Initialize the module.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters; none where nothing is trained by gradient.
            n_classes: Number of classes; filled in from the datamodule.
            lr_scheduler: Learning-rate schedule, stepped once per epoch.
            compile: Whether to compile the network with ``torch.compile``.

        Raises:
            ConfigError: If the number of classes is unknown or below two.
        """
        super().__init__()
        if n_classes is None or n_classes < 2:
            raise ConfigError(
                f"n_classes must be at least 2, got {n_classes}; the datamodule usually fills it in."
            )
        self.network = Classifier(encoder, n_classes)
        self.optimizer, self.lr_scheduler, self.n_classes = optimizer, lr_scheduler, n_classes
        if compile:
            self.network.compile()

    def trained(self) -> nn.Module:
        """Return what the optimizer trains."""
        return self.network

    def forward(self, input: Any) -> Tensor:
        """Return logits, ``(batch, classes)``."""
        logits: Tensor = self.network(input)[0]
        return logits

    def classify(self, batch: dict[str, Tensor]) -> Examples:
        """Run the network once over a batch."""
        logits, features = self.network(batch["input"])
        losses = F.cross_entropy(logits.float(), batch["target"], reduction="none")
        return Examples(losses, logits.detach(), features, batch)

    def finish_step(self, loss: Tensor, examples: Examples, weights: Tensor) -> dict[str, Tensor]:
        """Log the step and return what callbacks read."""
        correct = (examples.logits.argmax(1) == examples.batch["target"]).float()
        n_examples = len(correct)
        self.log("train/loss", loss.detach(), batch_size=n_examples)
        self.log(
            "train/accuracy", correct.mean(), on_step=False, on_epoch=True, batch_size=n_examples
        )
        relative = weights.detach() * n_examples * self.n_ranks
        return {
            "loss": loss,
            "weights": relative,
            "losses": examples.losses.detach(),
            "logits": examples.logits,
        }

    def evaluation_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return logits and losses of a batch."""
        examples = self.classify(batch)
        return {"logits": examples.logits, "losses": examples.losses}

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Evaluate a batch."""
        return self.evaluation_step(batch)

    def test_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Evaluate a batch."""
        return self.evaluation_step(batch)

    def predict_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return class probabilities ``(batch, classes)`` and example ids."""
        return {"probabilities": self(batch["input"]).float().softmax(1), "index": batch["index"]}

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule."""
        if self.optimizer is None:
            return None
        optimizer = self.optimizer(p for p in self.trained().parameters() if p.requires_grad)
        if self.lr_scheduler is None:
            return optimizer
        return [optimizer], [self.lr_scheduler(optimizer)]


class ReweightedClassifier(ClassifierModule, ABC):
    """A classifier trained on a weighted sum of cross-entropies; a method is its `example_weights`."""

    @abstractmethod
    def example_weights(self, examples: Examples) -> Tensor:
        """Return the weight of each of this rank's examples, ``(batch,)``.

        Over all ranks, the weighted sum of the losses is the training loss.
        """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the weighted loss, and the weights relative to uniform ones for callbacks."""
        examples = self.classify(batch)
        weights = self.example_weights(examples)
        # DDP averages gradients over ranks, hence the factor.
        loss = self.check_finite(self.n_ranks * (weights * examples.losses).sum())
        return self.finish_step(loss, examples, weights)

    def uniform_weights(self, losses: Tensor) -> Tensor:
        """Return the weights of the plain mean over all ranks' examples, ``(batch,)``."""
        return torch.full_like(losses, 1 / (len(losses) * self.n_ranks))
