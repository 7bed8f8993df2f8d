"""Throw two coins."""

from functools import partial

import torch
from surefoot.reproduce.coin import claims

from surefoot.reproduce.jobs import run_calls
from surefoot.reproduce.papers import claims_in
from surefoot.reproduce.running import Measured, Run, settle

__all__ = ("run",)


def throw(seed: int, chance: float) -> float:
    """Return the share of heads among 100 throws."""
    return float((torch.rand(100, generator=torch.Generator().manual_seed(seed)) < chance).float().mean())


def throws(bias: float, n_seeds: int) -> Measured:
    """Throw both coins with every seed."""
    chances = {"first": 0.5, "second": 0.5 + bias}
    arguments = {(coin, seed): (seed, chance) for coin, chance in chances.items() for seed in range(n_seeds)}
    found, seconds = run_calls(throw, arguments, side_by_side=False)
    rows = [{"coin": coin, "seed": seed, "heads": share} for (coin, seed), share in found.items()]
    return Measured({"throws": rows}, {"throws": seconds})


def run(run: Run) -> None:
    """Throw, and throw more where that leaves a claim undecided."""
    run.notes.append("A hundred throws a seed.")
    run.add(settle(partial(throws, run.options["bias"]), claims_in(claims), run.n_seeds, run.most_seeds))
