"""Scores of how far examples are out of distribution (higher: further), and how well they do.

References: maximum softmax probability: Hendrycks & Gimpel, ICLR 2017; energy: Liu et al., NeurIPS 2020;
Mahalanobis distance: Lee et al., NeurIPS 2018; k nearest neighbours: Sun et al., ICML 2022.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = (
    "ClassGaussians",
    "energy_scores",
    "fit_class_gaussians",
    "fpr_at_tpr",
    "knn_scores",
    "mahalanobis_scores",
    "max_softmax_scores",
)


def max_softmax_scores(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """Return one minus the largest probability."""
    return 1 - logits.softmax(1).amax(1)


def energy_scores(logits: Float[Tensor, "batch classes"], temperature: float = 1.0) -> Float[Tensor, " batch"]:
    """Return the free energy ``-T log sum exp(logits / T)``."""
    return -temperature * (logits / temperature).logsumexp(1)


class ClassGaussians(NamedTuple):
    """A normal distribution per class with one covariance."""

    means: Float[Tensor, "classes features"]
    precision: Float[Tensor, "features features"]


def fit_class_gaussians(
    features: Float[Tensor, "examples features"], target: Int[Tensor, " examples"], n_classes: int
) -> ClassGaussians:
    """Fit class means and their shared covariance (pseudo-inverted), in float64; an absent class is left out.

    Raises:
        ValueError: If there are no more examples than classes.
    """
    if len(features) <= n_classes:
        raise ValueError(f"{len(features)} training examples are too few for a covariance over {n_classes} classes.")
    values = features.double()
    counts = torch.zeros(n_classes, dtype=torch.float64, device=values.device)
    counts = counts.index_add(0, target, torch.ones_like(target, dtype=torch.float64))
    sums = values.new_zeros(n_classes, values.shape[1]).index_add(0, target, values)
    means = sums / counts.clamp_min(1)[:, None]
    centred = values - means[target]
    covariance = centred.T @ centred / len(values)
    return ClassGaussians(means[counts > 0], torch.linalg.pinv(covariance, hermitian=True))


def mahalanobis_scores(features: Float[Tensor, "batch features"], gaussians: ClassGaussians) -> Float[Tensor, " batch"]:
    """Return the squared Mahalanobis distance to the nearest class mean."""
    offsets = features.double()[:, None] - gaussians.means  # (batch, classes, features)
    squares = torch.einsum("bcd,de,bce->bc", offsets, gaussians.precision, offsets)
    return squares.amin(1)


def knn_scores(
    features: Float[Tensor, "batch features"], bank: Float[Tensor, "examples features"], k: int = 50
) -> Float[Tensor, " batch"]:
    """Return the distance to the k-th nearest training feature, all features scaled to length 1.

    Args:
        features: Features to score, ``(batch, features)``.
        bank: Training features, ``(examples, features)``.
        k: Which neighbour, at least 1; at most all there are.
    """
    cosine = F.normalize(features) @ F.normalize(bank).T
    nearest = cosine.topk(min(k, len(bank)), dim=1).values[:, -1]
    return (2 - 2 * nearest).clamp_min(0).sqrt()


def fpr_at_tpr(
    scores: Float[Tensor, " examples"], outside: Bool[Tensor, " examples"], tpr: float = 0.95
) -> Float[Tensor, ""]:
    """Return the share of outsiders taken for insiders at the threshold that keeps a share ``tpr`` of the insiders.

    Args:
        scores: Higher is further out, ``(examples,)``.
        outside: True for examples out of distribution, ``(examples,)``.
        tpr: Share of the insiders kept.

    Returns:
        False-positive rate in [0, 1]; NaN if there is none of either.
    """
    inside = scores[~outside].sort().values
    if len(inside) == 0 or not bool(outside.any()):
        return torch.tensor(torch.nan, dtype=torch.float64)
    threshold = inside[max(0, -int(-tpr * len(inside) // 1) - 1)]
    return (scores[outside] <= threshold).double().mean()
