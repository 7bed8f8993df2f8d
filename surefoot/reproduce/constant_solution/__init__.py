"""Extrapolation to the optimal constant solution: images, texts, decisions, mechanisms, theory and failures."""

from surefoot.reproduce.constant_solution import claims, figures, runs
from surefoot.reproduce.papers import Paper, claims_in

__all__ = ("PAPER",)

PAPER = Paper(
    id="constant_solution",
    title="Deep Neural Networks Tend To Extrapolate Predictably",
    reference="Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873",
    run=runs.run,
    claims=claims_in(claims),
    figures=(figures.mechanisms, figures.decisions, figures.variants, figures.theory_norms),
)
