"""Many users, a regression each: alone, alone in a public subspace, or together under user-level privacy.

References: Jain, Rush, Smith, Song, Thakurta, NeurIPS 2021 (private alternating minimisation); McMahan et al., ICLR
2018 (DP-FedAvg); Thaker et al., arXiv 2312.15551 (purely local learning in a public subspace).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.privacy.accounting import Budget, calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import check_finite_examples
from surefoot.privacy.noise import NoiseSource
from surefoot.privacy.subspace import Basis

__all__ = (
    "CoordinationSettings",
    "dp_federated_averaging",
    "local_regressions",
    "private_alternating_minimisation",
)


@dataclass(frozen=True)
class CoordinationSettings:
    """How users coordinate, and the guarantee for adding or removing a whole user."""

    budget: Budget
    clip: float  # of what one user sends in a round
    n_rounds: int
    learning_rate: float = 1.0


def local_regressions(
    inputs: Float[Tensor, "users examples features"],
    target: Float[Tensor, "users examples"],
    basis: Basis | None = None,
    ridge: float = 1e-3,
) -> Float[Tensor, "users features"]:
    """Solve every user's ridge regression on that user's data alone; nothing is sent, so nothing is spent.

    Args:
        inputs: Inputs, ``(users, examples, features)``.
        target: Targets, ``(users, examples)``.
        basis: Public subspace that the weights lie in; all dimensions by default.
        ridge: Penalty per example.

    Returns:
        Weights in all dimensions, ``(users, features)``.

    Raises:
        DataError: If an input or target is NaN or infinite.
    """
    check_finite_examples({"inputs": inputs, "target": target}, "the users' data")
    z = inputs if basis is None else inputs @ basis.to(inputs)
    n_examples, n_features = z.shape[1:]
    gram = z.transpose(1, 2) @ z + ridge * n_examples * torch.eye(n_features).to(z)
    solved: Tensor = torch.linalg.solve(gram, z.transpose(1, 2) @ target[:, :, None])[:, :, 0]
    return solved if basis is None else solved @ basis.to(inputs).T


def _clipped(values: Tensor, clip: float) -> Tensor:
    """Scale each user's contribution ``(users, ...)`` down to a norm of at most ``clip``."""
    norms = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp_min(1e-30)
    factors: Tensor = (clip / norms).clamp_max(1).view(-1, *[1] * (values.ndim - 1))
    return values * factors


def private_alternating_minimisation(
    inputs: Float[Tensor, "users examples features"],
    target: Float[Tensor, "users examples"],
    start: Basis,
    settings: CoordinationSettings,
    source: NoiseSource,
) -> Basis:
    """Improve a shared subspace: users solve for their coefficients, then send a clipped gradient; noise is added.

    Args:
        inputs: Inputs, ``(users, examples, features)``.
        target: Targets, ``(users, examples)``.
        start: Where the subspace starts, orthonormal.
        settings: Rounds, clipping and the guarantee.
        source: Where the noise comes from.

    Returns:
        The subspace after the last round; users then regress in it by themselves.

    Raises:
        DataError: If an input or target is NaN or infinite.
    """
    check_finite_examples({"inputs": inputs, "target": target}, "the users' data")
    warn_of_large_delta(settings.budget, len(inputs), "users")
    multiplier = calibrate_noise(settings.budget.epsilon, settings.budget.delta, 1.0, settings.n_rounds)
    n_users, n_examples, _ = inputs.shape
    basis = start
    for step in range(settings.n_rounds):
        z = inputs @ basis
        k = z.shape[2]
        gram = z.transpose(1, 2) @ z + 1e-3 * n_examples * torch.eye(k).to(z)
        alphas = torch.linalg.solve(gram, z.transpose(1, 2) @ target[:, :, None])  # (users, k, 1)
        residual = z @ alphas - target[:, :, None]  # (users, examples, 1)
        gradients = inputs.transpose(1, 2) @ residual @ alphas.transpose(1, 2) / n_examples
        summed = _clipped(gradients, settings.clip).sum(0)
        if multiplier > 0:
            noise = source.normal(tuple(summed.shape), step).to(summed)
            summed = summed + multiplier * settings.clip * noise
        basis = torch.linalg.qr(basis - settings.learning_rate * summed / n_users).Q
    return basis


def dp_federated_averaging(
    inputs: Float[Tensor, "users examples features"],
    target: Float[Tensor, "users examples"],
    settings: CoordinationSettings,
    source: NoiseSource,
    n_local_steps: int = 5,
    local_rate: float = 0.1,
) -> Float[Tensor, " features"]:
    """Learn one model for all users: each takes a few steps and sends a clipped change; noise is added to the mean.

    Args:
        inputs: Inputs, ``(users, examples, features)``.
        target: Targets, ``(users, examples)``.
        settings: Rounds, clipping and the guarantee.
        source: Where the noise comes from.
        n_local_steps: Steps of a user in a round.
        local_rate: Learning rate of those steps.

    Returns:
        The common weights, ``(features,)``.

    Raises:
        DataError: If an input or target is NaN or infinite.
    """
    check_finite_examples({"inputs": inputs, "target": target}, "the users' data")
    warn_of_large_delta(settings.budget, len(inputs), "users")
    multiplier = calibrate_noise(settings.budget.epsilon, settings.budget.delta, 1.0, settings.n_rounds)
    n_users, n_examples, n_features = inputs.shape
    weight = inputs.new_zeros(n_features)
    for step in range(settings.n_rounds):
        local = weight.expand(n_users, n_features).clone()
        for _ in range(n_local_steps):
            residual = (inputs @ local[:, :, None])[:, :, 0] - target
            local -= local_rate * (residual[:, None] @ inputs)[:, 0] / n_examples
        summed = _clipped(local - weight, settings.clip).sum(0)
        if multiplier > 0:
            noise = source.normal((n_features,), step).to(summed)
            summed = summed + multiplier * settings.clip * noise
        weight = weight + settings.learning_rate * summed / n_users
    return weight
