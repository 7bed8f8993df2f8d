"""BR-DRO's runs: the toy, then on each set of images tuning, comparison, a path of penalties and label noise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean

from surefoot.reproduce.br_dro import claims
from surefoot.reproduce.br_dro.studies import (
    AVERAGE,
    BITS,
    DIGITS,
    FASHION,
    FEATURES,
    WATERBIRDS,
    WORST,
    ImageStudy,
    TunedMethod,
    job,
    methods,
)
from surefoot.reproduce.br_dro.toy import measure_toy
from surefoot.reproduce.jobs import Result, run_named_jobs, seconds_of, slug
from surefoot.reproduce.papers import claims_in
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured, Run, data_folder, settle
from surefoot.statistics import mean_interval, paired_difference

__all__ = ("run",)

RULE = "val_worst_group"
VALIDATION = "val/worst_group_accuracy"
#: Tuning seeds start here; they are never evaluated.
TUNING_SEED = 1000
NATS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LABEL_NOISE = 0.2

PROTOCOL = (
    "Selection: every method picks its candidate and its epoch by the worst group on val, whose groups are known.",
    (
        "Four candidates a method (two learning rates by two settings of its own, or four learning rates); the same"
        " weight decay for all."
    ),
    (
        "BR-DRO is judged with the no-regret update and an importance that Hedge raises by at most about 15 in the"
        " logarithm over the run (the authors' 0.05 in 300 epochs); whether it enters by the loss or by sampling is"
        " tuned."
    ),
    "BR-DRO's VIB adversary observes means and deviations of the colour channels, and the label.",
    "Averages weight the groups' accuracies by their training shares.",
    "A seed changes initial weights, order, split and painting; tuning seeds (from 1000) are never judged.",
)


def run(run: Run) -> None:
    """Measure everything; Fashion-MNIST where its files are at hand."""
    every = claims_in(claims)
    run.notes += PROTOCOL
    run.notes.append(
        f"Seeds: {run.n_seeds} for all methods, and up to {run.most_seeds} where these leave a claim of the same"
        " comparison undecided; of the toy 20, and for cells of its table that these leave undecided 80."
    )
    run.add(measure_toy(every, run.quick))
    for study in _studies(run):
        out = run.out / study.name
        chosen = {method.name: 1 for method in methods(study)}
        if not run.quick:
            chosen, tuned = tune(study, out)
            run.add(tuned)
        run.notes.append(f"{study.name}: candidates chosen (0 to 3): {chosen}; {study.n_tuning_seeds} tuning seeds.")
        parts = [comparison]
        if study.name == DIGITS.name:
            parts += [capacity] if run.quick else [capacity, label_noise]
        for part in parts:
            run.add(settle(partial(part, study, chosen, out), every, run.n_seeds, run.most_seeds))


def _studies(run: Run) -> list[ImageStudy]:
    """Return a scale's studies."""
    if run.quick:
        return [replace(DIGITS, epochs=6)]
    if run.scale == "paper":
        return [WATERBIRDS]
    return [DIGITS, FASHION] if data_folder("fashion_mnist", run, "Fashion-MNIST was") else [DIGITS]


def tune(study: ImageStudy, out: Path) -> tuple[dict[str, int], Measured]:
    """Choose each method's candidate by its mean worst-group accuracy on val, over seeds that are not evaluated.

    Returns:
        Method -> candidate, and one row per method, candidate and seed.
    """
    seeds = range(TUNING_SEED, TUNING_SEED + study.n_tuning_seeds)
    jobs = {
        (m.name, i, s): job(study, m, candidate, s, f"{study.name}-tune-{slug(m.name)}-{i}-{s}")
        for m in methods(study)
        for i, candidate in enumerate(m.candidates)
        for s in seeds
    }
    results = run_named_jobs(jobs, out)
    score = {key: result.selection[RULE][VALIDATION] for key, result in results.items()}
    rows = [
        {"study": study.name, "method": name, "candidate": i, "seed": s, "val_worst_group": value}
        for (name, i, s), value in score.items()
    ]
    chosen = {}
    for method in methods(study):
        means = [fmean(score[method.name, i, s] for s in seeds) for i in range(len(method.candidates))]
        chosen[method.name] = means.index(max(means))
    return chosen, Measured({"tuning": rows}, {"tuning": seconds_of(results.values())})


def comparison(study: ImageStudy, chosen: Mapping[str, int], out: Path, n_seeds: int) -> Measured:
    """Train every method at its chosen candidate."""
    results = _compare(study, methods(study), chosen, n_seeds, out)
    tables = {
        "methods": [
            row
            for method in methods(study)
            for seed, result in enumerate(results[method.name])
            for row in [_result_row(study, method, chosen[method.name], seed, result)]
        ],
        "differences": _difference_rows(study, results),
        "recovery": _recovery_rows(study, results),
    }
    return Measured(tables, {"methods": seconds_of(r for rs in results.values() for r in rs)})


def _compare(
    study: ImageStudy, chosen_methods: Sequence[TunedMethod], chosen: Mapping[str, int], n_seeds: int, out: Path
) -> dict[str, list[Result]]:
    """Return the results of methods at their chosen candidates on the evaluation seeds."""
    jobs = {
        (m.name, s): job(study, m, m.candidates[chosen[m.name]], s, f"{study.name}-{slug(m.name)}-{s}")
        for m in chosen_methods
        for s in range(n_seeds)
    }
    results = run_named_jobs(jobs, out)
    return {m.name: [results[m.name, s] for s in range(n_seeds)] for m in chosen_methods}


