"""The subspace that regression tasks share, estimated from public tasks; from private data as a control.

References: Tripuraneni, Jin, Jordan, ICML 2021 (method of moments); Thaker et al., arXiv 2312.15551v2.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.privacy.accounting import Budget, calibrate_noise, warn_of_large_delta
from surefoot.privacy.linear_models import check_finite_examples
from surefoot.privacy.noise import NoiseSource

__all__ = (
    "alternating_minimisation",
    "method_of_moments",
    "principal_directions",
    "private_moments",
    "sine_of_largest_angle",
    "tasks_svd",
)

Basis = Float[Tensor, "features directions"]


def _check(n_directions: int, n_features: int) -> None:
    if not 1 <= n_directions <= n_features:
        raise ConfigError(
            f"a subspace of {n_features} dimensions has 1 to {n_features} directions, got {n_directions}."
        )


def _leading(moments: Tensor, n_directions: int) -> Tensor:
    """Return the eigenvectors of the largest eigenvalues, the largest first."""
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors
    return vectors[:, -n_directions:].flip(1)


def sine_of_largest_angle(found: Basis, true: Float[Tensor, "features others"]) -> float:
    """Return gamma, the sine of the largest principal angle between two subspaces with orthonormal bases, in [0, 1]."""
    cosines = torch.linalg.svdvals(found.double().T @ true.double())
    return math.sqrt(max(0.0, 1 - float(cosines.min()) ** 2))


def method_of_moments(
    inputs: Float[Tensor, "examples features"],
    target: Float[Tensor, " examples"],
    n_directions: int,
) -> Basis:
    """Return the leading eigenvectors of ``mean y^2 x x^T``, examples of all tasks together.

    For isotropic inputs its expectation is a multiple of the identity plus ``2 B E[a a^T] B^T``.

    Args:
        inputs: Inputs, ``(examples, features)``.
        target: Targets, ``(examples,)``.
        n_directions: Directions of the subspace.
    """
    _check(n_directions, inputs.shape[1])
    weighted = inputs * target[:, None]
    moments = (weighted.T @ weighted).double() / len(inputs)
    return _leading(moments, n_directions).to(inputs)


def tasks_svd(
    inputs: Float[Tensor, "examples features"],
    target: Float[Tensor, " examples"],
    task: Int[Tensor, " examples"],
    n_directions: int,
) -> Basis:
    """Solve each task by least squares, and return the leading directions of the stacked solutions.

    Raises:
        DataError: If a task has fewer examples than there are features, or there are fewer tasks than directions.
    """
    _check(n_directions, inputs.shape[1])
    solutions = []
    for number in task.unique():
        x, y = inputs[task == number].double(), target[task == number].double()
        if len(x) < x.shape[1]:
            raise DataError(
                f"public task {int(number)} has {len(x)} examples of {x.shape[1]} features: least squares per task"
                " needs as many; take the method of moments or alternating minimisation."
            )
        solutions.append(torch.linalg.lstsq(x, y[:, None]).solution[:, 0])
    if len(solutions) < n_directions:
        raise DataError(f"{len(solutions)} public tasks cannot span {n_directions} directions.")
    left: Tensor = torch.linalg.svd(torch.stack(solutions, 1), full_matrices=False).U
    return left[:, :n_directions].to(inputs)


def alternating_minimisation(
    inputs: Float[Tensor, "examples features"],
    target: Float[Tensor, " examples"],
    task: Int[Tensor, " examples"],
    n_directions: int,
    n_rounds: int = 20,
) -> Basis:
    """Fit all tasks jointly: in turn the tasks' coefficients in the subspace, and the subspace given them.

    It starts from the method of moments. Tasks may have fewer examples than features.

    Args:
        inputs: Inputs, ``(examples, features)``.
        target: Targets, ``(examples,)``.
        task: Task per example, ``(examples,)``.
        n_directions: Directions of the subspace.
        n_rounds: Rounds.
    """
    basis = method_of_moments(inputs, target, n_directions).double()
    x, y = inputs.double(), target.double()
    _, task = task.unique(return_inverse=True)
    n_tasks, n_features = int(task.max()) + 1, x.shape[1]
    ridge = 1e-6 * torch.eye(n_directions, dtype=torch.float64)
    for _ in range(n_rounds):
        z = x @ basis
        gram = torch.zeros(n_tasks, n_directions, n_directions, dtype=torch.float64)
        gram.index_add_(0, task, z[:, :, None] * z[:, None])
        side = torch.zeros(n_tasks, n_directions, dtype=torch.float64)
        side.index_add_(0, task, z * y[:, None])
        alphas = torch.linalg.solve(gram + ridge, side[:, :, None])[:, :, 0][task]  # (examples, k)
        basis = _subspace_step(x, y, alphas, basis, n_features)
    return basis.to(inputs)


def _subspace_step(x: Tensor, y: Tensor, alphas: Tensor, start: Tensor, n_features: int) -> Tensor:
    """Return the orthonormalised B that minimises ``sum (x^T B a - y)^2``, by conjugate gradients from a start."""

    def apply(matrix: Tensor) -> Tensor:
        return x.T @ (((x @ matrix) * alphas).sum(1, keepdim=True) * alphas)

    side = x.T @ (y[:, None] * alphas)
    found = start
    residual = side - apply(found)
    direction, size = residual, residual.square().sum()
    for _ in range(50):
        if float(size) < 1e-18 * float(side.square().sum()):
            break
        mapped = apply(direction)
        length = size / (direction * mapped).sum().clamp_min(1e-300)
        found = found + length * direction
        residual = residual - length * mapped
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    orthonormal: Tensor = torch.linalg.qr(found).Q
    return orthonormal


def principal_directions(features: Float[Tensor, "examples features"], n_directions: int) -> Basis:
    """Return the leading directions of public features' second moment (their principal components without centring)."""
    _check(n_directions, features.shape[1])
    moments = (features.T @ features).double() / len(features)
    return _leading(moments, n_directions).to(features)


def private_moments(
    inputs: Float[Tensor, "examples features"],
    target: Float[Tensor, " examples"],
    n_directions: int,
    budget: Budget,
    clip: float,
    source: NoiseSource,
) -> Basis:
    """Estimate the subspace from private data by the method of moments, with symmetric Gaussian noise: a control.

    Each ``y x`` is scaled down to norm ``clip``, so one example moves the sum of outer products by at most ``clip^2``
    in Frobenius norm (Dwork et al., STOC 2014).

    Args:
        inputs: Private inputs, ``(examples, features)``.
        target: Private targets, ``(examples,)``.
        n_directions: Directions of the subspace.
        budget: What it may cost.
        clip: Largest norm of ``y x``.
        source: Where the noise comes from.

    Raises:
        DataError: If an input or target is NaN or infinite.
    """
    _check(n_directions, inputs.shape[1])
    check_finite_examples({"inputs": inputs, "target": target}, "the private data")
    warn_of_large_delta(budget, len(inputs))
    weighted = inputs * target[:, None]
    norms = torch.linalg.vector_norm(weighted, dim=1, keepdim=True)
    weighted = weighted * (clip / norms.clamp_min(1e-30)).clamp_max(1)
    moments = (weighted.T @ weighted).double()
    multiplier = calibrate_noise(budget.epsilon, budget.delta, 1.0, 1)
    if multiplier > 0:
        noise = source.normal(tuple(moments.shape), 1_000_000).triu()
        noise = noise + noise.triu(1).T
        moments = moments + multiplier * clip**2 * noise
    return _leading(moments, n_directions).to(inputs)
