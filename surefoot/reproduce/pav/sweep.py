"""What is measured on the didactic task: learning curves, Pass@N, provers of all strengths, and their ranking."""

from collections.abc import Sequence
from functools import partial

import torch

from surefoot.reasoning.credit.provers import prover_quality
from surefoot.reasoning.metrics import pass_at_k
from surefoot.reproduce.jobs import measure_rows
from surefoot.reproduce.pav.didactic import START_WEIGHT, TASK, DidacticTraining, Learner, prover_values, reinforce
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured
from surefoot.training.seeds import derive_seed

__all__ = (
    "EFFECTIVE",
    "OUTCOME",
    "RATES",
    "SETTINGS",
    "WEIGHTS",
    "measure_learning",
    "measure_provers",
    "measure_sweep",
)

EFFECTIVE, OUTCOME = "effective reward", "outcome"
#: The prover of the paper's figure 3a, and the provers of the sweep.
PROVER = 10.0
WEIGHTS = (1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 50.0, 100.0)
#: Adam's learning rates for both methods; the paper's is the second.
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
#: Under which the strength of the prover is varied: the first is the text's, the others might bend the curve.
SETTINGS = (
    DidacticTraining(),
    DidacticTraining(n_rollouts=100),
    DidacticTraining(extra=10, end_is_fatal=False),
    DidacticTraining(n_rollouts=100, extra=10, end_is_fatal=False),
    DidacticTraining(extra=40, end_is_fatal=False),
    DidacticTraining(n_rollouts=100, extra=40, end_is_fatal=False),
    DidacticTraining(optimizer="sgd", lr=0.5),
    DidacticTraining(optimizer="sgd", lr=0.5, n_rollouts=100),
)
#: Samples of which Pass@N is computed, after so many iterations.
PASS_N, PASS_AT = (2, 4, 8, 16, 32, 64, 128, 256), (0, 100)
_BIN = 50  # iterations of which a learning curve's point is the mean


def measure_learning(n_iterations: int, n_seeds: int) -> Measured:
    """Follow both methods at all learning rates, and count what they solve early on.

    Args:
        n_iterations: Of each run.
        n_seeds: Of start and draws.
    """
    arguments = {(rate, s): (rate, s, n_iterations) for s in range(n_seeds) for rate in RATES}
    found = measure_rows("didactic_learning", learning_rows, arguments)
    rows = found.tables["didactic_learning"]
    curves = [row for row in rows if row["quantity"] == "accuracy"]
    passed = [row for row in rows if row["quantity"] != "accuracy"]
    seconds = found.seconds["didactic_learning"]
    return Measured({"didactic_learning": curves, "didactic_pass": passed}, {"didactic_learning": seconds})


def learning_rows(rate: float, seed: int, n_iterations: int) -> Rows:
    """Return both methods' learning curves at a learning rate, and Pass@N of early samples."""
    learners = {OUTCOME: Learner(PROVER, alpha=0), EFFECTIVE: Learner(PROVER)}
    curve = reinforce(seed, [*learners.values()], DidacticTraining(lr=rate), n_iterations, PASS_AT)
    rows: Rows = []
    for number, method in enumerate(learners):
        of = {"method": method, "lr": rate, "seed": seed}
        for i, part in enumerate(curve.accuracy[:, number].split(_BIN)):
            rows.append(of | {"quantity": "accuracy", "iteration": _BIN * (i + 1), "value": float(part.mean())})
        for iteration, solved in curve.solved.items():
            for n in PASS_N:
                value = pass_at_k(curve.n_samples, int(solved[number]), n)
                rows.append(of | {"quantity": "pass", "iteration": iteration, "n": n, "value": value})
    return rows


def measure_sweep(settings: Sequence[DidacticTraining], n_iterations: int, n_seeds: int) -> Measured:
    """Train with provers of all strengths under each setting.

    Args:
        settings: How the networks are trained, and how the provers' values are found.
        n_iterations: Of each run.
        n_seeds: Of start and draws.
    """
    arguments = {(setting, s): (setting, s, n_iterations) for setting in settings for s in range(n_seeds)}
    return measure_rows("didactic_sweep", sweep_rows, arguments)


def sweep_rows(training: DidacticTraining, seed: int, n_iterations: int) -> Rows:
    """Return each prover's accuracy, averaged over the whole run as in figure 3b, and at its end."""
    accuracy = reinforce(seed, [Learner(weight) for weight in WEIGHTS], training, n_iterations).accuracy
    return [
        {
            "optimizer": training.optimizer,
            "prover": training.prover_setting,
            "weight": weight,
            "seed": seed,
            "mean_accuracy": float(accuracy[:, i].mean()),
            "last_accuracy": float(accuracy[-_BIN:, i].mean()),
        }
        for i, weight in enumerate(WEIGHTS)
    ]


def measure_provers(settings: Sequence[DidacticTraining], n_seeds: int, n_states: int = 2000) -> Measured:
    """Rank provers before anything is learned: theorem 3.1's terms, on states that the start's policy visits.

    Args:
        settings: Those that differ in how the provers' values are found.
        n_seeds: Of the states that are drawn.
        n_states: Drawn by each seed.
    """
    distinct = list({s.prover_setting: s for s in settings if s.n_rollouts is None}.values())
    arguments = {(s.prover_setting, n): (s, n, n_states) for s in distinct for n in range(n_seeds)}
    return measure_rows("didactic_provers", prover_rows, arguments, side_by_side=False)


def prover_rows(training: DidacticTraining, seed: int, n_states: int) -> Rows:
    """Return each prover's distinguishability and alignment with the policy that the start imitates."""
    policy = TASK.procedural_policy(START_WEIGHT)
    generator = torch.Generator().manual_seed(derive_seed(seed, "states"))
    states = TASK.states(TASK.sample(policy, n_states, generator))[:, :-1]
    positions = torch.randint(0, TASK.length, (n_states,), generator=generator)
    visited = states[torch.arange(n_states), positions]
    following = TASK.following[visited]
    quality = partial(prover_quality, probabilities=policy[visited].tolist())
    own = TASK.values(policy)[(positions + 1)[:, None], following].tolist()
    rows: Rows = []
    for weight in WEIGHTS:
        theirs = prover_values(weight, training)[(positions + 1)[:, None], following].tolist()
        found = quality(own, theirs)
        terms = {name: term.mean for name, term in found._asdict().items()}
        rows.append({"prover": training.prover_setting, "weight": weight, "seed": seed, **terms})
    return rows
