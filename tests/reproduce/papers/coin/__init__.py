"""A paper about coins: the smallest example of a folder in ``surefoot/reproduce``."""

from surefoot.reproduce.coin import claims, figures, runs

from surefoot.reproduce.papers import Paper, claims_in

__all__ = ("PAPER",)

PAPER = Paper(
    id="coin",
    title="On coins",
    reference="nobody, 2026",
    run=runs.run,
    claims=claims_in(claims),
    figures=(figures.heads,),
    default_seeds={"quick": 1, "laptop": 4, "paper": 4},
    seed_budget=4,
    options={"--bias": {"type": float, "default": 0.0, "help": "of the second coin"}},
)
