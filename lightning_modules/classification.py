"""What classifiers and regressors share, and the loop of those whose method is a weight per example."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.base import ResumableModule, with_schedule
from surefoot.classification.networks import Classifier, Encoder
from surefoot.contracts import SampledLoader, offers
from surefoot.errors import ConfigError
from surefoot.losses.prediction import CrossEntropy, PredictionLoss
from surefoot.training.distributed import gather_batch, local_slice
from surefoot.training.loading import EpochSampler

__all__ = ("AllExamples", "ClassifierModule", "Examples", "ReweightedClassifier", "uniform_weights")


class Examples(NamedTuple):
    """This rank's batch after the forward pass."""

    losses: Tensor  # (batch,), with gradient
    outputs: Tensor  # of the network, without gradient: logits, or what the loss says, (batch, outputs)
    features: Tensor  # before the head, (batch, features)
    batch: dict[str, Tensor]


class AllExamples:
    """All ranks' examples of a step after the forward pass, in the order in which one rank would have them.

    No gradient flows. A quantity is gathered when it is first asked for, and once; every rank has to ask for the same.
    """

    def __init__(self, own: Examples) -> None:
        """Wrap this rank's examples."""
        self._own = own
        self._columns: dict[str, Tensor] = {}

    @cached_property
    def losses(self) -> Tensor:
        """Losses, ``(examples,)``."""
        return gather_batch(self._own.losses)

    @cached_property
    def outputs(self) -> Tensor:
        """What the network returned, ``(examples, outputs)``."""
        return gather_batch(self._own.outputs)

    @cached_property
    def features(self) -> Tensor:
        """Features before the head, ``(examples, features)``."""
        return gather_batch(self._own.features)

    def column(self, name: str) -> Tensor:
        """Return a column of the batch, such as ``target`` or ``input``, ``(examples, ...)``."""
        if name not in self._columns:
            self._columns[name] = gather_batch(self._own.batch[name])
        return self._columns[name]

    def group(self) -> Tensor:
        """Return the group index per example, ``(examples,)``.

        Raises:
            ConfigError: If the batch has none.
        """
        if "group" not in self._own.batch:
            raise ConfigError(
                "this method needs a group per training example and the batch has none:"
                " set data.init_args.training.group_labels to given, or choose a method that needs none."
            )
        return self.column("group")


