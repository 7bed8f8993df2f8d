"""Perturbing the solution or the objective of a logistic regression, which is solved once, on all examples.

References: Chaudhuri, Monteleoni, Sarwate, JMLR 2011 (output perturbation); Kifer, Smith, Thakurta, COLT 2012
(objective perturbation, theorem 2 for Gaussian noise).
"""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.privacy.accounting import Budget, Ledger, calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import LinearLoss, check_finite_examples, linear_losses
from surefoot.privacy.mechanisms import Mechanism, PrivateFit, gaussian_mechanism
from surefoot.privacy.noise import NoiseSource
from surefoot.training.distributed import is_distributed

__all__ = ("ObjectivePerturbation", "OutputPerturbation", "Perturbation")


class Perturbation(Mechanism):
    """Solves a logistic regression with an l2 penalty on all examples, in one step on one rank.

    Inputs of norm above 1 are scaled down to it, so that an example's gradient has norm at most 1.
    """

    def __init__(self, l2: float = 0.01) -> None:
        """Initialize the mechanism.

        Args:
            l2: Strength of the penalty per example.
        """
        self.l2 = l2

    @abstractmethod
    def solve(
        self,
        inputs: Float[Tensor, "examples features"],
        target: Tensor,
        budget: Budget,
        source: NoiseSource,
    ) -> Float[Tensor, "features 1"]:
        """Return private weights, float64.

        Args:
            inputs: Inputs of norm at most 1, float64, ``(examples, features)``.
            target: 0 or 1, ``(examples,)``.
            budget: What it may cost.
            source: Where the noise comes from.
        """

    def fit(
        self,
        inputs: Float[Tensor, "examples features"],
        target: Tensor,
        budget: Budget,
        source: NoiseSource,
    ) -> Float[Tensor, "features 1"]:
        """Fit a logistic regression privately.

        Args:
            inputs: Inputs, ``(examples, features)``; their number is taken to be public.
            target: 0 or 1, ``(examples,)``.
            budget: What it may cost.
            source: Where the noise comes from.

        Returns:
            Weights, float64, ``(features, 1)``.

        Raises:
            DataError: If an input is NaN or infinite, or a target neither 0 nor 1.
        """
        warn_of_large_delta(budget, len(inputs))
        return self.solve(_unit_inputs(inputs.double(), target), target, budget, source)

    def check(self, loss: LinearLoss, budget: Budget) -> None:
        """Refuse other losses than the logistic one."""
        if loss != "logistic":
            raise ConfigError(f"{type(self).__name__} is defined for the logistic loss, got {loss}.")

    def ledger(self, fit: PrivateFit) -> Ledger:
        """Return the ledger of the one step."""
        name = type(self).__name__
        if fit.sampling_rate < 1 or fit.n_steps != 1:
            raise ConfigError(
                f"{name} solves once, on all examples: set data.init_args.sampling_rate to 1, steps_per_epoch to 1 and"
                " trainer.max_epochs to 1."
            )
        if is_distributed():
            raise ConfigError(f"{name} runs on one rank: set trainer.devices to 1, or take NoisyGradientDescent.")
        return Ledger(calibrate_noise(fit.budget.epsilon, fit.budget.delta, 1.0, 1), 1.0, clip=1.0)

    def step(self, fit: PrivateFit, ledger: Ledger, weight: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the solution."""
        return self.solve(_unit_inputs(inputs.double(), target), target, fit.budget, fit.source)

    def spent(self, ledger: Ledger, budget: Budget) -> float:
        """Return the whole budget's epsilon: it is spent at once."""
        return budget.epsilon

    def n_averaged(self, n_steps: int) -> int:
        """Return 0."""
        return 0


class OutputPerturbation(Perturbation):
    """Solve, and add noise to the weights.

    The problem ``sum losses + l2 n / 2 |w|^2`` is ``l2 n``-strongly convex and one example's gradient has norm at most
    1, so adding or removing it moves the minimum by at most ``1 / (l2 n)``, n being public.
    """

    def __init__(self, l2: float = 0.01) -> None:
        """Initialize the mechanism.

        Args:
            l2: Strength of the penalty per example, above 0.

        Raises:
            ConfigError: If the penalty is not above 0.
        """
        super().__init__(l2)
        if not 0 < l2 < math.inf:
            raise ConfigError(f"output perturbation needs a finite l2 above 0, got {l2}.")

    def solve(
        self,
        inputs: Float[Tensor, "examples features"],
        target: Tensor,
        budget: Budget,
        source: NoiseSource,
    ) -> Float[Tensor, "features 1"]:
        """Return the solution with noise."""
        n_examples = len(inputs)
        best = _minimise(inputs, target, self.l2 * n_examples, torch.zeros(inputs.shape[1], 1).double())
        return gaussian_mechanism(best, 1 / (self.l2 * n_examples), budget, source)


class ObjectivePerturbation(Perturbation):
    """Solve with a random linear term in the objective.

    With gradients of norm at most 1 and curvature at most 1/4: noise of variance ``(8 log(2 / delta) + 4 epsilon) /
    epsilon^2`` and a penalty of at least ``2 (1/4) / epsilon`` in ``sum losses + penalty / 2 |w|^2 + b . w``.
    """

    def __init__(self, l2: float = 0.01) -> None:
        """Initialize the mechanism.

        Args:
            l2: Strength of the penalty per example, at least 0; raised to what privacy needs.

        Raises:
            ConfigError: If the penalty is negative.
        """
        super().__init__(l2)
        if not 0 <= l2 < math.inf:
            raise ConfigError(f"objective perturbation needs a finite l2 of at least 0, got {l2}.")

    def solve(
        self,
        inputs: Float[Tensor, "examples features"],
        target: Tensor,
        budget: Budget,
        source: NoiseSource,
    ) -> Float[Tensor, "features 1"]:
        """Return the solution of the perturbed problem."""
        shape, l2 = (inputs.shape[1], 1), self.l2 * len(inputs)
        epsilon = budget.epsilon
        if math.isinf(epsilon):
            return _minimise(inputs, target, l2, torch.zeros(shape).double())
        deviation = math.sqrt(8 * math.log(2 / budget.delta) + 4 * epsilon) / epsilon
        return _minimise(inputs, target, max(l2, 0.5 / epsilon), deviation * source.normal(shape, 0))


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


def _minimise(inputs: Tensor, target: Tensor, l2: float, linear: Tensor) -> Tensor:
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
        value: Tensor = (losses + l2 / 2 * weight.square().sum() + (linear * weight).sum()) / len(inputs)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()
