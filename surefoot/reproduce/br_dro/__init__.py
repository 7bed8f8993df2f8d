"""Bitrate-constrained DRO: its claims on the authors' linear toy and on images with painted confounders.

Reference: Setlur et al., ICLR 2023, arXiv 2302.02931; baselines after Liu et al., ICML 2021, and Sagawa et al., ICLR
2020.
"""

from surefoot.reproduce.br_dro import claims, figures, runs
from surefoot.reproduce.papers import Paper, claims_in

__all__ = ("PAPER",)

PAPER = Paper(
    id="br_dro",
    title="Bitrate-Constrained DRO: Beyond Worst Case Robustness To Unknown Group Shifts",
    reference="Setlur et al., ICLR 2023, arXiv 2302.02931",
    run=runs.run,
    claims=claims_in(claims),
    figures=(
        figures.capacity_toy,
        figures.label_noise_toy,
        figures.decision_boundaries_toy,
        figures.methods,
        figures.recovery,
        figures.recovery_over_training,
        figures.capacity,
        figures.label_noise,
    ),
    default_seeds={"quick": 1, "laptop": 10, "paper": 5},
    seed_budget=2,
)
