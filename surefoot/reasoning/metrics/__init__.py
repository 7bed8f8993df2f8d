"""Quantities measured on graded completions and on the runs of language models."""

from surefoot.reasoning.metrics.results import ProblemResult, problem_results, summarise_results
from surefoot.reasoning.metrics.sampling import majority_at_k, pass_at_k

__all__ = ("ProblemResult", "majority_at_k", "pass_at_k", "problem_results", "summarise_results")
