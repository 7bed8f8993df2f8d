"""The learning-dynamics study on runs of our own: what predicts test accuracy, and what fails under a given start."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.reasoning.learning_dynamics import RecordedRun, read_record, write_recorded_runs
from surefoot.reasoning.metrics.generalization import atc_accuracy, atc_threshold
from surefoot.reasoning.metrics.memorization import (
    ThresholdSweep,
    is_memorized,
    pre_memorization_accuracies,
    quality_of_train_accuracy,
)
from surefoot.report.dynamics_figures import lines, prediction_panels, violins
from surefoot.reproduce.claims import Findings, Measurement, Scale, interval_above, reported
from surefoot.reproduce.jobs import Result, run_jobs
from surefoot.reproduce.learning_dynamics.recorded import measure_recorded
from surefoot.reproduce.learning_dynamics.sweep import (
    EPOCHS,
    MIDDLE_RATE,
    Size,
    Variant,
    fine_tuning,
    pretraining,
    sizes,
)
from surefoot.statistics import correlation, mean_interval, paired_difference, rank_correlation
from surefoot.storage.json_files import read_json

__all__ = ("measure_study",)

Runs = Mapping[Variant, RecordedRun]


def measure_study(scale: Scale, n_seeds: int, out: Path) -> Findings:
    """Pretrain a tiny model per seed, fine-tune it in many ways, and measure the claims on these runs.

    Args:
        scale: quick or laptop.
        n_seeds: Number of seeds.
        out: Folder of runs and figures.
    """
    size, seeds = sizes(scale), range(n_seeds)
    run_jobs([pretraining(s, size) for s in seeds], out)
    jobs = {(s, v): fine_tuning(s, size, v, out, v == _perturbed_variant(size)) for s in seeds for v in size.variants}
    results = run_jobs(list(jobs.values()), out)
    folders = {key: out / "runs" / job.name / "latest" / "memorization" for key, job in jobs.items()}
    recorded = [{v: read_record(folders[s, v], jobs[s, v].name) for v in size.variants} for s in seeds]
    every = [run for runs in recorded for run in runs.values()]
    write_recorded_runs(every, out / "arithmetic.npz")
    pooled = measure_recorded(every, out, "arithmetic", judge_r2=False, at_any_scale=False)
    thresholds = [_sweep(runs).best() for runs in recorded]
    prediction = _prediction_claims(recorded, thresholds)
    gaps = [
        _gap_rows(s, size, recorded[s], {v: results[jobs[s, v].name] for v in size.variants}, t)
        for s, t in zip(seeds, thresholds, strict=True)
    ]
    baselines = _baseline_claims(gaps)
    perturbed = [
        _perturbed_rows(folders[s, _perturbed_variant(size)], recorded[s], size, t)
        for s, t in zip(seeds, thresholds, strict=True)
    ]
    robustness = _robustness_claims(perturbed)
    figures = [*pooled.figures, *_gap_figure(gaps, out), *_violin_figure(perturbed, out)]
    figures += _share_figure(recorded[0], thresholds[0], out)
    return Findings(
        [*prediction, *baselines, *robustness, *pooled.measurements],
        dict(pooled.tables) | {"arithmetic_gaps": [row for rows in gaps for row in rows]},
        [*_protocol(size, n_seeds), *pooled.notes],
        figures,
    )


def _perturbed_variant(size: Size) -> Variant:
    """Return the run whose answers are started: the longest at the middle rate, which memorises and generalises."""
    full = [v for v in size.variants if v.share == "full"]
    longest = [v for v in full if v.epochs == max(x.epochs for x in full)]
    return next((v for v in longest if v.rate == MIDDLE_RATE), longest[0])


def _sweep(runs: Runs) -> ThresholdSweep:
    return ThresholdSweep([run.curves() for run in runs.values()])


def _protocol(size: Size, n_seeds: int) -> list[str]:
    rates = sorted({v.rate for v in size.variants})
    return [
        (
            "Arithmetic: chains of three operations modulo 10, three styles of writing, useless lines at a rate of"
            " 0.1, so that"
            " knowing a trace by heart differs from solving; a Llama of 0.3 M parameters is pretrained on other"
            " problems of the"
            f" same kind until it solves {size.start_accuracy:.0%} greedily, then fine-tuned on {size.n_train} (half,"
            " quarter)"
            f" problems at learning rates {rates[0]:g} to {rates[-1]:g}; 5 samples per problem at temperature 0.8 and"
            " top_p 0.95;"
            f" {n_seeds} seeds of model, problems and sampling."
        ),
        (
            "Thresholds: per seed each run is predicted with the threshold that the seed's other runs choose; pooled,"
            " with that"
            " of all other runs. Baselines and bins use the threshold of all of a seed's runs."
        ),
    ]


def _prediction_claims(recorded: Sequence[Runs], thresholds: Sequence[float]) -> list[Measurement]:
    """Measure, per seed, how pre-memorization and plain train accuracy tell test accuracy."""
    left_out = [_sweep(runs).leave_one_run_out().quality for runs in recorded]
    plain = [quality_of_train_accuracy([r.curves() for r in runs.values()]) for runs in recorded]
    peaks = [_peak_drop(runs) for runs in recorded]
    ours, theirs = ([q.r2_identity for q in qs] for qs in (left_out, plain))
    section = "sections 3 and 7"
    return [
        Measurement(
            "own_runs_r2_identity",
            "On our own sweep: R² of the line y = x, thresholds from other runs",
            section,
            reported("a tiny model is no evidence for the paper's 0.9; as it comes out"),
            mean_interval(ours),
            "R²",
        ),
        Measurement(
            "own_runs_r2_fit",
            "On our own sweep: squared correlation, thresholds from other runs",
            section,
            reported("as it comes out"),
            mean_interval([q.r2_fit for q in left_out]),
            "R²",
        ),
        Measurement(
            "own_runs_beats_train_accuracy",
            "Identity R² above plain train accuracy's on our own sweep",
            section,
            interval_above(0, "a difference has to stand out from the seeds"),
            paired_difference(ours, theirs),
            "R²",
        ),
        Measurement(
            "own_runs_single_peak",
            "R² falls on both sides of the best threshold (drop to the better of the two ends of the range)",
            "section 3: a clear single peak",
            interval_above(0, "an interior peak is what makes the threshold mean something"),
            mean_interval(peaks),
            "R²",
        ),
        Measurement(
            "own_runs_threshold",
            "Threshold that all of a seed's runs choose",
            "section 3: -2.3 on GSM8K",
            reported("depends on the task"),
            mean_interval(list(thresholds)),
            "log log perplexity",
        ),
    ]


def _peak_drop(runs: Runs) -> float:
    values = [q.r2_identity for q in _sweep(runs).qualities()]
    return max(values) - max(values[0], values[-1])


def _gap_rows(
    seed: int, size: Size, runs: Runs, results: Mapping[Variant, Result], threshold: float
) -> list[dict[str, Any]]:
    """Return, for each checkpoint of the seed's runs of middle length, the generalisation gap and what predicts it."""
    sweep = _sweep(runs)
    lengths = {v.epochs for v in size.variants}
    middle = EPOCHS[1] if EPOCHS[1] in lengths else min(lengths)
    chosen = [v for v in size.variants if v.epochs == middle and v.share == "full"]
    calibration = next((v for v in chosen if v.rate == MIDDLE_RATE), chosen[0])
    known = runs[calibration]
    assert known.greedy_logprobs is not None
    atc = atc_threshold(known.greedy_logprobs[-1].exp(), float(known.curves().test_accuracies[-1]))
    rows = []
    for v in chosen:
        run, curves = runs[v], runs[v].curves()
        assert run.greedy_logprobs is not None
        pre = sweep.at(run.name, threshold)
        for m in range(len(run.steps)):
            train = float(curves.train_accuracies[m].mean())
            rows.append(
                {
                    "seed": seed,
                    "learning_rate": v.rate,
                    "checkpoint": m + 1,
                    "gap": train - float(curves.test_accuracies[m]),
                    "train minus pre-memorization": train - float(pre[m]),
                    "gradient variance": results[v].history["predictors/gradient_variance"][m],
                    "distance from start": results[v].history["predictors/distance_from_start"][m],
                    "ATC": train - atc_accuracy(run.greedy_logprobs[m].exp(), atc),
                }
            )
    return rows