def _worst(result: Result) -> float:
    """Return the test accuracy of the worst group at the epoch with the best worst group on val."""
    return result.selection[RULE][WORST]


def _late(result: Result, quantity: str) -> float:
    """Return the mean of a logged quantity over the second half of the epochs; NaN where it was not logged."""
    values = result.history.get(quantity, [])
    return fmean(values[len(values) // 2 :]) if values else float("nan")


def _result_row(study: ImageStudy, method: TunedMethod, candidate: int, seed: int, result: Result) -> dict[str, object]:
    return {
        "study": study.name,
        "method": method.name,
        "candidate": candidate,
        "group_labels": method.groups,
        "seed": seed,
        **result.selection[RULE],
        "oracle_worst_group": result.selection["test_oracle"][WORST],
        "val_average_worst_group": result.selection["val_average"][WORST],
        "train_accuracy": result.last.get("train/accuracy"),
        **{f"minority_{k}": _late(result, f"example_weights/minority_{k}") for k in ("auc", "precision", "recall")},
    }


def _difference_rows(study: ImageStudy, results: Mapping[str, Sequence[Result]]) -> Rows:
    """Return the paired difference of every two methods, with its 95% interval over seeds."""
    rows = []
    for first, second in combinations(results, 2):
        for name, quantity in {"worst_group": WORST, "average": AVERAGE}.items():
            pair = ([r.selection[RULE][quantity] for r in results[m]] for m in (first, second))
            mean, low, high, n = paired_difference(*pair)
            compared = {"study": study.name, "method": first, "minus": second, "quantity": name}
            rows.append(compared | {"mean": mean, "low": low, "high": high, "n_seeds": n})
    return rows


def _recovery_rows(study: ImageStudy, results: Mapping[str, Sequence[Result]]) -> Rows:
    """Return, over training, how well the weights of every method but ERM find the minority, at about 15 epochs."""
    rows = []
    for name in results:
        for epoch in range(0, study.epochs, max(1, study.epochs // 15)) if name != "ERM" else ():
            mean, low, high, n = mean_interval(
                [r.history["example_weights/minority_auc"][epoch] for r in results[name]]
            )
            of = {"study": study.name, "method": name, "epoch": epoch, "quantity": "minority_auc"}
            rows.append(of | {"mean": mean, "low": low, "high": high, "n_seeds": n})
    return rows


def capacity(study: ImageStudy, chosen: Mapping[str, int], out: Path, n_seeds: int) -> Measured:
    """Follow BR-DRO over penalties per nat, beside ERM at the same learning rate."""
    by_name = {m.name: m for m in methods(study)}
    base = by_name[BITS].candidates[0]
    seeds = range(n_seeds)
    jobs = {
        (p, s): job(study, by_name[BITS], {**base, "penalty": p}, s, f"{study.name}-capacity-{p:g}-{s}")
        for p in NATS
        for s in seeds
    }
    erm = {s: job(study, by_name["ERM"], {"lr": base["lr"]}, s, f"{study.name}-capacity-erm-{s}") for s in seeds}
    results, plain = run_named_jobs(jobs, out), run_named_jobs(erm, out)
    rows: Rows = [
        {
            "study": study.name,
            "method": BITS,
            "penalty": p,
            "seed": s,
            "worst_group": _worst(result),
            "minority_weight": _minority_weight(result),
            "nats": result.last.get("train/adversary_complexity"),
        }
        for (p, s), result in results.items()
    ]
    rows += [{"study": study.name, "method": "ERM", "seed": s, "worst_group": _worst(r)} for s, r in plain.items()]
    return Measured({"capacity": rows}, {"capacity": seconds_of([*results.values(), *plain.values()])})


def _minority_weight(result: Result) -> float:
    """Return the mean weight of the groups whose confounder disagrees (two classes), late in training."""
    names = [f"example_weights/group_mean/{pair}" for pair in ("y=0,colour=1", "y=1,colour=0")]
    return fmean(_late(result, name) for name in names if name in result.history)


def label_noise(study: ImageStudy, chosen: Mapping[str, int], out: Path, n_seeds: int) -> Measured:
    """Flip training labels at random, of majority and minority alike.

    Where the confounder is painted by the true label, a flipped label disagrees with it as a minority example's does:
    to an adversary that sees the confounder and the label this noise is as simple as the group.
    """
    kept = [m for m in methods(study) if m.name not in ("LfF", BITS, FEATURES)]
    clean = _compare(study, kept, chosen, n_seeds, out)
    jobs = {
        (m.name, s): job(
            study,
            m,
            m.candidates[chosen[m.name]],
            s,
            f"{study.name}-noise-{LABEL_NOISE:g}-{slug(m.name)}-{s}",
            {"label_noise": {"share": LABEL_NOISE}},
        )
        for m in kept
        for s in range(n_seeds)
    }
    noisy = run_named_jobs(jobs, out)
    rows = [
        {
            "study": study.name,
            "method": m.name,
            "label_noise": share,
            "seed": s,
            "worst_group": _worst(result),
            "noisy_auc": _late(result, "example_weights/noisy_auc") if share and m.name != "ERM" else None,
        }
        for m in kept
        for share, results in ((0.0, clean[m.name]), (LABEL_NOISE, [noisy[m.name, s] for s in range(n_seeds)]))
        for s, result in enumerate(results)
    ]
    return Measured({"label_noise": rows}, {"label_noise": seconds_of(noisy.values())})
