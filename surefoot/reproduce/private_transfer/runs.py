"""What is run: curves over private samples, sweeps, personalisation, probes of features, audits."""

from surefoot.reproduce.jobs import run_calls, run_jobs, seconds_of
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

FEATURES = (
    "Features: a small network trained on airplane, automobile, bird, cat and ship; private: 2,000 images of the other"
    " classes; centred by the public mean, of length 1; directions are the public features' principal ones."
)


def run(run: Run) -> None:
    """Measure everything; features where CIFAR-10 is at hand."""
    run.notes += PROTOCOL
    sizes = CurveSizes()
    if run.quick:
        sizes = CurveSizes(30, 3, (200, 500, 1000, 2000), (1000, 5000, 10_000), 10, 200)
    seeds, counts = range(run.n_seeds), (20, 50) if run.quick else (10, 20, 50, 200)
    found, seconds = run_calls(curves, {s: (sizes, s) for s in seeds}, not run.quick)
    rows = [row for of_seed in found.values() for row in of_seed]
    run.add(Measured({"curves": rows, "curve_bounds": bound_rows(sizes)}, {"curves": seconds}))
    found, seconds = run_calls(sweeps, {s: (s, run.quick) for s in seeds}, not run.quick)
    run.add(Measured({"sweeps": [row for of_seed in found.values() for row in of_seed]}, {"sweeps": seconds}))
    users, seconds = run_calls(personalisation, {(s, n): (s, n) for s in seeds for n in counts}, not run.quick)
    rows = [row for of_seed in users.values() for row in of_seed]
    run.add(Measured({"personalisation": rows}, {"personalisation": seconds}))
    if data_folder("cifar10", run, "Real features were"):
        run.add(features(run))
        run.notes.append(FEATURES)
    run.add(audits(run.quick))


def features(run: Run) -> Measured:
    """Train encoders on the public classes, four at most, and probe each for a share of the seeds."""
    n_encoders = min(4, run.n_seeds)
    jobs = [encoder_job(seed, run.quick) for seed in range(n_encoders)]
    encoders = run_jobs(jobs, run.out)
    epsilons = (0.5, 1.0) if run.quick else EPSILONS
    arguments = {
        e: (encoders[job.name].folder, e, range(e, run.n_seeds, n_encoders), epsilons, 1000 if run.quick else None)
        for e, job in enumerate(jobs)
    }
    found, seconds = run_calls(probe_rows, arguments, not run.quick)
    rows = [row for of_encoder in found.values() for row in of_encoder]
    return Measured({"features": rows}, {"features": seconds + seconds_of(encoders.values())})


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
