"""Accuracy per group from counts, which add up over batches and ranks.

Reference: Sagawa et al., ICLR 2020 (worst group; average re-weighted by the training shares).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.classification.groups import membership

__all__ = ("GroupCounts", "count_groups", "mean_of_worst", "shares_weighted_accuracy")


class GroupCounts(NamedTuple):
    """Correct and all examples, per group and over the sample (where groups overlap, not their sum)."""

    correct: Int[Tensor, " groups"]
    total: Int[Tensor, " groups"]
    sample_correct: Int[Tensor, ""]
    sample_total: Int[Tensor, ""]

    @property
    def accuracy(self) -> Float[Tensor, " groups"]:
        """Accuracy per group in [0, 1]; NaN for an empty group."""
        return self.correct.double() / self.total.double()

    @property
    def sample_accuracy(self) -> Float[Tensor, ""]:
        """Accuracy over all examples, each counted once, in [0, 1]."""
        return self.sample_correct.double() / self.sample_total.double()


def count_groups(correct: Tensor, group: Tensor, n_groups: int) -> GroupCounts:
    """Count correct and all examples of each group.

    Args:
        correct: True where the prediction is right, ``(batch,)``.
        group: Group index ``(batch,)`` or membership ``(batch, groups)``.
        n_groups: Number of groups.

    Returns:
        Counts that add up over batches and ranks.
    """
    members = membership(group, n_groups)
    return GroupCounts(
        (members & correct[:, None]).sum(0),
        members.sum(0),
        correct.sum(),
        torch.tensor(len(correct), device=correct.device),
    )


def mean_of_worst(accuracy: Float[Tensor, " groups"], k: int) -> Float[Tensor, ""]:
    """Average the k worst groups' accuracies; empty groups (NaN) do not count, NaN if all are empty."""
    present = accuracy[~accuracy.isnan()]
    return present.sort().values[:k].mean()


def shares_weighted_accuracy(accuracy: Float[Tensor, " groups"], shares: Float[Tensor, " groups"]) -> Float[Tensor, ""]:
    """Average the groups' accuracies with the training shares as weights.

    The "average accuracy" of the Waterbirds literature. Groups that are empty here are left out and the other
    weights rescaled; NaN if none of the groups present occurs in training.

    Args:
        accuracy: Accuracy per group, NaN where empty, ``(groups,)``.
        shares: Training share per group, ``(groups,)``.

    Returns:
        The weighted average in [0, 1].
    """
    weights = torch.where(accuracy.isnan(), 0.0, shares)
    return (accuracy.nan_to_num() * weights).sum() / weights.sum()
