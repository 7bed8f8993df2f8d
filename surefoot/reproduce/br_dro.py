"""Bitrate-constrained DRO: its claims on the authors' linear toy and on images with painted confounders.

Reference: Setlur et al., ICLR 2023, arXiv 2302.02931; baselines after Liu et al., ICML 2021, and Sagawa et al., ICLR
2020.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.report.figures import dot_plot, interval_curves
from surefoot.reproduce._experiments import Result, run_jobs
from surefoot.reproduce._image_studies import (
    AVERAGE,
    BITS,
    DIGITS,
    FASHION,
    FEATURES,
    PRACTICAL,
    RULE,
    WATERBIRDS,
    Study,
    compare,
    difference_rows,
    job,
    last_value,
    methods,
    minority_weights,
    recovery,
    result_rows,
    slug,
    tune,
    worst,
)
from surefoot.reproduce._linear_toy_claims import measure_toy
from surefoot.reproduce.claims import (
    MAX_SEEDS,
    Criterion,
    Findings,
    Measurement,
    Paper,
    Scale,
    at_least,
    at_most,
    close_to,
    interval_above,
    reported,
    settle,
)
from surefoot.statistics import (
    Estimate,
    mean_interval,
    paired_difference,
    rank_correlation,
)

__all__ = ("PAPER",)


def comparison_claims(study: Study, results: Mapping[str, Sequence[Result]]) -> list[Measurement]:
    """Judge the ordering of the methods on the worst group, and how the weights find the minority."""
    accuracy = {name: [worst(r) for r in rs] for name, rs in results.items()}
    average = {name: [r.selection[RULE][AVERAGE] for r in rs] for name, rs in results.items()}
    practical, bits = accuracy[PRACTICAL], accuracy[BITS]
    auc = {name: [recovery(r, "minority_auc") for r in rs] for name, rs in results.items()}
    on, unit = f" on {study.name}", "accuracy"
    finds = at_least(0.9, "clearly above what other methods' weights reach, short of perfect")

    def claim(key: str, text: str, source: str, criterion: Criterion, found: Estimate, unit: str = unit) -> Measurement:
        return Measurement(f"{study.name}_{key}", text + on, source, criterion, found, unit)

    def ordering(key: str, text: str, better: list[float], than: list[float], source: str) -> Measurement:
        criterion = interval_above(0, "a difference between methods has to stand out from the seeds")
        return claim(key, text, source, criterion, paired_difference(better, than))

    return [
        ordering(
            "cvar_above_erm",
            "CVaR-DRO beats ERM on the worst group",
            accuracy["CVaR-DRO"],
            accuracy["ERM"],
            "section 7 [M]",
        ),
        ordering(
            "br_dro_above_erm",
            "BR-DRO without group labels beats ERM on the worst group",
            practical,
            accuracy["ERM"],
            "section 7 [M]",
        ),
        ordering(
            "br_dro_above_cvar",
            "BR-DRO beats CVaR-DRO on the worst group",
            practical,
            accuracy["CVaR-DRO"],
            "section 7 [M]",
        ),
        claim(
            "group_dro_not_below_br_dro",
            "Group DRO, which sees the groups, is not below BR-DRO",
            "section 7 [M]",
            at_least(0, "the order of the means is claimed; the gap may be small"),
            paired_difference(accuracy["Group DRO"], practical),
        ),
        claim(
            "br_dro_near_jtt",
            "BR-DRO and JTT are about equal on the worst group (BR-DRO minus JTT)",
            "section 7 [M]: within 1 point on Waterbirds and CelebA",
            close_to(
                0,
                0.05,
                "about equal, at the resolution of these test sets (about 90 to 375 examples a group)",
            ),
            paired_difference(practical, accuracy["JTT"]),
        ),
        claim(
            "br_dro_average_cost",
            "BR-DRO's loss of average accuracy against ERM (groups weighted by training shares)",
            "section 7: at most 3 to 4 points",
            at_most(0.04, "the specification's bound"),
            paired_difference(average["ERM"], average[PRACTICAL]),
        ),
        claim(
            "br_dro_finds_minority",
            "BR-DRO's weights, importance included, find the minority",
            "section 11: AUC about 1",
            finds,
            mean_interval(auc[PRACTICAL]),
            "AUC",
        ),
        claim(
            "practical_minus_soft",
            "BR-DRO's worst group with the no-regret update and growing importance, minus that with the soft update",
            "section 5: the authors' code",
            reported("the specification compares no updates"),
            paired_difference(practical, bits),
        ),
        claim(
            "soft_minus_erm",
            "BR-DRO's worst group with the soft update, minus ERM's",
            "section 7 [M]",
            reported("BR-DRO is judged in the form its authors recommend"),
            paired_difference(bits, accuracy["ERM"]),
        ),
        claim(
            "simple_observation_finds_minority",
            "The weights of a soft adversary that sees colour statistics only find the minority",
            "section 11: AUC about 1",
            finds,
            mean_interval(auc[BITS]),
            "AUC",
        ),
        ordering(
            "simple_beats_features",
            "A soft adversary on colour statistics beats one on the learner's features",
            bits,
            accuracy[FEATURES],
            "section 11",
        ),
        claim(
            "features_auc",
            "How well the soft adversary on the learner's features finds the minority",
            "section 11: intermediate",
            reported("the specification gives no number"),
            mean_interval(auc[FEATURES]),
            "AUC",
        ),
    ]


def comparison(
    study: Study, chosen: Mapping[str, int], n_seeds: int, out: Path
) -> tuple[list[Measurement], dict[str, list[Result]]]:
    """Train every method at its chosen candidate and judge the ordering."""
    results = compare(study, chosen, n_seeds, out / study.name)
    return comparison_claims(study, results), results


def capacity_path(
    study: Study, results: Mapping[str, Sequence[Result]], n_seeds: int, out: Path
) -> tuple[list[Measurement], list[dict[str, Any]]]:
    """Follow BR-DRO from a free to a mute adversary as its bits become dear."""
    method = next(m for m in methods(study) if m.name == BITS)
    penalties = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    base = method.candidates[0]
    names = {(p, s): f"{study.name}-capacity-{p:g}-{s}" for p in penalties for s in range(n_seeds)}
    jobs = [job(study, method, {**base, "penalty": p}, s, label) for (p, s), label in names.items()]
    erm_method = next(m for m in methods(study) if m.name == "ERM")
    same_rate = {"lr": base["lr"]}
    erm_names = [f"{study.name}-capacity-erm-{s}" for s in range(n_seeds)]
    jobs += [job(study, erm_method, same_rate, s, erm_names[s]) for s in range(n_seeds)]
    found = run_jobs(jobs, out / study.name)
    erm = [worst(found[name]) for name in erm_names]
    weight = {
        k: fmean(fmean(v for v in r.history[name][len(r.history[name]) // 2 :]) for name in minority_weights(r))
        for k, r in found.items()
        if k not in erm_names
    }
    rows = [
        {
            "study": study.name,
            "penalty": p,
            "seed": s,
            "worst_group": worst(found[label]),
            "minority_weight": weight[label],
            "nats": last_value(found[label], "train/adversary_complexity"),
        }
        for (p, s), label in names.items()
    ]
    tau = [rank_correlation(penalties, [weight[names[p, s]] for p in penalties]) for s in range(n_seeds)]
    dearest = [worst(found[names[penalties[-1], s]]) for s in range(n_seeds)]
    curve = [(p, mean_interval([worst(found[names[p, s]]) for s in range(n_seeds)])) for p in penalties]
    interval_curves(
        {"BR-DRO (VIB)": curve},
        ("penalty per nat", "worst-group accuracy"),
        out / "figures" / f"capacity_{study.name}",
        f"Capacity path on {study.name}",
        log_x=True,
        horizontals={
            "ERM, same rate": mean_interval(erm),
            **{f"{n}, tuned": mean_interval([worst(r) for r in results[n]]) for n in ("ERM", "CVaR-DRO", "Group DRO")},
        },
    )
    claims = [
        Measurement(
            f"{study.name}_capacity_weights_fall",
            f"The minority's weight falls as bits become dear, on {study.name} (Kendall's tau over 5 penalties)",
            "section 8 (capacity sweep) and 10.1",
            at_most(-0.6, "at least four fifths of the pairs in order"),
            mean_interval(tau),
            "tau",
        ),
        Measurement(
            f"{study.name}_capacity_ends_at_erm",
            f"At a price of 1 per nat BR-DRO is ERM at the same learning rate, on {study.name} (difference of the"
            " worst groups)",
            "section 8: too tight = ERM",
            close_to(0, 0.05, "the seeds' own spread"),
            paired_difference(dearest, erm),
            "accuracy",
        ),
    ]
    return claims, rows


def label_noise(
    study: Study,
    chosen: Mapping[str, int],
    levels: Sequence[float],
    n_seeds: int,
    out: Path,
) -> tuple[list[Measurement], list[dict[str, Any]]]:
    """Flip training labels at random, of majority and minority alike.

    Where the confounder is painted by the true label, a flipped label disagrees with it as a minority example's does:
    to an adversary that sees the confounder and the label this noise is as simple as the group.
    """
    left_out = ("LfF", BITS, FEATURES)
    kept = [m for m in methods(study) if m.name not in left_out]
    clean = compare(study, chosen, n_seeds, out / study.name, left_out)
    names = {
        (m.name, v, s): f"{study.name}-noise-{v:g}-{slug(m.name)}-{s}"
        for m in kept
        for v in levels
        for s in range(n_seeds)
    }
    jobs = [
        job(study, m, m.candidates[chosen[m.name]], s, names[m.name, v, s], {"label_noise": v})
        for m in kept
        for v in levels
        for s in range(n_seeds)
    ]
    found = run_jobs(jobs, out / study.name)
    accuracy = {(m.name, 0.0): [worst(r) for r in clean[m.name]] for m in kept}
    accuracy |= {(m.name, v): [worst(found[names[m.name, v, s]]) for s in range(n_seeds)] for m in kept for v in levels}
    rows = [
        {"study": study.name, "method": n, "label_noise": v, "seed": s, "worst_group": a}
        for (n, v), values in accuracy.items()
        for s, a in enumerate(values)
    ]
    interval_curves(
        {m.name: [(v, mean_interval(accuracy[m.name, v])) for v in (0.0, *levels)] for m in kept},
        ("share of training labels flipped", "worst-group accuracy"),
        out / "figures" / f"label_noise_{study.name}",
        f"Random label noise on {study.name}",
    )
    top = max(levels)
    drops = {
        n: [c - a for c, a in zip(accuracy[n, 0.0], accuracy[n, top], strict=True)]
        for n in ("CVaR-DRO", "JTT", PRACTICAL)
    }
    noisy = {
        n: [recovery(found[names[n, top, s]], "noisy_auc") for s in range(n_seeds)]
        for n in ("CVaR-DRO", "JTT", PRACTICAL)
    }
    claims = []
    for other in ("CVaR-DRO", "JTT"):
        claims.append(
            Measurement(
                f"{study.name}_noise_drop_less_than_{slug(other)}",
                f"With {top:.0%} of the labels flipped BR-DRO loses less than {other}, on {study.name}",
                "section 8: BR-DRO drops far less",
                interval_above(0, "a difference between methods has to stand out from the seeds"),
                paired_difference(drops[other], drops[PRACTICAL]),
                "accuracy",
            )
        )
        claims.append(
            Measurement(
                f"{study.name}_noise_weight_less_than_{slug(other)}",
                f"BR-DRO's weights pick fewer mislabelled points than {other}'s, on {study.name} (difference of the"
                " AUC)",
                "sections 1 and 10.1: noise that is complex costs bits",
                interval_above(0, "a difference between methods has to stand out from the seeds"),
                paired_difference(noisy[other], noisy[PRACTICAL]),
                "AUC",
            )
        )
    return claims, rows


def figure(study: Study, results: Mapping[str, Sequence[Result]], out: Path) -> None:
    """Draw worst-group and average accuracy of every method."""
    panels: dict[str, dict[str, Estimate]] = {
        "worst group": {n: mean_interval([worst(r) for r in rs]) for n, rs in results.items()},
        "average (train shares)": {
            n: mean_interval([r.selection[RULE][AVERAGE] for r in rs]) for n, rs in results.items()
        },
    }
    dot_plot(
        panels,
        "test accuracy",
        out / "figures" / f"methods_{study.name}",
        f"{study.name}: mean and 95% interval",
    )


def recovery_figures(study: Study, results: Mapping[str, Sequence[Result]], out: Path) -> None:
    """Draw how well each method's weights find the minority: over training, and in sum."""
    names = ("auc", "precision", "recall")
    reweighting = {n: rs for n, rs in results.items() if n != "ERM"}
    panels = {
        q: {n: mean_interval([recovery(r, f"minority_{q}") for r in rs]) for n, rs in reweighting.items()}
        for q in names
    }
    dot_plot(
        panels,
        "against the true minority",
        out / "figures" / f"recovery_{study.name}",
        f"{study.name}: whom the weights find",
    )
    curves = {
        n: [
            (float(epoch), mean_interval([r.history["adversary/minority_auc"][epoch] for r in rs]))
            for epoch in range(0, study.epochs, max(1, study.epochs // 15))
        ]
        for n, rs in reweighting.items()
    }
    interval_curves(
        curves,
        ("epoch", "AUC of the weights for the minority"),
        out / "figures" / f"recovery_over_training_{study.name}",
        f"{study.name}: whom the weights find, over training",
    )


def studies(scale: Scale) -> list[Study]:
    """Return the studies that a scale carries; Fashion-MNIST where its files are at hand."""
    if scale == "paper":
        return [WATERBIRDS]
    data = os.environ.get("SUREFOOT_DATA")
    has_fashion = data is not None and (Path(data) / "fashion_mnist").is_dir()
    return [DIGITS, FASHION] if has_fashion and scale == "laptop" else [DIGITS]


def measure(scale: Scale, n_seeds: int, out: Path, max_seeds: int | None = None) -> Findings:
    """Measure every claim.

    Args:
        scale: ``quick`` shortens everything and judges nothing.
        n_seeds: Seeds of the image studies to begin with, of training, split and painting alike; undecided claims get
            twice as many. The toy takes 20, the table's own, and 80 for undecided cells of it.
        out: Folder of the results.
        max_seeds: The budget of the image studies, instead of twice as many.

    Returns:
        Measurements, tables and the protocol.
    """
    quick = scale == "quick"
    n_toy, most = (2, n_seeds) if quick else (20, max_seeds or 2 * n_seeds)
    measurements, toy_rows = measure_toy(n_toy, quick, out)
    tables: dict[str, list[dict[str, Any]]] = {
        "toy": toy_rows,
        "tuning": [],
        "methods": [],
        "differences": [],
        "capacity": [],
        "label_noise": [],
    }
    notes = [
        "Selection: every method picks its candidate and its epoch by the worst group on val, whose groups are known.",
        (
            "Four candidates a method (two learning rates by two settings of its own, or four learning rates); the same"
            " weight decay for all."
        ),
        (
            "BR-DRO is judged with the no-regret update and an importance that Hedge raises by at most about 15 in the"
            " logarithm over the run (the authors' 0.05 in 300 epochs); whether it enters by the loss or by sampling"
            " is tuned."
        ),
        "BR-DRO's VIB adversary observes means and deviations of the colour channels, and the label.",
        "Averages weight the groups' accuracies by their training shares.",
        "A seed changes initial weights, order, split and painting; tuning seeds (from 1000) are never judged.",
        (
            f"Seeds: {n_seeds} for all methods, and up to {most} where these leave a claim of the same comparison"
            " undecided;"
            f" of the toy {n_toy}, and for cells of its table that these leave undecided {4 * n_toy}."
        ),
    ]
    first = itemgetter(0)  # the measurements of what was found
    for study in studies(scale):
        if quick:
            study = replace(study, epochs=6)
        chosen = {m.name: 1 for m in methods(study)}
        if not quick:
            chosen, rows = tune(study, out / study.name, study.n_tuning_seeds)
            tables["tuning"] += rows

        claims, results = settle(partial(comparison, study, chosen, out=out), first, n_seeds, most)
        measurements += claims
        tables["methods"] += result_rows(study, chosen, results)
        tables["differences"] += difference_rows(study, results)
        figure(study, results, out)
        recovery_figures(study, results, out)
        if study.name == DIGITS.name:
            path = partial(capacity_path, study, results, out=out)
            claims, rows = settle(path, first, n_seeds, most)
            measurements += claims
            tables["capacity"] += rows
        if not quick and study.name == DIGITS.name:
            noise = partial(label_noise, study, chosen, (0.2,), out=out)
            claims, rows = settle(noise, first, n_seeds, most)
            measurements += claims
            tables["label_noise"] += rows
        notes.append(f"{study.name}: candidates chosen (0 to 3): {chosen}; {study.n_tuning_seeds} tuning seeds.")
    if scale == "laptop" and len(studies(scale)) == 1:
        notes.append("Fashion-MNIST was left out: SUREFOOT_DATA names no folder with fashion_mnist.")
    return Findings(measurements, {k: v for k, v in tables.items() if v}, notes)


PAPER = Paper(
    "br_dro",
    "Bitrate-Constrained DRO: Beyond Worst Case Robustness To Unknown Group Shifts",
    "Setlur et al., ICLR 2023, arXiv 2302.02931",
    measure,
    {"quick": 1, "laptop": 10, "paper": 5},
    {"--max-seeds": MAX_SEEDS},
)
