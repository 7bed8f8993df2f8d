"""The Gaussian mechanism, and perturbing the solution or the objective of a convex problem.

References: Chaudhuri, Monteleoni, Sarwate, JMLR 2011 (output perturbation); Kifer, Smith, Thakurta, COLT 2012
(objective perturbation, theorem 2 for Gaussian noise).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.privacy.accounting import calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import check_finite_examples, linear_losses
from surefoot.privacy.noise import NoiseSource

__all__ = ("gaussian_mechanism", "objective_perturbation", "output_perturbation")


def gaussian_mechanism(
    value: Tensor,
    sensitivity: float,
    epsilon: float,
    delta: float,
    source: NoiseSource,
    step: int = 0,
) -> Tensor:
    """Return a value with Gaussian noise that makes it (epsilon, delta)-private.

    Args:
        value: What is published.
        sensitivity: How far, in Euclidean norm, one example can move it.
        epsilon: Infinite for no noise.
        delta: Delta.
        source: Where the noise comes from.
        step: Number of the draw; another one for every value published.
    """
    multiplier = calibrate_noise(epsilon, delta, 1.0, 1)
    if multiplier == 0:
        return value.clone()
    return value + multiplier * sensitivity * source.normal(tuple(value.shape), step).to(value)


def _unit_inputs(inputs: Tensor, target: Tensor) -> Tensor:
    """Scale inputs of norm above 1 down to it: with targets of 0 or 1 a logistic gradient's norm is then at most 1.

    Raises:
        DataError: If an input is NaN or infinite, or a target neither 0 nor 1.
    """
    check_finite_examples({"inputs": inputs, "target": target}, "the private data")
    wrong = (target != 0) & (target != 1)
    if wrong.any():
        raise DataError(f"{int(wrong.sum())} of {len(target)} targets are neither 0 nor 1, such as {target[wrong][0]}.")
    norms = torch.linalg.vector_norm(inputs, dim=1, keepdim=True)
    unit: Tensor = inputs / norms.clamp_min(1)
    return unit


def _minimise(inputs: Tensor, target: Tensor, l2: float, linear: Tensor, n_examples: int) -> Tensor:
    """Minimise ``sum losses + l2 / 2 |w|^2 + linear . w`` to a gradient of 1e-9 per example."""
    weight = torch.zeros(inputs.shape[1], 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = linear_losses(inputs @ weight, target, "logistic").sum()
        value: Tensor = (losses + l2 / 2 * weight.square().sum() + (linear * weight).sum()) / n_examples
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()


def output_perturbation(
    inputs: Float[Tensor, "examples features"],
    target: Tensor,
    epsilon: float,
    delta: float,
    l2: float,
    source: NoiseSource,
) -> Float[Tensor, "features 1"]:
    """Fit a logistic regression with an l2 penalty and add noise to its weights.

    The problem ``sum losses + l2 n / 2 |w|^2`` is ``l2 n``-strongly convex and one example's gradient has norm at most
    1 (inputs longer than 1 are scaled down), so adding or removing it moves the minimum by at most ``1 / (l2 n)``, n
    being public.

    Args:
        inputs: Inputs, ``(examples, features)``.
        target: 0 or 1, ``(examples,)``.
        epsilon: Infinite for no noise.
        delta: Delta.
        l2: Strength of the penalty, above 0.
        source: Where the noise comes from.

    Raises:
        ConfigError: If the penalty is not above 0.
        DataError: If an input is NaN or infinite, or a target neither 0 nor 1.
    """
    if not l2 > 0:
        raise ConfigError(f"output perturbation needs an l2 above 0, got {l2}.")
    n_examples = len(inputs)
    warn_of_large_delta(epsilon, delta, n_examples)
    x = _unit_inputs(inputs.double(), target)
    best = _minimise(x, target, l2 * n_examples, torch.zeros(x.shape[1], 1).double(), n_examples)
    return gaussian_mechanism(best, 1 / (l2 * n_examples), epsilon, delta, source)


def objective_perturbation(
    inputs: Float[Tensor, "examples features"],
    target: Tensor,
    epsilon: float,
    delta: float,
    l2: float,
    source: NoiseSource,
) -> Float[Tensor, "features 1"]:
    """Fit a logistic regression to an objective with a random linear term.

    With gradients of norm at most 1 and curvature at most 1/4: noise of variance ``(8 log(2 / delta) + 4 epsilon) /
    epsilon^2`` and a penalty of at least ``2 (1/4) / epsilon`` in ``sum losses + penalty / 2 |w|^2 + b . w``.

    Args:
        inputs: Inputs, ``(examples, features)``; longer ones than 1 are scaled down.
        target: 0 or 1, ``(examples,)``.
        epsilon: Infinite for no noise.
        delta: Delta.
        l2: Strength of the penalty per example, at least 0; raised to what privacy needs.
        source: Where the noise comes from.

    Raises:
        ConfigError: If the penalty is negative, or delta outside (0, 1).
        DataError: If an input is NaN or infinite, or a target neither 0 nor 1.
    """
    if l2 < 0 or not 0 < delta < 1 or not epsilon > 0:
        raise ConfigError(
            f"l2 must be at least 0, delta in (0, 1) and epsilon above 0, got {l2}, {delta} and {epsilon}."
        )
    n_examples = len(inputs)
    warn_of_large_delta(epsilon, delta, n_examples)
    x = _unit_inputs(inputs.double(), target)
    shape = (x.shape[1], 1)
    if math.isinf(epsilon):
        return _minimise(x, target, l2 * n_examples, torch.zeros(shape).double(), n_examples)
    deviation = math.sqrt(8 * math.log(2 / delta) + 4 * epsilon) / epsilon
    penalty = max(l2 * n_examples, 0.5 / epsilon)
    return _minimise(x, target, penalty, deviation * source.normal(shape, 0), n_examples)
