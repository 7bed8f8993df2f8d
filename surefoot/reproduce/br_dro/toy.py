"""The linear toy's runs: every cell of the specification's table (section 10.1), a path of penalties, nuisance."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from surefoot.reproduce.claims import ClaimDefinition, undecided
from surefoot.reproduce.jobs import run_calls
from surefoot.reproduce.results import Results, Rows
from surefoot.reproduce.running import Measured
from surefoot.reproduce.tasks.linear import (
    METHODS,
    LinearMethod,
    LinearOutcome,
    LinearProblem,
    make_data,
    train,
    with_penalty,
)

__all__ = ("PENALTIES", "REFERENCE", "at_penalty", "measure_toy")

#: Mean worst-group accuracy on the shifted test set of 20 seeds: (method, label noise) -> value.
REFERENCE = {
    ("ERM (no weight decay)", 0.0): 0.778,
    ("ERM (no weight decay)", 0.01): 0.788,
    ("ERM (no weight decay)", 0.1): 0.622,
    ("ERM", 0.0): 0.470,
    ("ERM", 0.01): 0.469,
    ("ERM", 0.1): 0.416,
    ("CVaR-DRO", 0.0): 0.806,
    ("CVaR-DRO", 0.01): 0.811,
    ("CVaR-DRO", 0.1): 0.546,
    ("JTT", 0.0): 0.929,
    ("JTT", 0.01): 0.895,
    ("JTT", 0.1): 0.074,
    ("BR-DRO (l1)", 0.0): 0.842,
    ("BR-DRO (l1)", 0.01): 0.727,
    ("BR-DRO (l1)", 0.1): 0.003,
    ("BR-DRO (l2)", 0.0): 0.888,
    ("BR-DRO (l2)", 0.01): 0.922,
    ("BR-DRO (l2)", 0.1): 0.608,
    ("BR-DRO (no penalty)", 0.0): 0.845,
    ("BR-DRO (no penalty)", 0.1): 0.009,
    ("Group DRO", 0.0): 0.926,
    ("Group DRO", 0.01): 0.914,
    ("Group DRO", 0.1): 0.867,
}
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
#: Methods whose decision lines are drawn.
_DRAWN = ("ERM", "BR-DRO (l2)", "Group DRO")
#: How many times as many seeds a cell of the table gets that the first ones leave undecided.
_MORE = 4


class Setting(NamedTuple):
    """What is trained on which data."""

    method: str
    label_noise: float = 0.0
    n_nuisance: int = 10


def at_penalty(penalty: float) -> str:
    """Return the name of BR-DRO (l2) at a penalty."""
    return f"BR-DRO (l2) at {penalty:g}"


def settings(quick: bool) -> dict[Setting, LinearMethod]:
    """Return all that is trained; quick shortens the training."""
    found = {Setting(method, noise): METHODS[method] for method, noise in REFERENCE}
    found |= {Setting(at_penalty(p)): with_penalty(METHODS["BR-DRO (l2)"], p) for p in PENALTIES}
    nuisance = ("CVaR-DRO", "BR-DRO (l2)", "BR-DRO (no penalty)", "Group DRO")
    found |= {Setting(method, 0.05, 50): METHODS[method] for method in nuisance}
    return {s: replace(m, n_steps=300) for s, m in found.items()} if quick else found


def measure_toy(claims: Sequence[ClaimDefinition], quick: bool) -> Measured:
    """Train every setting on 20 seeds, and cells of the table that these leave undecided on 80.

    Args:
        claims: Of the paper; cells among them are settled.
        quick: Two seeds and short training.
    """
    methods = settings(quick)
    found, seconds = _train(methods, 2 if quick else 20)
    rows = [row for setting, outcome in found.items() for row in _rows(setting, outcome)]
    if not quick:
        open_cells = [m.key for m in undecided(claims, Results({"toy": rows})) if "reference" in m.key]
        cells = [Setting(key["method"], key["noise"]) for key in open_cells]
        more, seconds_more = _train({cell: methods[cell] for cell in cells}, _MORE * 20)
        rows += [row for setting, outcome in more.items() for row in _rows(setting, outcome)]
        seconds += seconds_more
    lines = [row for name in _DRAWN for row in _lines(name, found[Setting(name)])]
    return Measured({"toy": rows, "toy_lines": lines, "toy_points": _points()}, {"toy": seconds})


class Trained(NamedTuple):
    """A method's outcome, and the mean weight of minority and majority examples per seed."""

    outcome: LinearOutcome
    minority_weight: list[float]
    majority_weight: list[float]


def _train(methods: Mapping[Setting, LinearMethod], n_seeds: int) -> tuple[dict[Setting, Trained], float]:
    """Train every setting on all seeds."""
    return run_calls(_train_one, {setting: (setting, method, n_seeds) for setting, method in methods.items()})


def _train_one(setting: Setting, method: LinearMethod, n_seeds: int) -> Trained:
    data = make_data(LinearProblem(label_noise=setting.label_noise, n_nuisance=setting.n_nuisance), n_seeds)
    outcome = train(data, method)
    minority = (outcome.weights * data.minority).sum(1) / data.minority.sum(1)
    majority = (outcome.weights * ~data.minority).sum(1) / (~data.minority).sum(1)
    return Trained(outcome, minority.tolist(), majority.tolist())


def _rows(setting: Setting, trained: Trained) -> Rows:
    outcome, minority, majority = trained
    return [
        {
            "method": setting.method,
            "label_noise": setting.label_noise,
            "nuisance_dimensions": setting.n_nuisance,
            "n_seeds": len(minority),  # trained in one go: their batches are drawn from one stream
            "seed": seed,
            "worst_group": float(outcome.worst_group[seed]),
            "average": float(outcome.average[seed]),
            "minority_weight": minority[seed],
            "majority_weight": majority[seed],
        }
        for seed in range(len(minority))
    ]


def _lines(method: str, trained: Trained) -> Rows:
    """Return the first seed's decision lines ``core x + spurious y + constant = 0``, nuisance at zero."""
    learner = trained.outcome.learner[0]
    lines = {"learner": (float(learner[0]), float(learner[1]), float(learner[-1]))}
    if trained.outcome.adversary is not None:
        for label, weights in enumerate(trained.outcome.adversary[0]):
            lines[f"adversary, label {label}: weight 1/2"] = (float(weights[0]), float(weights[1]), 0.0)
    return [
        {"method": method, "line": name, "core": a, "spurious": b, "constant": c} for name, (a, b, c) in lines.items()
    ]


def _points() -> Rows:
    """Return the first seed's training examples, the spurious feature moved a little so that all can be seen."""
    data = make_data(LinearProblem(), 1)
    spurious = data.x[0, :, 1]
    order = torch.randperm(len(spurious), generator=torch.Generator().manual_seed(0))
    moved = spurious + torch.linspace(-0.15, 0.15, len(spurious))[order]
    return [
        {"core": x, "spurious": y, "label": label}
        for x, y, label in zip(data.x[0, :, 0].tolist(), moved.tolist(), data.y[0].tolist(), strict=True)
    ]