class ClassifierModule(ResumableModule):
    """A network with a linear head: its optimizer, its evaluation and what it logs.

    Batches are dicts with ``input (batch, ...)``, ``target (batch,)``, ``index (batch,)`` and, where known,
    ``group (batch,)``; a target of -100 is an unlabelled example. Evaluation returns ``outputs (batch, outputs)`` of
    the network, ``features (batch, features)`` before the head, ``losses (batch,)`` and, of classifiers, ``logits
    (batch, classes)``.

    Attributes:
        prediction_loss: What the outputs mean, and which constant they would best be.
    """

    #: Whether the method is defined by the cross-entropy; then no other loss is taken.
    needs_cross_entropy = False

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable | None,
        n_classes: int | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        compile: bool = False,
        loss: PredictionLoss | None = None,
    ) -> None:
        """Initialize the module.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters; none where nothing is trained by gradient.
            n_classes: Number of classes; filled in from the datamodule.
            lr_scheduler: Learning-rate schedule, stepped once per epoch.
            compile: Whether to compile the network with ``torch.compile``.
            loss: What is predicted and how errors count: CrossEntropy (default), RewardPrediction, SquaredError,
                AbsoluteError or GaussianNLL.

        Raises:
            ConfigError: If classes are predicted and their number is unknown or below two.
        """
        super().__init__()
        self.prediction_loss = loss or CrossEntropy()
        if self.needs_cross_entropy and not isinstance(self.prediction_loss, CrossEntropy):
            raise ConfigError(
                f"{type(self).__name__} is defined for CrossEntropy, got {type(loss).__name__}; ERM takes any loss."
            )
        self.network = Classifier(encoder, self.prediction_loss.n_outputs(n_classes))
        self.optimizer, self.lr_scheduler, self.n_classes = optimizer, lr_scheduler, n_classes
        if compile:
            self.network.compile()

    def first_stage(self) -> tuple[str, int] | None:
        """Return the length of the loss's warm-up, during which another loss is minimised."""
        n_epochs = self.prediction_loss.warmup_epochs
        return ("loss.init_args.warmup_epochs", n_epochs) if n_epochs else None

    def trained(self) -> nn.Module:
        """Return what the optimizer trains."""
        return self.network

    def forward(self, input: object) -> Tensor:
        """Return the network's outputs (logits of a classifier), ``(batch, outputs)``."""
        outputs: Tensor = self.network(input)[0]
        return outputs

    def check_input(self, batch: Mapping[str, object]) -> None:
        """Raise a `ConfigError` if a batch has no input, but views of it or several streams."""
        if "input" not in batch:
            raise ConfigError(
                f"{type(self).__name__} trains on the batch's input, and this one has {', '.join(sorted(batch))}:"
                " choose data or views (data.init_args.augmentation) with an entry of that name, or another method."
            )

    def run_network(self, batch: dict[str, Tensor]) -> Examples:
        """Run the network once over a batch.

        Raises:
            ConfigError: If the batch has no input, but views of it or several streams.
        """
        self.check_input(batch)
        outputs, features = self.outputs_of(self.network, batch["input"])
        if self.training:
            losses = self.prediction_loss.training_losses(outputs.float(), batch["target"], self.current_epoch)
        else:
            losses = self.prediction_loss.losses(outputs.float(), batch["target"])
        return Examples(losses, outputs.detach(), features, batch)

    def outputs_of(self, network: nn.Module, input: object) -> tuple[Tensor, Tensor]:
        """Return a network's outputs and features.

        Raises:
            ConfigError: If batch normalisation is given one value per channel.
        """
        try:
            outputs, features = network(input)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            raise ConfigError(
                "batch normalisation cannot train on a batch of one example: set data.init_args.training.drop_last to"
                " true if only the last batch is that small, or take a larger batch_size."
            ) from error
        return outputs, features

    def finish_step(self, loss: Tensor, examples: Examples, weights: Tensor) -> dict[str, Tensor]:
        """Log the step and return what callbacks read."""
        n_examples = len(examples.losses)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=n_examples)
        results = {
            "loss": loss,
            "weights": weights.detach() * n_examples * self.n_ranks,
            "losses": examples.losses.detach(),
        }
        scores = self.prediction_loss.class_scores(examples.outputs)
        if scores is not None:
            correct = (scores.argmax(1) == examples.batch["target"]).float().mean()
            self.log(
                "train/accuracy",
                correct,
                on_step=False,
                on_epoch=True,
                prog_bar=True,
                batch_size=n_examples,
            )
            results["logits"] = scores
        return results

    def evaluation_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what callbacks read of a batch."""
        examples = self.run_network(batch)
        results = {
            "outputs": examples.outputs,
            "features": examples.features,
            "losses": examples.losses,
        }
        scores = self.prediction_loss.class_scores(examples.outputs)
        return results if scores is None else results | {"logits": scores}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Evaluate a batch."""
        return self.evaluation_step(batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Evaluate a batch."""
        return self.evaluation_step(batch)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return class probabilities ``(batch, classes)``, or predictions ``(batch, numbers)``, and example ids."""
        outputs = self.prediction_loss.predictions(self(batch["input"]).float())
        name = "probabilities" if isinstance(self.prediction_loss, CrossEntropy) else "predictions"
        return {name: outputs, "index": batch["index"]}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        if self.optimizer is None:
            return None
        optimizer = self.optimizer(p for p in self.trained().parameters() if p.requires_grad)
        return with_schedule(optimizer, self.lr_scheduler)


class ReweightedClassifier(ClassifierModule, ABC):
    """A classifier trained on a weighted sum of cross-entropies; a method is its `example_weights`."""

    def draw_by(self, weights: Tensor) -> None:
        """Let the training loader draw by these weights, ``(examples,)``, from the next epoch on.

        Raises:
            ConfigError: If its sampler cannot.
        """
        loader: object = self.trainer.train_dataloader
        if not offers(loader, SampledLoader) or not isinstance(loader.sampler, EpochSampler):
            raise ConfigError(
                f"{type(self).__name__} draws training examples by weight: take a datamodule's own loader"
                f" (EpochSampler), not a {type(loader).__name__} with another sampler."
            )
        loader.sampler.reweight(weights)

    @abstractmethod
    def example_weights(self, examples: AllExamples) -> Tensor:
        """Return the weight of each example of all ranks, ``(examples,)``; the weighted sum of losses is minimised."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the weighted loss, and the weights relative to uniform ones for callbacks."""
        examples = self.run_network(batch)
        weights = local_slice(self.example_weights(AllExamples(examples)))
        # DDP averages gradients over ranks, hence the factor.
        loss = self.check_finite(self.n_ranks * (weights * examples.losses).sum())
        return self.finish_step(loss, examples, weights)


def uniform_weights(examples: AllExamples) -> Tensor:
    """Return the weights of the plain mean, ``(examples,)``."""
    return torch.full_like(examples.losses, 1 / len(examples.losses))
