"""Learning dynamics: pre-memorization train accuracy predicts how well a fine-tuned model generalises.

Reference: Kang et al. 2024, What Do Learning Dynamics Reveal About Generalization in LLM Reasoning?, arXiv 2411.07681.
"""

from pathlib import Path

from surefoot.reproduce.learning_dynamics import claims, figures, runs
from surefoot.reproduce.papers import Paper, claims_in

__all__ = ("PAPER",)

PAPER = Paper(
    id="learning_dynamics",
    title="What do learning dynamics reveal about generalization in LLM reasoning?",
    reference="Kang et al. 2024, arXiv 2411.07681",
    run=runs.run,
    claims=claims_in(claims),
    figures=(
        figures.prediction,
        figures.sensitivity,
        figures.examples,
        figures.memorized,
        figures.gaps,
        figures.prefixes,
        figures.curation,
    ),
    default_seeds={"quick": 1, "laptop": 3, "paper": 1},
    seed_budget=4,
    options={
        "--recorded": {
            "type": Path,
            "nargs": "+",
            "help": "recorded runs (.npz, or folders of MemorizationTracker's records): claims from these alone,"
            " nothing is trained",
        },
        "--log-log-threshold": {
            "type": float,
            "help": "log(log(perplexity)) below which an example is memorized; by default chosen by leaving one run"
            " out",
        },
    },
)
