"""Quantities measured on predictions, weights and runs."""

from surefoot.metrics.groups import (
    GroupCounts,
    count_groups,
    mean_of_worst,
    shares_weighted_accuracy,
)
from surefoot.metrics.reasoning import ProblemResult, problem_results, summarise_results
from surefoot.metrics.recovery import Recovery, precision_recall_of_top, roc_auc
from surefoot.metrics.sampling import majority_at_k, pass_at_k
from surefoot.metrics.selection import SELECTION_RULES, select_checkpoints

__all__ = (
    "SELECTION_RULES",
    "GroupCounts",
    "ProblemResult",
    "Recovery",
    "count_groups",
    "majority_at_k",
    "mean_of_worst",
    "pass_at_k",
    "precision_recall_of_top",
    "problem_results",
    "roc_auc",
    "select_checkpoints",
    "shares_weighted_accuracy",
    "summarise_results",
)
