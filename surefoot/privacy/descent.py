"""Private gradient descent for linear models: the whole data or Poisson samples, in all dimensions or in a subspace.

References: Bassily et al., FOCS 2014; Abadi et al., CCS 2016 (clipping and accounting); Thaker et al., NeurIPS 2024 (in
a subspace).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.privacy.accounting import Accountant, Budget, Ledger, calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import (
    LinearLoss,
    check_finite_examples,
    clipped_gradient_sum,
    n_outputs,
)
from surefoot.privacy.mechanisms import Mechanism, PrivateFit
from surefoot.privacy.noise import NoiseSource
from surefoot.training.distributed import sum_over_ranks

__all__ = ("DescentSettings", "NoisyGradientDescent", "noisy_gradient", "private_descent")


def noisy_gradient(
    clipped_sum: Tensor, noise: Tensor, noise_multiplier: float, clip: float, expected_size: float
) -> Tensor:
    """Return the private mean gradient: the sum of clipped ones and noise over the expected size of a batch.

    The expected size is public; the true one is not, and dividing by it would reveal it.
    """
    if noise_multiplier > 0:
        clipped_sum = clipped_sum + noise_multiplier * clip * noise.to(clipped_sum)
    return clipped_sum / expected_size


class NoisyGradientDescent(Mechanism):
    """Steps along a sum of clipped gradients and noise: DP-SGD on Poisson samples, full-batch descent at rate 1.

    References: Bassily et al., FOCS 2014; Abadi et al., CCS 2016.
    """

    def __init__(
        self,
        clip: float = 1.0,
        learning_rate: float = 0.5,
        average_last: float = 0.5,
        radius: float = math.inf,
        accountant: Accountant = "pld",
    ) -> None:
        """Initialize the mechanism.

        Args:
            clip: Largest norm of an example's gradient.
            learning_rate: Learning rate.
            average_last: Share of the last steps whose weights are averaged, in [0, 1]; 0 takes the last weights.
            radius: Weights are projected onto a ball of it.
            accountant: ``pld`` (tight) or ``rdp`` (an upper bound, faster).

        Raises:
            ConfigError: If a number is out of range.
        """
        if not clip > 0 or not learning_rate > 0 or not radius > 0 or not 0 <= average_last <= 1:
            raise ConfigError(
                "clip, learning_rate and radius must be above 0 and average_last in [0, 1],"
                f" got {clip}, {learning_rate}, {radius} and {average_last}."
            )
        self.clip, self.learning_rate, self.average_last = clip, learning_rate, average_last
        self.radius, self.accountant = radius, accountant

    def check(self, loss: LinearLoss, budget: Budget) -> None:
        """Refuse a finite budget without clipping."""
        if math.isinf(self.clip) and not math.isinf(budget.epsilon):
            raise ConfigError("a finite epsilon needs a finite clip.")

    def ledger(self, fit: PrivateFit) -> Ledger:
        """Return the ledger before the first step; the noise is calibrated to all steps."""
        budget = fit.budget
        multiplier = calibrate_noise(budget.epsilon, budget.delta, fit.sampling_rate, fit.n_steps, self.accountant)
        return Ledger(multiplier, fit.sampling_rate, self.clip)

    def step(self, fit: PrivateFit, ledger: Ledger, weight: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the weights after a step on all ranks' examples."""
        summed = clipped_gradient_sum(weight, inputs, target, fit.loss, self.clip).gradient
        return self.descend(fit, ledger, weight, sum_over_ranks(summed))

    def descend(self, fit: PrivateFit, ledger: Ledger, weight: Tensor, clipped_sum: Tensor) -> Tensor:
        """Return the weights after a step.

        Args:
            fit: What is settled.
            ledger: What has been spent before the step.
            weight: Weights before the step, ``(features, outputs)``.
            clipped_sum: Sum of the clipped gradients of the step's examples, ``(features, outputs)``.
        """
        noise = clipped_sum
        if ledger.noise_multiplier > 0:
            noise = fit.source.normal(tuple(clipped_sum.shape), ledger.n_steps)  # the same on every rank
        expected = fit.sampling_rate * fit.n_examples
        gradient = noisy_gradient(clipped_sum, noise, ledger.noise_multiplier, self.clip, expected)
        weight = weight - self.learning_rate * gradient
        if math.isfinite(self.radius):
            weight = weight * (self.radius / torch.linalg.vector_norm(weight).clamp_min(1e-30)).clamp_max(1)
        return weight

    def spent(self, ledger: Ledger, budget: Budget) -> float:
        """Return the epsilon of the steps so far."""
        return ledger.epsilon(budget.delta, self.accountant)

    def n_averaged(self, n_steps: int) -> int:
        """Return the share of the last steps, at least one unless it is 0."""
        return max(1, round(self.average_last * n_steps)) if self.average_last > 0 else 0


