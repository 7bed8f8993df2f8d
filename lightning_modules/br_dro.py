"""BR-DRO: bitrate-constrained distributional robustness."""

from collections.abc import Callable
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
from surefoot.losses import (
    adversary_objective,
    br_dro_example_weights,
    loss_quantile,
    tail_classification_loss,
)
from surefoot.training.distributed import is_distributed

__all__ = ("BRDRO",)

AdversaryCallable = Callable[[int, int], Adversary]


class BRDRO(ReweightedClassifier):
    """Minimise the risk that a simple adversary can find; needs no groups in training.

    Per batch: the adversary, which sees a description of each example and its label, takes a step towards the
    examples whose loss exceeds the threshold; the learner minimises the loss under its weights. All ranks' examples
    go into one adversary step. The adversary's gradient never reaches the network, nor the learner's the adversary.

    Two adversary updates: ``soft`` ascends ``mean[w (loss - eta)] - penalty * complexity`` (section 3 of the paper);
    ``no_regret`` is the practical form of the authors' code: the adversary learns to classify the tail, and each
    example keeps an importance that grows by ``exp(hedge_step * w)`` at each visit (Hedge). The importance either
    multiplies the adversary's weight in the loss, or, as in the authors' code, decides how often an example is drawn,
    anew each epoch and with replacement, beside the adversary's weight in the loss; it has mean one over the training
    set. Departure: a visit of an example that is drawn r > 1 times as often as at first counts 1 / r, because growth
    that feeds on the draws it brings about ends at a single example; so an epoch adds
    at most about ``hedge_step``.

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
        level: float = 0.05,
        penalty: float = 0.05,
        update: Literal["soft", "no_regret"] = "soft",
        n_adversary_steps: int = 1,
        normalisation: Literal["batch", "level"] = "batch",
        floor: float = 0.01,
        threshold_decay: float = 0.0,
        hedge_step: float = 0.0,
        importance: Literal["loss", "sampling"] = "loss",
        warmup_epochs: int = 0,
        observation: Encoder | None = None,
        standardise_observation: bool = False,
        **classifier: Any,
    ) -> None:
        """Initialize BR-DRO.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters.
            adversary: Class of the adversary, from the lengths of an observation and of the labels.
            adversary_optimizer: Optimizer of the adversary's parameters.
            level: Share of the examples in the tail, a0, in (0, 1]; eta is the batch's (1 - level) quantile.
            penalty: Price of one unit of the adversary's complexity.
            update: How the adversary learns, ``soft`` or ``no_regret``.
            n_adversary_steps: Adversary steps per batch.
            normalisation: ``batch`` divides the weights by their sum, ``level`` by level * batch.
            floor: Smallest weight before normalisation, in [0, 1]; a saturated adversary cannot freeze the learner.
            threshold_decay: Decay of eta's moving average over batches, in [0, 1); 0 takes the batch's own.
            hedge_step: Growth of the logarithm of an example's importance per visit (``no_regret`` only). Scale it to
                the number of epochs: the authors' 0.05 in 300 epochs on Waterbirds makes 15 / epochs.
            importance: Whether the importance enters by the ``loss`` or by ``sampling``.
            warmup_epochs: Epochs of ERM before the adversary starts.
            observation: What the adversary sees of the input; without it, the network's features (detached). If it
                has parameters, the adversary's optimizer trains them.
            standardise_observation: Whether the adversary sees each feature at mean zero and variance one over the
                batch, so that the penalty does not depend on its scale (not in the paper).
            classifier: Arguments of `ClassifierModule`.

        Raises:
            ConfigError: If a number is outside its range.
        """
        super().__init__(encoder, optimizer, **classifier)
        if not (0 < level <= 1 and 0 <= floor <= 1 and 0 <= threshold_decay < 1):
            raise ConfigError(
                "level must be in (0, 1], floor in [0, 1] and threshold_decay in [0, 1),"
                f" got {level}, {floor} and {threshold_decay}."
            )
        if penalty < 0 or n_adversary_steps < 1 or warmup_epochs < 0:
            raise ConfigError(
                "penalty and warmup_epochs must be at least 0 and n_adversary_steps at least 1,"
                f" got {penalty}, {warmup_epochs} and {n_adversary_steps}."
            )
        if hedge_step < 0 or (hedge_step > 0 and update != "no_regret"):
            raise ConfigError(f"hedge_step needs update: no_regret and a value of at least 0, got {hedge_step}.")
        if importance == "sampling" and hedge_step == 0:
            raise ConfigError("importance: sampling draws by an importance that needs a hedge_step above 0.")
        self.level, self.penalty, self.update = level, penalty, update
        self.n_adversary_steps, self.normalisation, self.floor = (
            n_adversary_steps,
            normalisation,
            floor,
        )
        self.threshold_decay, self.hedge_step = threshold_decay, hedge_step
        self.importance, self.warmup_epochs = importance, warmup_epochs
        self.observation, self.standardise_observation = observation, standardise_observation
        n_features = encoder.n_features if observation is None else observation.n_features
        self.adversary = adversary(n_features, self.network.head.out_features)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        players = [p for m in (self.adversary, observation) if m is not None for p in m.parameters()]
        self.adversary_optimizer = adversary_optimizer(players) if players else None
        # The adversary steps by itself, on all ranks' examples: DDP must leave its parameters alone.
        ignored = [name for name, _ in self.named_parameters() if name.startswith(("adversary.", "observation."))]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, ignored)

    def first_stage(self) -> tuple[str, int] | None:
        """Return the length of the warm-up, which is ERM."""
        return ("warmup_epochs", self.warmup_epochs) if self.warmup_epochs else None

    def unfinished(self) -> str | None:
        """Return what is missing until the adversary has played."""
        missing = super().unfinished()
        if missing is None and self.threshold.isnan():
            return "the adversary never took a step"
        return missing

    def setup(self, stage: str) -> None:
        """Make room for the examples' importance and for how often each is drawn."""
        if stage == "fit" and self.hedge_step > 0:
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
        if self.importance == "sampling":
            self.draw_frequency = self.relative_importance()
            self._draw_by_frequency()

    def _draw_by_frequency(self) -> None:
        if self.importance == "sampling":
            self.trainer.train_dataloader.sampler.reweight(self.draw_frequency)  # type: ignore[union-attr]

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Let the adversary take its step, then weight the examples by its response."""
        losses, target = examples.losses, examples.column("target")
        if self.current_epoch < self.warmup_epochs:
            return uniform_weights(examples)
        threshold = self.update_threshold(losses)
        source = examples.features if self.observation is None else examples.column("input")
        for _ in range(self.n_adversary_steps):
            self.adversary_step(self.observe(source), target, losses, threshold)
        observed = self.observe(source).detach()
        with torch.no_grad():
            weights = self.adversary.respond(observed, target, losses, threshold)
        if self.hedge_step > 0:
            index = examples.column("index")
            self.update_importance(index, weights)
            if self.importance == "loss":
                weights = weights * self.relative_importance()[index]
        self.log("train/adversary_mean_weight", weights.mean())
        return br_dro_example_weights(weights, self.level, self.normalisation, self.floor)

    def observe(self, source: Tensor) -> Tensor:
        """Return what the adversary sees of features or inputs, ``(batch, features)``."""
        observed: Tensor = source if self.observation is None else self.observation(source)
        return standardise(observed.float()) if self.standardise_observation else observed.float()

    def update_threshold(self, losses: Tensor) -> Tensor:
        """Return eta, the batch's quantile or its moving average."""
        quantile = loss_quantile(losses, self.level)
        mixed = self.threshold_decay * self.threshold + (1 - self.threshold_decay) * quantile
        self.threshold = torch.where(self.threshold.isnan(), quantile, mixed)
        return self.threshold

    def adversary_step(self, observed: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> None:
        """Take one ascent step of the adversary."""
        if self.adversary_optimizer is None:
            return
        complexity = self.adversary.complexity(observed, target)
        if self.update == "soft":
            weights = self.adversary.respond(observed, target, losses, threshold)
            loss = -adversary_objective(weights, losses, threshold, complexity, self.penalty)
        else:
            logits = self.adversary(observed, target)
            loss = tail_classification_loss(logits, losses, threshold) + self.penalty * complexity
        self.adversary_optimizer.zero_grad()
        loss.backward()
        self.adversary_optimizer.step()
        self.log("train/adversary_complexity", complexity.detach())

    def update_importance(self, index: Tensor, weights: Tensor) -> None:
        """Raise the visited examples' importance by Hedge, once for each visit."""
        growth = self.hedge_step * weights / self.draw_frequency[index].clamp_min(1)
        self.log_importance.index_add_(0, index, growth.to(self.log_importance))

    def relative_importance(self) -> Tensor:
        """Return the examples' importance, of mean one over the training set, ``(examples,)``."""
        return self.log_importance.softmax(0) * len(self.log_importance)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the adversary's optimizer."""
        super().on_save_checkpoint(checkpoint)
        if self.adversary_optimizer is not None:
            checkpoint["adversary_optimizer"] = self.adversary_optimizer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the adversary's optimizer."""
        super().on_load_checkpoint(checkpoint)
        if self.adversary_optimizer is not None and "adversary_optimizer" in checkpoint:
            self.adversary_optimizer.load_state_dict(checkpoint["adversary_optimizer"])
