"""Process advantage verifiers: rewarding the progress that a step makes.

Reference: Setlur et al. 2024, Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning, arXiv
2410.08146.
"""

from surefoot.reproduce.papers import Paper, claims_in
from surefoot.reproduce.pav import arithmetic_claims, didactic_claims, figures, runs

__all__ = ("PAPER",)

PAPER = Paper(
    id="pav",
    title="Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning",
    reference="Setlur et al., ICLR 2025, arXiv 2410.08146",
    run=runs.run,
    claims=claims_in(didactic_claims, arithmetic_claims),
    figures=(
        figures.didactic_learning,
        figures.didactic_pass,
        figures.didactic_sweep,
        figures.arithmetic_outcome_errors,
        figures.arithmetic_by_candidates,
        figures.arithmetic_by_tokens,
        figures.arithmetic_provers,
        figures.arithmetic_learning,
        figures.arithmetic_pass,
    ),
    default_seeds={"quick": 1, "laptop": 5, "paper": 5},
    options={
        "--only": {
            "choices": tuple(runs.STUDIES),
            "help": "one of the studies; tables of the others that lie in --out stay and are judged with it",
        },
    },
)