@dataclass(frozen=True)
class DescentSettings:
    """How `private_descent` fits, and the guarantee."""

    mechanism: NoisyGradientDescent
    budget: Budget
    n_steps: int
    sampling_rate: float = 1.0


def private_descent(
    inputs: Float[Tensor, "examples features"],
    target: Tensor,
    loss: LinearLoss,
    settings: DescentSettings,
    source: NoiseSource,
    basis: Float[Tensor, "features directions"] | None = None,
    n_classes: int | None = None,
) -> Float[Tensor, "features outputs"]:
    """Fit a linear model privately.

    Args:
        inputs: Inputs, ``(examples, features)``; their number is taken to be public.
        target: Targets, ``(examples,)``.
        loss: ``squared``, ``logistic`` or ``softmax``.
        settings: How, and the guarantee.
        source: Where noise and samples come from.
        basis: Directions of a subspace that does not depend on these data, ``(features, directions)``; weights lie in
            it.
        n_classes: Number of classes, for ``softmax``.

    Returns:
        Weights in all dimensions, ``(features, outputs)``.

    Raises:
        ConfigError: If a finite epsilon comes without clipping, or a number is out of range.
        DataError: If an input or target is NaN or infinite.
    """
    mechanism, budget = settings.mechanism, settings.budget
    mechanism.check(loss, budget)
    check_finite_examples({"inputs": inputs, "target": target}, "the private data")
    projected = inputs if basis is None else inputs @ basis.to(inputs)
    warn_of_large_delta(budget, len(projected))
    fit = PrivateFit(loss, budget, source, settings.n_steps, len(projected), settings.sampling_rate)
    weight = inputs.new_zeros(projected.shape[1], n_outputs(loss, n_classes))
    fitted = _average_iterate(projected, target, mechanism, fit, weight)
    return fitted if basis is None else basis.to(fitted) @ fitted


def _average_iterate(
    inputs: Tensor, target: Tensor, mechanism: NoisyGradientDescent, fit: PrivateFit, weight: Tensor
) -> Tensor:
    """Descend from weights, and return the mean of the last ones, ``(features, outputs)``."""
    ledger = mechanism.ledger(fit)
    average, n_averaged = torch.zeros_like(weight), 0
    first_averaged = fit.n_steps - max(1, mechanism.n_averaged(fit.n_steps))
    input_norms = torch.linalg.vector_norm(inputs, dim=1)
    for step in range(fit.n_steps):
        batch: Tensor | slice = slice(None)
        if fit.sampling_rate < 1:
            batch = fit.source.poisson_sample(len(inputs), fit.sampling_rate, step)
        summed = clipped_gradient_sum(
            weight, inputs[batch], target[batch], fit.loss, mechanism.clip, input_norms[batch]
        ).gradient
        weight = mechanism.descend(fit, ledger, weight, summed)
        ledger = ledger.spend()
        if step >= first_averaged:
            average, n_averaged = average + weight, n_averaged + 1
    return average / n_averaged
