"""Search: spending samples on a problem, with a verifier that says what to keep."""

from surefoot.reasoning.search.base import Search, SearchCounts
from surefoot.reasoning.search.beam import BeamSearch
from surefoot.reasoning.search.best_of_n import BestOfN
from surefoot.reasoning.search.curves import (
    SearchPoint,
    accuracies,
    accuracy_at,
    begins_above,
    compute_ratio,
    tokens_to_reach,
    up_to_best,
)
from surefoot.reasoning.search.selection import (
    Candidate,
    accuracy_of_best,
    accuracy_of_majority,
    accuracy_of_weighted_majority,
    score_of,
)

__all__ = (
    "BeamSearch",
    "BestOfN",
    "Candidate",
    "Search",
    "SearchCounts",
    "SearchPoint",
    "accuracies",
    "accuracy_at",
    "accuracy_of_best",
    "accuracy_of_majority",
    "accuracy_of_weighted_majority",
    "begins_above",
    "compute_ratio",
    "score_of",
    "tokens_to_reach",
    "up_to_best",
)