PREDICTORS = ("train minus pre-memorization", "gradient variance", "distance from start", "ATC")


def _baseline_claims(gaps: Sequence[Sequence[Mapping[str, Any]]]) -> list[Measurement]:
    """Measure, per seed, how each predictor is correlated with the generalisation gap."""
    found = {
        name: [correlation([r[name] for r in rows], [r["gap"] for r in rows]) for rows in gaps] for name in PREDICTORS
    }
    ours = found[PREDICTORS[0]]
    claims = []
    for name, theirs in found.items():
        key = name.lower().replace(" ", "_").replace("-", "_")
        claims.append(
            Measurement(
                f"gap_correlation_{key}",
                f"Correlation of the generalisation gap with {name}",
                "section 4: 0.986, -0.72, 0.59, -0.04 in this order",
                reported("the paper's figures are of one model and three runs"),
                mean_interval(theirs),
                "Pearson",
            )
        )
        if name != PREDICTORS[0]:
            claims.append(
                Measurement(
                    f"beats_{key}",
                    f"Pre-memorization accuracy tells the gap better than {name}: difference of correlations",
                    "section 4",
                    interval_above(0, "a difference has to stand out from the seeds"),
                    paired_difference(ours, theirs),
                    "Pearson",
                )
            )
    return claims


