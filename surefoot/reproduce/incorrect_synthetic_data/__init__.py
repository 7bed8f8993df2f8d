"""Learning from incorrect synthetic data: per-step DPO on the step with which a solution was lost.

Reference: Setlur et al. 2024, RL on Incorrect Synthetic Data Scales the Efficiency of LLM Math Reasoning by Eight-Fold,
arXiv 2406.14532.
"""

from surefoot.reproduce.incorrect_synthetic_data import claims, figures, runs, star_graph_claims
from surefoot.reproduce.papers import Paper, claims_in

__all__ = ("PAPER",)

PAPER = Paper(
    id="incorrect_synthetic_data",
    title="RL on Incorrect Synthetic Data Scales the Efficiency of LLM Math Reasoning by Eight-Fold",
    reference="Setlur et al., NeurIPS 2024, arXiv 2406.14532",
    run=runs.run,
    claims=claims_in(claims, star_graph_claims),
    figures=(
        figures.arithmetic_scaling,
        figures.arithmetic_betas,
        figures.arithmetic_steps,
        figures.star_graph_paths,
    ),
    default_seeds={"quick": 1, "laptop": 5, "paper": 5},
    options={
        "--only": {
            "choices": tuple(runs.STUDIES),
            "help": "one of the studies; tables of the other that lie in --out stay and are judged with it",
        },
    },
)
