"""BR-DRO: bitrate-constrained distributional robustness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.classification import AllExamples, ReweightedClassifier, uniform_weights
from surefoot.classification.adversaries import Adversary, standardise
from surefoot.classification.networks import Encoder
from surefoot.errors import ConfigError
from surefoot.losses import AdversaryUpdate, SoftUpdate, br_dro_example_weights, loss_quantile
from surefoot.training.distributed import is_distributed

__all__ = ("BRDRO", "Observation", "Tail")

AdversaryCallable = Callable[[int, int], Adversary]


@dataclass(frozen=True)
class Tail:
    """Which losses are the tail, and how the adversary's weights on it become the learner's.

    Args:
        level: Share of the examples in the tail, a0, in (0, 1]; eta is the batch's (1 - level) quantile.
        normalisation: ``batch`` divides the weights by their sum, ``level`` by level * batch.
        floor: Smallest weight before normalisation, in [0, 1]; a saturated adversary cannot freeze the learner.
        threshold_decay: Decay of eta's moving average over batches, in [0, 1); 0 takes the batch's own.

    Raises:
        ConfigError: If a number is outside its range.
    """

    level: float = 0.05
    normalisation: Literal["batch", "level"] = "batch"
    floor: float = 0.01
    threshold_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (0 < self.level <= 1 and 0 <= self.floor <= 1 and 0 <= self.threshold_decay < 1):
            raise ConfigError(
                "level must be in (0, 1], floor in [0, 1] and threshold_decay in [0, 1),"
                f" got {self.level}, {self.floor} and {self.threshold_decay}."
            )


@dataclass(frozen=True)
class Observation:
    """What the adversary sees of an example.

    Args:
        encoder: From inputs to what is seen; without it, the network's features (detached). If it has parameters, the
            adversary's optimizer trains them.
        standardise: Whether each feature is seen at mean zero and variance one over the batch, so that the penalty does
            not depend on its scale (not in the paper).
    """

    encoder: Encoder | None = None
    standardise: bool = False


class BRDRO(ReweightedClassifier):
    """Minimise the risk that a simple adversary can find; needs no groups in training.

    Per batch: the adversary, which sees a description of each example and its label, takes a step towards the
    examples whose loss exceeds the threshold; the learner minimises the loss under its weights. All ranks' examples
    go into one adversary step. The adversary's gradient never reaches the network, nor the learner's the adversary.

    Two adversary updates: `SoftUpdate` ascends ``mean[w (loss - eta)] - penalty * complexity`` (section 3 of the
    paper); `NoRegretUpdate` is the practical form of the authors' code: the adversary learns to classify the tail, and
    each example keeps an importance that grows by ``exp(hedge_step * w)`` at each visit (Hedge). The importance either
    multiplies the adversary's weight in the loss, or, as in the authors' code, decides how often an example is drawn,
    anew each epoch and with replacement, beside the adversary's weight in the loss; it has mean one over the training
    set. Departure: a visit of an example that is drawn r > 1 times as often as at first counts 1 / r, because growth by
    draws that it makes more frequent itself ends at a single example; so an epoch adds at most about ``hedge_step``.

    Reference: Setlur et al., ICLR 2023, arXiv 2302.02931.
    """

    needs_cross_entropy = True

    log_importance: Tensor
    draw_frequency: Tensor
    threshold: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable,
        adversary: AdversaryCallable,
        adversary_optimizer: OptimizerCallable,
        penalty: float = 0.05,
        tail: Tail = Tail(),
        update: AdversaryUpdate | None = None,
        observation: Observation = Observation(),
        **classifier: Any,
    ) -> None:
        """Initialize BR-DRO.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters.
            adversary: Class of the adversary, from the lengths of an observation and of the labels.
            adversary_optimizer: Optimizer of the adversary's parameters.
            penalty: Cost of one unit of the adversary's complexity.
            tail: Which losses are the tail, and how the adversary's weights on it become the learner's.
            update: How the adversary learns: SoftUpdate (default) or NoRegretUpdate.
            observation: What the adversary sees of an example.
            classifier: Arguments of `ClassifierModule`.

        Raises:
            ConfigError: If the penalty is negative.
        """
        super().__init__(encoder, optimizer, **classifier)
        if penalty < 0:
            raise ConfigError(f"penalty must be at least 0, got {penalty}.")
        self.penalty, self.tail, self.update = penalty, tail, update or SoftUpdate()
        self.observation, self.standardise_observation = observation.encoder, observation.standardise
        n_features = encoder.n_features if self.observation is None else self.observation.n_features
        self.adversary = adversary(n_features, self.network.head.out_features)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        parameters = [p for m in (self.adversary, self.observation) if m is not None for p in m.parameters()]
        self.adversary_optimizer = adversary_optimizer(parameters) if parameters else None
        # The adversary steps by itself, on all ranks' examples: DDP must leave its parameters alone.
        ignored = [name for name, _ in self.named_parameters() if name.startswith(("adversary.", "observation."))]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, ignored)

    def first_stage(self) -> tuple[str, int] | None:
        """Return the length of the warm-up, which is ERM."""
        n_epochs = self.update.warmup_epochs
        return ("update.init_args.warmup_epochs", n_epochs) if n_epochs else None

    def unfinished(self) -> str | None:
        """Return what is missing until the adversary has taken a step."""
        missing = super().unfinished()
        if missing is None and self.threshold.isnan():
            return "the adversary never took a step"
        return missing

    def setup(self, stage: str) -> None:
        """Allocate the examples' importance and how often each is drawn."""
        if stage == "fit" and self.update.hedge_step > 0:
            self.register_example_buffer("log_importance", 0.0)
            self.register_example_buffer("draw_frequency", 1.0)

    def on_fit_start(self) -> None:
        """Start from rank zero's adversary everywhere."""
        if is_distributed():
            for module in (self.adversary, self.observation):
                for parameter in module.parameters() if module is not None else ():
                    dist.broadcast(parameter.data, src=0)

    def on_train_start(self) -> None:
        """Go on drawing as the epoch began, when a run is resumed in mid-epoch."""
        super().on_train_start()
        self._draw_by_frequency()

    def on_train_epoch_start(self) -> None:
        """Draw by the importance that the examples have now."""
        if self.update.importance == "sampling":
            self.draw_frequency = self.relative_importance()
            self._draw_by_frequency()

    def _draw_by_frequency(self) -> None:
        if self.update.importance == "sampling":
            self.draw_by(self.draw_frequency)

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Let the adversary take its step, then weight the examples by its response."""
        losses, target = examples.losses, examples.column("target")
        if self.current_epoch < self.update.warmup_epochs:
            return uniform_weights(examples)
        threshold = self.update_threshold(losses)
        source = examples.features if self.observation is None else examples.column("input")
        for _ in range(self.update.n_steps):
            self.adversary_step(self.observe(source), target, losses, threshold)
        observed = self.observe(source).detach()
        with torch.no_grad():
            weights = self.adversary.respond(observed, target, losses, threshold)
        if self.update.hedge_step > 0:
            index = examples.column("index")
            self.update_importance(index, weights)
            if self.update.importance == "loss":
                weights = weights * self.relative_importance()[index]
        self.log("train/adversary_mean_weight", weights.mean())
        return br_dro_example_weights(weights, self.tail.level, self.tail.normalisation, self.tail.floor)

    def observe(self, source: Tensor) -> Tensor:
        """Return what the adversary sees of features or inputs, ``(batch, features)``."""
        observed: Tensor = source if self.observation is None else self.observation(source)
        return standardise(observed.float()) if self.standardise_observation else observed.float()

    def update_threshold(self, losses: Tensor) -> Tensor:
        """Return eta, the batch's quantile or its moving average."""
        quantile, decay = loss_quantile(losses, self.tail.level), self.tail.threshold_decay
        mixed = decay * self.threshold + (1 - decay) * quantile
        self.threshold = torch.where(self.threshold.isnan(), quantile, mixed)
        return self.threshold

    def adversary_step(self, observed: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> None:
        """Take one ascent step of the adversary."""
        if self.adversary_optimizer is None:
            return
        complexity = self.adversary.complexity(observed, target)
        loss = self.update.loss(self.adversary, observed, target, losses, threshold) + self.penalty * complexity
        self.adversary_optimizer.zero_grad()
        loss.backward()
        self.adversary_optimizer.step()
        self.log("train/adversary_complexity", complexity.detach())

    def update_importance(self, index: Tensor, weights: Tensor) -> None:
        """Raise the visited examples' importance by Hedge, once for each visit."""
        growth = self.update.hedge_step * weights / self.draw_frequency[index].clamp_min(1)
        self.log_importance.index_add_(0, index, growth.to(self.log_importance))

    def relative_importance(self) -> Tensor:
        """Return the examples' importance, of mean one over the training set, ``(examples,)``."""
        return self.log_importance.softmax(0) * len(self.log_importance)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the adversary's optimizer."""
        super().on_save_checkpoint(checkpoint)
        if self.adversary_optimizer is not None:
            checkpoint["adversary_optimizer"] = self.adversary_optimizer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the adversary's optimizer."""
        super().on_load_checkpoint(checkpoint)
        if self.adversary_optimizer is not None and "adversary_optimizer" in checkpoint:
            self.adversary_optimizer.load_state_dict(checkpoint["adversary_optimizer"])
