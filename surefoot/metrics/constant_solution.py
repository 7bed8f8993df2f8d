"""Optimal constant solutions: the prediction without input that minimises the mean training loss, and distances to it.

Reference: Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873, section 3 and appendix; distances as in the
authors' code.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = (
    "Moments",
    "class_constant",
    "class_marginal",
    "gaussian_constant",
    "gaussian_kl",
    "gaussian_nll",
    "kl_to_class_constant",
    "mean_constant",
    "median_constant",
    "reward_constant",
)

Weights = Float[Tensor, " examples"] | None


def _shares(target: Tensor, weights: Tensor | None) -> Tensor:
    """Return each example's share of the training distribution, ``(examples,)``, float64."""
    if len(target) == 0:
        raise ValueError("the optimal constant needs at least one training target.")
    if weights is None:
        return torch.full((len(target),), 1 / len(target), dtype=torch.float64)
    return weights.double() / weights.double().sum()


def class_marginal(
    target: Int[Tensor, " examples"], n_classes: int, weights: Weights = None
) -> Float[Tensor, " classes"]:
    """Return the share of each class among training targets, ``(classes,)``, float64."""
    shares = _shares(target, weights)
    return torch.zeros(n_classes, dtype=torch.float64).index_add(0, target.cpu(), shares.cpu())


def class_constant(
    target: Int[Tensor, " examples"],
    n_classes: int,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, " classes"] | None = None,
    weights: Weights = None,
) -> Float[Tensor, " classes"]:
    """Return the class probabilities that minimise the mean cross-entropy.

    With torch's definitions of smoothing s and class weights w over K classes the mean loss of constant probabilities p
    is proportional to ``-sum_k a_k log p_k`` with ``a_k = w_k ((1 - s) share_k + s / K)``; the minimum is ``a /
    sum(a)``.

    Args:
        target: Class per training example, ``(examples,)``.
        n_classes: Number of classes.
        label_smoothing: Smoothing in [0, 1].
        class_weights: Weight of each class in the loss, ``(classes,)``; ones by default.
        weights: How often each example is drawn, ``(examples,)``; all alike by default.

    Returns:
        Probabilities, ``(classes,)``, float64.

    Raises:
        ValueError: If there is no target.
    """
    smoothed = (1 - label_smoothing) * class_marginal(target, n_classes, weights)
    smoothed = smoothed + label_smoothing / n_classes
    if class_weights is not None:
        smoothed = smoothed * class_weights.double().cpu()
    return smoothed / smoothed.sum()


def mean_constant(target: Tensor, weights: Weights = None) -> Tensor:
    """Return the constant that minimises the mean squared error: the mean target, float64."""
    values, shares = target.double(), _shares(target, weights).to(target.device)
    return (shares.view(-1, *[1] * (values.ndim - 1)) * values).sum(0)


def median_constant(target: Float[Tensor, " examples"], weights: Weights = None) -> Tensor:
    """Return the constant that minimises the mean absolute error: a median of the targets (the lower one), float64."""
    values, order = target.double().sort()
    shares = _shares(target, weights).to(target.device)[order].cumsum(0)
    return values[int((shares < 0.5 - 1e-12).sum())]


class Moments(NamedTuple):
    """A normal distribution."""

    mean: Tensor
    std: Tensor


def gaussian_constant(target: Float[Tensor, " examples"], weights: Weights = None) -> Moments:
    """Return the normal that minimises the Gaussian negative log-likelihood: mean and deviation, float64."""
    mean = mean_constant(target, weights)
    variance = mean_constant((target.double() - mean) ** 2, weights)
    return Moments(mean, variance.sqrt())


def reward_constant(
    target: Int[Tensor, " examples"],
    n_classes: int,
    right: float = 1.0,
    wrong: float = -4.0,
    abstain: float = 0.0,
    weights: Weights = None,
) -> Tensor:
    """Return the constant that minimises the squared error on rewards of K classes and of abstaining.

    Args:
        target: Class per training example, ``(examples,)``.
        n_classes: Number of classes K.
        right: Reward of the true class.
        wrong: Reward of any other class.
        abstain: Reward of abstaining.
        weights: How often each example is drawn, ``(examples,)``.

    Returns:
        Expected reward of each action, abstaining last, ``(classes + 1,)``, float64.
    """
    marginal = class_marginal(target, n_classes, weights)
    expected = right * marginal + wrong * (1 - marginal)
    return torch.cat([expected, torch.tensor([abstain], dtype=torch.float64)])


def kl_to_class_constant(
    logits: Float[Tensor, "batch classes"],
    constant: Float[Tensor, " classes"],
    floor: float = 1e-6,
) -> Float[Tensor, " batch"]:
    """Return ``KL(softmax(logits) || constant)`` in nats, computed in log-space, ``(batch,)``.

    Args:
        logits: Class scores, ``(batch, classes)``.
        constant: Probabilities, ``(classes,)``.
        floor: Probabilities of the constant below it count as this much, so that a class that training lacks is not
            infinitely far.
    """
    log_p = logits.log_softmax(1)
    log_q = constant.to(logits).clamp_min(floor).log()
    return (log_p.exp() * (log_p - log_q)).sum(1)


def gaussian_kl(mean: Tensor, log_std: Tensor, constant: Moments) -> Tensor:
    """Return ``KL(N(mean, std) || N(constant))`` in nats: ``log(S/s) + (s^2 + (m - M)^2) / (2 S^2) - 1/2``."""
    m, s = constant.mean.to(mean), constant.std.to(mean)
    variance = (2 * log_std).exp()
    return s.log() - log_std + (variance + (mean - m) ** 2) / (2 * s**2) - 0.5


def gaussian_nll(mean: Tensor, log_std: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of normal distributions, nats."""
    return log_std + (target - mean) ** 2 / (2 * (2 * log_std).exp()) + 0.5 * math.log(2 * math.pi)
