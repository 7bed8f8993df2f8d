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
from surefoot.privacy.accounting import Accountant, calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import (
    LinearLoss,
    check_finite_examples,
    clipped_gradient_sum,
    n_outputs,
)
from surefoot.privacy.noise import NoiseSource

__all__ = ("DescentSettings", "noisy_gradient", "private_descent")


@dataclass(frozen=True)
class DescentSettings:
    """How to descend, and the guarantee: (epsilon, delta) for adding or removing one example."""

    epsilon: float  # infinite for no noise
    delta: float
    clip: float
    n_steps: int
    learning_rate: float
    sampling_rate: float = 1.0
    average_last: float = 0.5  # share of the steps whose weights are averaged; 0 for the last weights
    radius: float = math.inf  # weights are projected onto a ball of it
    accountant: Accountant = "pld"

    def __post_init__(self) -> None:
        """Check the ranges; epsilon, delta and the rate are checked by the accountant."""
        if not self.clip > 0 or not self.radius > 0 or not 0 <= self.average_last <= 1:
            raise ConfigError(
                "clip and radius must be above 0 and average_last in [0, 1],"
                f" got {self.clip}, {self.radius} and {self.average_last}."
            )
        if math.isinf(self.clip) and not math.isinf(self.epsilon):
            raise ConfigError("a finite epsilon needs a finite clip.")

    def noise_multiplier(self) -> float:
        """Return noise over clip that the guarantee needs."""
        return calibrate_noise(self.epsilon, self.delta, self.sampling_rate, self.n_steps, self.accountant)


def noisy_gradient(
    clipped_sum: Tensor, noise: Tensor, noise_multiplier: float, clip: float, expected_size: float
) -> Tensor:
    """Return the private mean gradient: the sum of clipped ones and noise over the expected size of a batch.

    The expected size is public; the true one is not, and dividing by it would tell.
    """
    if noise_multiplier > 0:
        clipped_sum = clipped_sum + noise_multiplier * clip * noise.to(clipped_sum)
    return clipped_sum / expected_size


def private_descent(
    inputs: Float[Tensor, "examples features"],
    target: Tensor,
    loss: LinearLoss,
    settings: DescentSettings,
    source: NoiseSource,
    basis: Float[Tensor, "features directions"] | None = None,
    n_classes: int | None = None,
    noise_multiplier: float | None = None,
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
        noise_multiplier: The settings' own, where it is known already.

    Returns:
        Weights in all dimensions, ``(features, outputs)``.

    Raises:
        DataError: If an input or target is NaN or infinite.
    """
    check_finite_examples({"inputs": inputs, "target": target}, "the private data")
    projected = inputs if basis is None else inputs @ basis.to(inputs)
    n_examples, n_features = projected.shape
    warn_of_large_delta(settings.epsilon, settings.delta, n_examples)
    if noise_multiplier is None:
        noise_multiplier = settings.noise_multiplier()
    shape = (n_features, n_outputs(loss, n_classes))
    weight, average, n_averaged = inputs.new_zeros(shape), inputs.new_zeros(shape), 0
    first_averaged = settings.n_steps - max(1, round(settings.average_last * settings.n_steps))
    input_norms = torch.linalg.vector_norm(projected, dim=1)
    for step in range(settings.n_steps):
        batch: Tensor | slice = slice(None)
        if settings.sampling_rate < 1:
            batch = source.poisson_sample(n_examples, settings.sampling_rate, step)
        summed = clipped_gradient_sum(
            weight, projected[batch], target[batch], loss, settings.clip, input_norms[batch]
        ).gradient
        noise = source.normal(shape, step) if noise_multiplier > 0 else summed
        expected = settings.sampling_rate * n_examples
        gradient = noisy_gradient(summed, noise, noise_multiplier, settings.clip, expected)
        weight = weight - settings.learning_rate * gradient
        weight = weight * min(1.0, settings.radius / max(float(weight.norm()), 1e-30))
        if step >= first_averaged:
            average, n_averaged = average + weight, n_averaged + 1
    fitted = average / n_averaged
    return fitted if basis is None else basis.to(fitted) @ fitted