def _perturbed_rows(folder: Path, runs: Runs, size: Size, threshold: float) -> list[dict[str, Any]]:
    """Return a run's samples under started answers, with pre-memorization accuracies at the study's threshold."""
    run = runs[_perturbed_variant(size)]
    last = pre_memorization_accuracies(run.train_accuracies, run.train_perplexities, threshold)[-1]
    values = dict(zip(run.train_ids, last.tolist(), strict=True))
    rows: list[dict[str, Any]] = read_json(folder / "prefixes.json")
    return [r | {"pre_memorization_accuracy": values[r["id"]]} for r in rows]


def _bins(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[float, list[float]]:
    """Return sampled accuracies of training examples by their pre-memorization accuracy."""
    bins: dict[float, list[float]] = {}
    for r in rows:
        if r["prefix"] == prefix:
            place = round(float(r["pre_memorization_accuracy"]), 1)
            bins.setdefault(place, []).append(r["n_correct"] / r["n_samples"])
    return bins


def _robustness_claims(perturbed: Sequence[Sequence[Mapping[str, Any]]]) -> list[Measurement]:
    """Measure, per seed, whether accuracy under a started answer rises with pre-memorization accuracy."""

    def slopes(prefix: str) -> list[float]:
        found = []
        for rows in perturbed:
            chosen = [r for r in rows if r["prefix"] == prefix]
            x = [float(r["pre_memorization_accuracy"]) for r in chosen]
            y = [r["n_correct"] / r["n_samples"] for r in chosen]
            found.append(rank_correlation(x, y))
        return found

    prefixes = list(dict.fromkeys(r["prefix"] for rows in perturbed for r in rows))
    claims = []
    for i, prefix in enumerate(p for p in prefixes if p):
        claims.append(
            Measurement(
                f"robustness_prefix_{i + 1}",
                f"Accuracy of training examples whose answer is started with {prefix.strip()!r} rises with their"
                " pre-memorization accuracy",
                "section 5",
                interval_above(0, "Kendall's tau over examples, at the end of a run that has memorized"),
                mean_interval(slopes(prefix)),
                "tau",
            )
        )
        drops = [
            _mean([r for r in rows if r["prefix"] == ""]) - _mean([r for r in rows if r["prefix"] == prefix])
            for rows in perturbed
        ]
        claims.append(
            Measurement(
                f"robustness_drop_{i + 1}",
                f"Accuracy lost on training examples by starting the answer with {prefix.strip()!r}",
                "section 5: about 0.2 on average",
                interval_above(0, "what was learned by heart breaks under another start"),
                mean_interval(drops),
                "accuracy",
            )
        )
    return claims


def _mean(rows: Sequence[Mapping[str, Any]]) -> float:
    return fmean(float(r["n_correct"]) / float(r["n_samples"]) for r in rows)


def _gap_figure(gaps: Sequence[Sequence[Mapping[str, Any]]], out: Path) -> list[Path]:
    panels: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
    for name in PREDICTORS:
        series = panels.setdefault(name, {})
        for rows in gaps:
            for r in rows:
                logarithmic = name in ("gradient variance", "distance from start")
                x = math.log10(max(r[name], 1e-30)) if logarithmic else r[name]
                key = (f"learning rate {r['learning_rate']:g}", f"seed {r['seed']}")
                series.setdefault(key, []).append((x, r["gap"]))
    titled = {
        f"log10 {name}" if name in ("gradient variance", "distance from start") else name: series
        for name, series in panels.items()
    }
    return prediction_panels(
        titled,
        ("predictor", "gap: train minus test accuracy"),
        out / "figures" / "arithmetic_gap",
        diagonal=False,
    )


def _violin_figure(perturbed: Sequence[Sequence[Mapping[str, Any]]], out: Path) -> list[Path]:
    rows = [r for seed in perturbed for r in seed]
    prefixes = list(dict.fromkeys(r["prefix"] for r in rows))
    panels = {f"answer started with {p.strip()!r}" if p else "answer not started": _bins(rows, p) for p in prefixes}
    return violins(
        panels,
        ("pre-memorization accuracy of the example", "sampled accuracy at the end"),
        out / "figures" / "arithmetic_prefixes",
    )


def _share_figure(runs: Runs, threshold: float, out: Path) -> list[Path]:
    longest = [v for v in runs if v.share == "full"]
    longest = [v for v in longest if v.epochs == max(x.epochs for x in longest)]
    series = {}
    for v in sorted(longest):
        shares = is_memorized(runs[v].train_perplexities, threshold).double().mean(1).tolist()
        step = v.epochs // len(shares)
        points = [((i + 1) * step, share) for i, share in enumerate(shares)]
        series[f"learning rate {v.rate:g}"] = points
    return lines(
        series,
        ("epoch", "share of training examples memorized"),
        out / "figures" / "arithmetic_memorized",
        "Seed 0",
        (-0.02, 1.02),
    )
