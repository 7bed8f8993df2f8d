"""Quantities measured on predictions, weights and runs."""

from surefoot.metrics.groups import (
    GroupCounts,
    count_groups,
    mean_of_worst,
    shares_weighted_accuracy,
)
from surefoot.metrics.recovery import Recovery, precision_recall_of_top, roc_auc
from surefoot.metrics.selection import SELECTION_RULES, select_checkpoints

__all__ = (
    "SELECTION_RULES",
    "GroupCounts",
    "Recovery",
    "count_groups",
    "mean_of_worst",
    "precision_recall_of_top",
    "roc_auc",
    "select_checkpoints",
    "shares_weighted_accuracy",
)
