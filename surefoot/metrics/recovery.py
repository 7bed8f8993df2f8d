"""How well example weights find a subset: the minority groups, or mislabelled points."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ("Recovery", "average_ranks", "precision_recall_of_top", "roc_auc")


class Recovery(NamedTuple):
    """Precision and recall of the k top-weighted examples against a subset."""

    precision: Float[Tensor, ""]
    recall: Float[Tensor, ""]


def average_ranks(values: Float[Tensor, " examples"]) -> Float[Tensor, " examples"]:
    """Rank from 1 upwards; ties share their mean rank, ``(examples,)``."""
    _, inverse, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts - 1).double() / 2)[inverse]
    return ranks


def roc_auc(scores: Float[Tensor, " examples"], member: Bool[Tensor, " examples"]) -> Float[Tensor, ""]:
    """Return the chance that a member scores above a non-member, ties counting half.

    Args:
        scores: Weight per example, ``(examples,)``.
        member: True for the subset, ``(examples,)``.

    Returns:
        Area under the ROC curve in [0, 1]; NaN if the subset is empty or everything.
    """
    n_in, n_out = member.sum(), (~member).sum()
    rank_sum = average_ranks(scores)[member].sum()
    return (rank_sum - n_in * (n_in + 1) / 2) / (n_in * n_out)


def precision_recall_of_top(scores: Float[Tensor, " examples"], member: Bool[Tensor, " examples"], k: int) -> Recovery:
    """Compare the k highest scores with a subset; ties are broken by the lower index.

    Args:
        scores: Weight per example, ``(examples,)``.
        member: True for the subset, ``(examples,)``.
        k: Number of examples taken, at least 1.

    Returns:
        Precision (share of the k in the subset) and recall (share of the subset in the k); NaN recall if empty.
    """
    top = scores.argsort(descending=True, stable=True)[:k]
    hits = member[top].sum().double()
    return Recovery(hits / torch.tensor(len(top)), hits / member.sum())
