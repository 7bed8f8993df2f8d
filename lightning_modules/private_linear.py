"""Private linear models: fitted by a mechanism with noise, in all dimensions or in a public subspace."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.base import ResumableModule
from surefoot.contracts import PrivateExamples, TrueWeight, datamodule_as
from surefoot.errors import ConfigError
from surefoot.privacy.accounting import Budget, Ledger, warn_of_large_delta
from surefoot.privacy.descent import NoisyGradientDescent
from surefoot.privacy.estimators import SubspaceEstimator
from surefoot.privacy.linear_models import LinearLoss, linear_losses, n_outputs
from surefoot.privacy.mechanisms import Mechanism, PrivateFit
from surefoot.privacy.noise import NoiseSource
from surefoot.privacy.risk import excess_risk
from surefoot.training.distributed import is_distributed

__all__ = ("PrivateLinear",)


class PrivateLinear(ResumableModule):
    """A linear model that is (epsilon, delta)-private for adding or removing one training example.

    Steps are Poisson samples from the datamodule; a `Mechanism` turns each into new weights. Its noise is calibrated to
    all steps that the trainer will take. The ledger is part of the checkpoint: a resumed run cannot change noise,
    sampling or clipping. Nothing that depends on private examples except through the noise is logged in training; val
    is taken to be public or a separate holding.

    Reference: Abadi et al., CCS 2016; Thaker et al., NeurIPS 2024, arXiv 2312.15551 (in a public subspace).

    Attributes:
        ledger: What has been spent; none before training.
    """

    basis: Tensor
    average: Tensor
    n_averaged: Tensor

    def __init__(
        self,
        loss: LinearLoss,
        budget: Budget,
        noise: NoiseSource,
        mechanism: Mechanism | None = None,
        subspace: SubspaceEstimator | None = None,
        n_classes: int | None = None,
    ) -> None:
        """Initialize the model.

        Args:
            loss: ``squared``, ``logistic`` (two classes) or ``softmax``.
            budget: What the whole run may spend: ``epsilon`` and ``delta``.
            noise: Where the noise comes from: SeededNoise to repeat an experiment, SecureNoise to publish a model.
            mechanism: How the weights are found: NoisyGradientDescent (default), or OutputPerturbation or
                ObjectivePerturbation, which solve a logistic regression at once (``sampling_rate`` 1, one step).
            subspace: How directions are found in public data; all dimensions by default.
            n_classes: Number of classes; filled in from the datamodule.

        Raises:
            ConfigError: If the mechanism is not defined for the loss or the budget, or the classes do not fit the loss.
        """
        super().__init__()
        self.automatic_optimization = False
        self.loss, self.budget, self.noise, self.subspace = loss, budget, noise, subspace
        self.mechanism = mechanism or NoisyGradientDescent()
        self.mechanism.check(loss, budget)
        self.n_outputs = n_outputs(loss, n_classes)
        self.weight = nn.Parameter(torch.zeros(0, self.n_outputs))
        for name in ("basis", "average", "n_averaged"):
            self.register_buffer(name, torch.zeros(0))
        self.ledger: Ledger | None = None
        self._settled: PrivateFit | None = None
        self._spent: Ledger | None = None

    def setup(self, stage: str) -> None:
        """Find the subspace in public data and allocate the weights."""
        if self.weight.numel():
            return
        data = self._data()
        n_features = data.n_features
        self.basis = torch.zeros(0)
        if self.subspace is not None:
            self.basis = self.subspace.estimate(data.public())
            n_features = self.basis.shape[1]
        shape = (n_features, self.n_outputs)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.average, self.n_averaged = torch.zeros(shape), torch.zeros(())

    def _data(self) -> PrivateExamples:
        return datamodule_as(self.trainer, PrivateExamples, "PrivateLinear")

    def n_steps(self) -> int:
        """Return how many steps the trainer will take.

        Raises:
            ConfigError: If there is no end to them.
        """
        per_epoch = self._data().steps_per_epoch
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        counts = [epochs * per_epoch] if epochs is not None and epochs >= 0 else []
        counts += [steps] if steps >= 0 else []
        if not counts:
            raise ConfigError("privacy cannot be accounted for without trainer.max_epochs.")
        return min(counts)

    def on_fit_start(self) -> None:
        """Calibrate the noise to all steps, and check delta and a resumed run's ledger."""
        data = self._data()
        settled = PrivateFit(self.loss, self.budget, self.noise, self.n_steps(), data.n_train, data.sampling_rate)
        ledger = self.mechanism.ledger(settled)
        if self.trainer.is_global_zero:
            warn_of_large_delta(self.budget, data.n_train)
        if self._spent is not None:
            self._spent.check_unchanged(ledger)
            ledger = ledger.spend(self._spent.n_steps)
        self._settled, self.ledger = settled, ledger

    def configure_optimizers(self) -> None:
        """Have no optimizer: a step is one line."""

    def forward(self, input: Tensor) -> Tensor:
        """Return outputs of the averaged weights, where some have been averaged, ``(batch, outputs)``."""
        return self._project(input) @ self._final_weight().to(input)

    def _project(self, input: Tensor) -> Tensor:
        return input @ self.basis if self.basis.numel() else input

    def _final_weight(self) -> Tensor:
        averaged = bool(self.n_averaged > 0)
        return self.average / self.n_averaged if averaged else self.weight.detach()

    def full_weight(self) -> Tensor:
        """Return the weights in all dimensions, ``(features, outputs)``."""
        weight = self._final_weight()
        return self.basis @ weight if self.basis.numel() else weight

    @torch.no_grad()
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Take one private step."""
        assert self.ledger is not None
        assert self._settled is not None
        n_steps, step = self._settled.n_steps, self.ledger.n_steps
        if step >= n_steps:
            raise ConfigError(f"the budget covers {n_steps} steps; another would exceed it.")
        inputs = self._project(batch["input"])
        found = self.mechanism.step(self._settled, self.ledger, self.weight, inputs, batch["target"])
        self.weight.copy_(found)
        if step >= n_steps - self.mechanism.n_averaged(n_steps):
            self.average += self.weight
            self.n_averaged += 1
        self.check_finite(self.weight.sum())
        self.ledger = self.ledger.spend()
        self.count_step()

    def unfinished(self) -> str | None:
        """Return what is missing until some of the last steps' weights have been averaged."""
        missing = super().unfinished()
        if missing is None and self.mechanism.n_averaged(self.n_steps()) and not self.n_averaged > 0:
            return (
                f"the noise was calibrated to {self.n_steps()} steps, of which the last are averaged, and training"
                f" ended after {self.trainer.global_step}: let it go on, or set average_last to 0"
            )
        return missing

    def on_train_epoch_end(self) -> None:
        """Log what has been spent."""
        assert self.ledger is not None
        spent = self.mechanism.spent(self.ledger, self.budget)
        if math.isfinite(spent):
            self.log("privacy/epsilon", spent)
        self.log("privacy/noise_multiplier", self.ledger.noise_multiplier)

    def _evaluate(self, stage: str, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs, target = self(batch["input"]), batch["target"]
        losses = linear_losses(outputs, target, self.loss)
        logged = {"loss": losses.mean()}
        if self.loss != "squared":
            scores = torch.cat([-outputs, outputs], 1) if self.loss == "logistic" else outputs
            logged["accuracy"] = (scores.argmax(1) == target).float().mean()
        for name, value in logged.items():
            self.log(
                f"{stage}/{name}",
                value,
                on_step=False,
                on_epoch=True,
                batch_size=len(target),
                sync_dist=is_distributed(),
            )
        data = self._data()
        if isinstance(data, TrueWeight):
            risk = excess_risk(self.full_weight()[:, 0].cpu(), data.true_weight)
            self.log(f"{stage}/excess_risk", risk, on_step=False, on_epoch=True, batch_size=1)
        return {"losses": losses, "outputs": outputs}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Evaluate a batch of val."""
        return self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Evaluate a batch of test."""
        return self._evaluate("test", batch)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return class probabilities ``(batch, classes)``, or predictions ``(batch, numbers)``, and example ids."""
        outputs = self(batch["input"]).float()
        if self.loss == "squared":
            return {"predictions": outputs, "index": batch["index"]}
        if self.loss == "logistic":
            outputs = torch.cat([torch.zeros_like(outputs), outputs], 1)
        return {"probabilities": outputs.softmax(1), "index": batch["index"]}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the ledger."""
        super().on_save_checkpoint(checkpoint)
        if self.ledger is not None:
            checkpoint["privacy_ledger"] = self.ledger._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the ledger and the shapes of the weights."""
        super().on_load_checkpoint(checkpoint)
        spent = checkpoint.get("privacy_ledger")
        self._spent = None if spent is None else Ledger(**spent)
        state = checkpoint["state_dict"]
        self.weight = nn.Parameter(torch.zeros_like(state["weight"]))
        for name in ("basis", "average", "n_averaged"):
            setattr(self, name, torch.zeros_like(state[name]))
