"""Quantities measured on graded completions and on the runs of language models."""

from surefoot.reasoning.metrics.best_of_k import best_of_k, best_of_k_covariance, best_of_k_estimate
from surefoot.reasoning.metrics.results import Outcome, ProblemResult, outcome_of, problem_results, summarise_results
from surefoot.reasoning.metrics.sampling import majority_at_k, mean_over_subsets, pass_at_k

__all__ = (
    "Outcome",
    "ProblemResult",
    "best_of_k",
    "best_of_k_covariance",
    "best_of_k_estimate",
    "majority_at_k",
    "mean_over_subsets",
    "outcome_of",
    "pass_at_k",
    "problem_results",
    "summarise_results",
)
