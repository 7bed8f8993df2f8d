"""Deep homogeneous ReLU networks on separable data of high dimension: what the paper's theory is about, small.

Reference: Kang et al., ICLR 2024, section 5 and appendix: gradient descent on an exponential loss ends in a direction
of large margin, weights grow close to rank one with depth, inputs off the data's span lose their norm layer by layer,
and a bias in the last layer alone becomes proportional to the sum of the labels of the margin points, whatever the
labels of the others.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ("HomogeneousOutcome", "HomogeneousProblem", "train_toy")


class HomogeneousProblem(NamedTuple):
    """Points ``x = a (y s u + noise)`` with labels y in {-1, 1}; a is 1 for margin points and 3 for others."""

    n_margin_positive: int = 20
    n_margin_negative: int = 20
    n_far_positive: int = 20
    n_far_negative: int = 20
    n_dimensions: int = 512
    signal: float = 0.5  # s, against noise of length 1
    depth: int = 3  # weight matrices
    width: int = 64


class HomogeneousOutcome(NamedTuple):
    """What a trained network shows."""

    accuracy: float
    top_share: list[float]  # two largest squared singular values over their sum, per matrix between hidden layers
    relative_output: float  # |f(x) - b| off the data's span over that in the span, inputs of equal length
    relative_norms: list[float]  # the same of each layer's activations
    bias: float  # b over the mean |f(x) - b| of the training points
    support_mean: float  # mean label of the points whose margin is within a tenth of the smallest
    label_mean: float  # mean label of all points


def make_points(problem: HomogeneousProblem, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points ``(points, dimensions)`` and labels ``(points,)``."""
    counts = problem[:4]
    labels = torch.cat([torch.full((n,), y) for n, y in zip(counts, (1.0, -1.0) * 2, strict=True)])
    size = torch.cat([torch.full((n,), a) for n, a in zip(counts, (1.0, 1.0, 3.0, 3.0), strict=True)])
    noise = torch.randn(len(labels), problem.n_dimensions, generator=generator)
    noise = F.normalize(noise)
    direction = F.normalize(torch.randn(problem.n_dimensions, generator=generator), dim=0)
    points = size[:, None] * (problem.signal * labels[:, None] * direction + noise)
    return points, labels


def train_toy(
    problem: HomogeneousProblem, seed: int, n_steps: int = 2000, step_length: float = 0.02
) -> HomogeneousOutcome:
    """Train by gradient descent in steps of equal length along the gradient of the logarithm of the exponential loss.

    That is gradient descent's own path, in a time in which directions converge (Lyu & Li, ICLR 2020).

    Args:
        problem: Data and network.
        seed: Seed of data and initial weights.
        n_steps: Steps.
        step_length: Length of a step, over all parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    points, labels = make_points(problem, generator)
    sizes = [problem.n_dimensions, *[problem.width] * (problem.depth - 1), 1]
    weights = [
        (torch.randn(n_out, n_in, generator=generator) * 0.5 * (2 / n_in) ** 0.5).requires_grad_()
        for n_in, n_out in pairwise(sizes)
    ]
    bias = torch.zeros(1, requires_grad=True)
    parameters = [*weights, bias]
    for _ in range(n_steps):
        margins = labels * (_layers(points, weights)[-1][:, 0] + bias)
        gradients = torch.autograd.grad((-margins).logsumexp(0), parameters)
        length = step_length / torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= length * gradient
    with torch.no_grad():
        return _outcome(problem, points, labels, weights, bias, generator)


def _layers(points: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Return every layer's activations; the last is the output before the bias."""
    found = [points]
    for i, weight in enumerate(weights):
        hidden = found[-1] @ weight.T
        found.append(hidden if i == len(weights) - 1 else hidden.relu())
    return found[1:]


def _outcome(
    problem: HomogeneousProblem,
    points: Tensor,
    labels: Tensor,
    weights: list[Tensor],
    bias: Tensor,
    generator: torch.Generator,
) -> HomogeneousOutcome:
    basis = torch.linalg.svd(points, full_matrices=False)[2]  # of the data's span, (points, dims)
    draws = torch.randn(512, problem.n_dimensions, generator=generator)
    outside = F.normalize(draws - draws @ basis.T @ basis)
    inside = F.normalize(points)
    norms = [
        float(torch.linalg.vector_norm(o, dim=1).mean() / torch.linalg.vector_norm(i, dim=1).mean())
        for o, i in zip(_layers(outside, weights), _layers(inside, weights), strict=True)
    ]
    outputs = _layers(points, weights)[-1][:, 0]
    margins = labels * (outputs + bias)
    least = margins.min()
    singular = [torch.linalg.svdvals(w).square() for w in weights[1:-1]]
    return HomogeneousOutcome(
        accuracy=float((labels * (outputs + bias) > 0).float().mean()),
        top_share=[float(s[:2].sum() / s.sum()) for s in singular],
        relative_output=norms[-1],
        relative_norms=norms,
        bias=float(bias / outputs.abs().mean()),
        support_mean=float(labels[margins <= least + 0.1 * least.abs()].mean()),
        label_mean=float(labels.mean()),
    )
