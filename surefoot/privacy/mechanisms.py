"""What a private mechanism of linear models is, and the Gaussian mechanism, which publishes a value with noise."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from surefoot.privacy.accounting import Budget, Ledger, calibrate_noise
from surefoot.privacy.linear_models import LinearLoss
from surefoot.privacy.noise import NoiseSource

__all__ = ("Mechanism", "PrivateFit", "gaussian_mechanism")


class PrivateFit(NamedTuple):
    """What is settled before the first step of a fit."""

    loss: LinearLoss
    budget: Budget
    source: NoiseSource
    n_steps: int  # all steps, to which the noise is calibrated
    n_examples: int  # private training examples; taken to be public
    sampling_rate: float = 1.0  # chance of each example to be in a step


class Mechanism(ABC):
    """Fits a linear model privately, in one step or in many."""

    @abstractmethod
    def check(self, loss: LinearLoss, budget: Budget) -> None:
        """Refuse a loss or a budget that the mechanism is not defined for.

        Raises:
            ConfigError: If it is not defined for it.
        """

    @abstractmethod
    def ledger(self, fit: PrivateFit) -> Ledger:
        """Return what has been spent before the first step, and the noise that all steps need.

        Raises:
            ConfigError: If the mechanism cannot take these steps.
        """

    @abstractmethod
    def step(self, fit: PrivateFit, ledger: Ledger, weight: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the weights after one more step, ``(features, outputs)``; the same on every rank.

        Args:
            fit: What is settled.
            ledger: What has been spent before the step.
            weight: Weights before the step, ``(features, outputs)``.
            inputs: This rank's examples of the step, ``(batch, features)``.
            target: Their targets, ``(batch,)``.
        """

    @abstractmethod
    def spent(self, ledger: Ledger, budget: Budget) -> float:
        """Return the epsilon that has been spent at the budget's delta."""

    @abstractmethod
    def n_averaged(self, n_steps: int) -> int:
        """Return the number of last steps whose weights are averaged; 0 if the last weights are taken."""


def gaussian_mechanism(
    value: Tensor,
    sensitivity: float,
    budget: Budget,
    source: NoiseSource,
    step: int = 0,
) -> Tensor:
    """Return a value with Gaussian noise that makes it (epsilon, delta)-private.

    Args:
        value: What is published.
        sensitivity: How far, in Euclidean norm, one example can move it.
        budget: What it may cost.
        source: Where the noise comes from.
        step: Number of the draw; another one for every value published.
    """
    multiplier = calibrate_noise(budget.epsilon, budget.delta, 1.0, 1)
    if multiplier == 0:
        return value.clone()
    return value + multiplier * sensitivity * source.normal(tuple(value.shape), step).to(value)
