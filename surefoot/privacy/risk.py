"""Excess risk of linear regression in closed form, and what theory says of it, up to constants and logarithms.

Reference: Thaker et al., arXiv 2312.15551; the bounds are quoted from memory of it and carry no constants.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = (
    "excess_risk",
    "full_dimension_bound",
    "moments_gamma_bound",
    "orthonormal",
    "transfer_bound",
)


def excess_risk(
    weight: Float[Tensor, " features"],
    true: Float[Tensor, " features"],
    covariance: Float[Tensor, "features features"] | None = None,
) -> float:
    """Return ``(w - w*)^T S (w - w*)``: the mean squared error beyond the noise, for inputs of second moment S.

    Args:
        weight: Fitted weights, ``(features,)``.
        true: True weights, ``(features,)``.
        covariance: Second moment of the inputs; the identity by default.
    """
    off = weight.double() - true.double()
    moved = off if covariance is None else covariance.double() @ off
    return float((off * moved).sum())


def transfer_bound(gamma: float, norm: float, noise: float, k: int, n: int, epsilon: float, delta: float) -> float:
    """Return ``gamma^2 |a|^2 + s^2 k / n + k^2 log(1/delta) / (n epsilon)^2``: private descent in a subspace."""
    private = 0.0 if math.isinf(epsilon) else k**2 * math.log(1 / delta) / (n * epsilon) ** 2
    return gamma**2 * norm**2 + noise**2 * k / n + private


def full_dimension_bound(d: int, noise: float, n: int, epsilon: float, delta: float) -> float:
    """Return the same in all d dimensions, without a subspace's error."""
    return transfer_bound(0.0, 1.0, noise, d, n, epsilon, delta)


def moments_gamma_bound(d: int, k: int, n_public: int) -> float:
    """Return ``sqrt(d k^2 / n)``, how the method of moments' gamma falls with public examples; at most 1."""
    return min(1.0, math.sqrt(d * k**2 / n_public))


def orthonormal(d: int, k: int, generator: torch.Generator) -> Float[Tensor, "d k"]:
    """Return a uniformly random orthonormal basis of k directions in d dimensions, float64."""
    basis: Tensor = torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q
    return basis
