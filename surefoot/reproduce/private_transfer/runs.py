"""What is run: curves over private samples, sweeps, personalisation, probes of features, audits."""

from surefoot.reproduce.jobs import measure_rows, run_calls, run_named_jobs, seconds_of
from surefoot.reproduce.private_transfer.audit import MECHANISMS, audit_descent
from surefoot.reproduce.private_transfer.features import EPSILONS, encoder_job, probe_rows
from surefoot.reproduce.private_transfer.synthetic import (
    DELTA,
    CurveSizes,
    bound_rows,
    curves,
    personalisation,
    sweeps,
)
from surefoot.reproduce.running import Measured, Run, data_folder

__all__ = ("run",)

PROTOCOL = (
    (
        "Guarantees: adding or removing one example (personalisation: a user); privacy loss distributions, delta"
        f" {DELTA:g}."
    ),
    (
        "Fixed in advance, none tuned: 10 full-batch steps of 0.5, the last two averaged, clip the root of the"
        " number of directions."
    ),
    "Probes: 30 steps of 10, clip 1, the last half averaged; the rate was chosen in an exploration with two seeds.",
    (
        "Coordinated users and DP-FedAvg have the best of eight settings, chosen with the true weights: optimistic"
        " for them."
    ),
    "Bounds are drawn without constants and logarithms; gamma is printed beside every error.",
)

FEATURES_NOTE = (
    "Features: a small network trained on airplane, automobile, bird, cat and ship; private: 2,000 images of the other"
    " classes; centred by the public mean, of length 1; directions are the public features' principal ones."
)


def run(run: Run) -> None:
    """Measure everything; features where CIFAR-10 is at hand."""
    run.notes += PROTOCOL
    sizes = CurveSizes()
    if run.quick:
        sizes = CurveSizes(
            d=30,
            k=3,
            private=(200, 500, 1000, 2000),
            moments=(1000, 5000, 10_000),
            svd_tasks=10,
            svd_per_task=200,
        )
    seeds, counts = range(run.n_seeds), (20, 50) if run.quick else (10, 20, 50, 200)
    run.add(measure_rows("curves", curves, {s: (sizes, s) for s in seeds}, not run.quick))
    run.add(Measured({"curve_bounds": bound_rows(sizes)}))
    run.add(measure_rows("sweeps", sweeps, {s: (s, run.quick) for s in seeds}, not run.quick))
    users = {(s, n): (s, n) for s in seeds for n in counts}
    run.add(measure_rows("personalisation", personalisation, users, not run.quick))
    if data_folder("cifar10", run, "Real features were"):
        run.add(features(run))
        run.notes.append(FEATURES_NOTE)
    run.add(audits(run.quick))


def features(run: Run) -> Measured:
    """Train encoders on the public classes, four at most, and probe each for a share of the seeds."""
    n_encoders = min(4, run.n_seeds)
    encoders = run_named_jobs({seed: encoder_job(seed, run.quick) for seed in range(n_encoders)}, run.out)
    epsilons = (0.5, 1.0) if run.quick else EPSILONS
    arguments = {
        e: (encoder.folder, e, range(e, run.n_seeds, n_encoders), epsilons, 1000 if run.quick else None)
        for e, encoder in encoders.items()
    }
    probes = measure_rows("features", probe_rows, arguments, not run.quick)
    return Measured(probes.tables, {"features": probes.seconds["features"] + seconds_of(encoders.values())})


def audits(quick: bool) -> Measured:
    """Audit mechanisms, correct or broken on purpose."""
    n_trials, n_seeds = (100, 1) if quick else (1000, 5)
    arguments = {
        (name, seed): (breakage, 1.0, n_trials, n_steps, rate, seed)
        for name, (breakage, rate, n_steps) in MECHANISMS.items()
        for seed in range(n_seeds)
    }
    found, seconds = run_calls(audit_descent, arguments, not quick)
    rows = [
        {"mechanism": name, "seed": s, "claimed": a.claimed, "bound": a.epsilon_lower_bound, "trials": a.n_trials}
        for (name, s), a in found.items()
    ]
    return Measured({"audit": rows}, {"audit": seconds})
