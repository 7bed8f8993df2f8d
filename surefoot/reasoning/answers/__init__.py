"""Final answers: how they are found in a completion, and whether they equal the reference.

Nothing that a model writes can hang or crash a run: equality is decided in worker processes that are killed at a time
limit, and every completion ends in exactly one status.
"""

from surefoot.reasoning.answers.extraction import EXTRACTION_RULES, MAX_ANSWER_LENGTH, extract_answer
from surefoot.reasoning.answers.grading import ExtractionWarning, Grade, Grader, status_rates
from surefoot.reasoning.answers.pool import STATUSES, BudgetWarning, GraderPool, Status

__all__ = (
    "EXTRACTION_RULES",
    "MAX_ANSWER_LENGTH",
    "STATUSES",
    "BudgetWarning",
    "ExtractionWarning",
    "Grade",
    "Grader",
    "GraderPool",
    "Status",
    "extract_answer",
    "status_rates",
)
