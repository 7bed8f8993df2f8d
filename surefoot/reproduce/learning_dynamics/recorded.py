"""Claims about recorded runs: does pre-memorization train accuracy predict test accuracy, and at which threshold?"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from surefoot.reasoning.learning_dynamics import RecordedRun, learning_curves
from surefoot.reasoning.metrics.memorization import (
    LearningCurves,
    PredictionQuality,
    ThresholdSweep,
    identity_r2,
    is_memorized,
    is_trivial,
    log_log,
    perplexity_at,
    prediction_quality,
    quality_of_train_accuracy,
    threshold_grid,
)
from surefoot.report.dynamics_figures import example_heat_map, lines, prediction_panels
from surefoot.reproduce.claims import (
    Criterion,
    Findings,
    Measurement,
    at_least,
    interval_above,
    reported,
)
from surefoot.statistics import Estimate, bootstrap_interval

__all__ = ("measure_recorded",)

SECTION = "section 3; the paper's abstract: R² around or above 0.9"


def measure_recorded(
    runs: Sequence[RecordedRun],
    out: Path,
    label: str,
    log_log_threshold: float | None = None,
    judge_r2: bool = True,
    at_any_scale: bool = True,
) -> Findings:
    """Measure the dataset-level claims on recorded runs.

    Args:
        runs: Runs with test samples.
        out: Folder of the figures.
        label: Begins ids and file names.
        log_log_threshold: The threshold; without one each run is predicted with the threshold that the others choose.
        judge_r2: Whether R² of the identity is judged against the paper's 0.9 or only reported.
        at_any_scale: Whether the claims are judged at quick scale too: recorded runs are as large as they are.
    """
    curves = learning_curves(runs)
    notes = _notes(runs, curves)
    given = [] if log_log_threshold is None else [log_log_threshold]
    sweep = ThresholdSweep(curves, sorted({*threshold_grid(), *given}))
    chosen = sweep.best() if log_log_threshold is None else log_log_threshold
    left_out = sweep.leave_one_run_out() if len(curves) > 1 else None
    thresholds = {c.name: chosen for c in curves}
    if log_log_threshold is None and left_out is not None:
        thresholds = left_out.thresholds
        values = sorted(thresholds.values())
        notes.append(
            f"{label}: no threshold was given; each run is predicted with the log(log(perplexity)) that the other runs"
            f" choose: {values[0]:g} to {values[-1]:g}; all runs together choose {chosen:g} (perplexity"
            f" {perplexity_at(chosen):.4f})."
        )
    elif log_log_threshold is None:
        notes.append(
            f"{label}: there is one run only; the threshold {chosen:g} was calibrated on the test accuracy that it is"
            " compared with, so R² is optimistic."
        )
    else:
        notes.append(f"{label}: log(log(perplexity)) {chosen:g} was given (perplexity {perplexity_at(chosen):.4f}).")
    trivial = [c.name for c in curves if is_trivial(c, thresholds[c.name])]
    if trivial:
        notes.append(
            f"{label}: nothing was ever memorized in {', '.join(trivial)}: there the metric is a running maximum of"
            " train"
            " accuracy and no evidence for or against the method."
        )
    pre = [sweep.at(c.name, thresholds[c.name]) for c in curves]
    plain = [c.train_accuracies.mean(1) for c in curves]
    observed = [c.test_accuracies for c in curves]
    figures = _figures(runs, sweep, pre, plain, chosen, out, label)
    measurements = _claims(pre, plain, observed, label, judge_r2, at_any_scale)
    if left_out is not None and log_log_threshold is not None:
        predicted = [sweep.at(c.name, left_out.thresholds[c.name]) for c in curves]
        measurements.append(
            Measurement(
                f"{label}_leave_one_run_out_identity",
                "Identity R² when each run's threshold is chosen on the other runs",
                "section 3: 0.92 on GSM8K",
                at_least(0.9, "the paper's bound, without any leak of test accuracy"),
                _estimate(predicted, observed, "r2_identity"),
                "R²",
                at_any_scale,
            )
        )
    return Findings(measurements, _tables(sweep, thresholds, label), notes, figures)


def _estimate(predicted: Sequence[Any], observed: Sequence[Any], quantity: str) -> Estimate:
    """Return a quantity of `PredictionQuality` over all runs' checkpoints, with its interval over redrawn runs."""

    def of(places: Sequence[int]) -> float:
        x, y = (torch.cat([v[i] for i in places]) for v in (predicted, observed))
        return float(getattr(prediction_quality(x, y), quantity))

    return bootstrap_interval(of, len(observed), 400)


def _claims(
    pre: Sequence[Any],
    plain: Sequence[Any],
    observed: Sequence[Any],
    label: str,
    judge_r2: bool,
    at_any_scale: bool,
) -> list[Measurement]:
    def estimate(predicted: Sequence[Any], quantity: str) -> Estimate:
        return _estimate(predicted, observed, quantity)

    def advantage(places: Sequence[int]) -> float:
        x, z, y = (torch.cat([v[i] for i in places]) for v in (pre, plain, observed))
        return identity_r2(x, y) - identity_r2(z, y)

    bound = at_least(0.9, "the paper's abstract")
    own = reported("no figure is claimed for models of this size")
    verdict = bound if judge_r2 else own
    gsm8k = "on GSM8K, section 3"

    def claim(key: str, text: str, source: str, criterion: Criterion, found: Estimate, unit: str = "R²") -> Measurement:
        return Measurement(f"{label}_{key}", text, source, criterion, found, unit, at_any_scale)

    return [
        claim(
            "r2_identity",
            "Pre-memorization train accuracy tells test accuracy: R² of the line y = x",
            SECTION,
            verdict,
            estimate(pre, "r2_identity"),
        ),
        claim("r2_fit", "The same: squared correlation", SECTION, verdict, estimate(pre, "r2_fit")),
        claim(
            "mean_absolute_error",
            "Its mean absolute error",
            f"0.029 {gsm8k}",
            reported("a scale for the eye"),
            estimate(pre, "mean_absolute_error"),
            "accuracy",
        ),
        claim(
            "kendall_tau",
            "Its rank correlation with test accuracy",
            f"0.81 {gsm8k}",
            reported("a scale for the eye"),
            estimate(pre, "kendall_tau"),
            "tau",
        ),
        claim(
            "train_accuracy_identity",
            "Plain train accuracy: R² of the line y = x",
            f"-6.0 {gsm8k}",
            reported("the baseline"),
            estimate(plain, "r2_identity"),
        ),
        claim(
            "train_accuracy_fit",
            "Plain train accuracy: squared correlation",
            f"0.40 {gsm8k}",
            reported("the baseline"),
            estimate(plain, "r2_fit"),
        ),
        claim(
            "beats_train_accuracy",
            "Identity R² above plain train accuracy's",
            "section 3",
            interval_above(0, "over redrawn runs"),
            bootstrap_interval(advantage, len(observed), 400),
        ),
    ]


def _notes(runs: Sequence[RecordedRun], curves: Sequence[LearningCurves]) -> list[str]:
    n_checkpoints = sum(len(c.test_accuracies) for c in curves)
    notes = [f"{len(runs)} runs, {n_checkpoints} checkpoints. Intervals are percentiles over redrawn runs."]
    sizes = sorted({r.n_train_samples for r in runs})
    if len(sizes) > 1:
        notes.append(
            f"Runs have {', '.join(map(str, sizes))} samples per training example. A running maximum is biased"
            " upwards, the"
            f" more the fewer samples: all are compared at {sizes[0]}, drawn from the others' without replacement"
            " (seed 0)."
        )
    dropped = [f"{r.n_dropped} in {r.name}" for r in runs if r.n_dropped]
    if dropped:
        notes.append(f"Examples that were not measured at every checkpoint are left out: {', '.join(dropped)}.")
    never = [r.name for r in runs if not bool(r.train_correct.any())]
    if never:
        notes.append(f"No sample was ever correct in {', '.join(never)}: the metric is 0 there.")
    return notes


def _tables(sweep: ThresholdSweep, thresholds: dict[str, float], label: str) -> dict[str, list[dict[str, Any]]]:
    def row(name: object, quality: PredictionQuality) -> dict[str, Any]:
        return {"log_log_threshold": name, **quality._asdict()}

    sensitivity = [row(t, q) for t, q in zip(sweep.thresholds, sweep.qualities(), strict=True)]
    sensitivity.append(row("train accuracy", quality_of_train_accuracy(sweep.runs)))
    names = [c.name for c in sweep.runs]
    calibration, points = [], []
    for c in sweep.runs:
        others = [n for n in names if n != c.name]
        own = sweep.best([c.name])
        if others:
            quality = sweep.quality(own, others)
            calibration.append(
                {"calibrated_on": c.name, "log_log_threshold": own, "trivial": is_trivial(c, own)}
                | {f"others_{k}": v for k, v in quality._asdict().items()}
                | {"left_out_log_log_threshold": thresholds[c.name]}
            )
        memorized = is_memorized(c.train_perplexities, thresholds[c.name]).double().mean(1)
        columns = {
            "train_accuracy": c.train_accuracies.mean(1),
            "pre_memorization_accuracy": sweep.at(c.name, thresholds[c.name]),
            "test_accuracy": c.test_accuracies,
            "share_memorized": memorized,
            "median_perplexity": c.train_perplexities.median(1).values,
        }
        points += [
            {"run": c.name, "checkpoint": m + 1} | {k: float(v[m]) for k, v in columns.items()}
            for m in range(len(c.test_accuracies))
        ]
    tables = {"sensitivity": sensitivity, "checkpoints": points, "calibration": calibration}
    return {f"{label}_{name}": rows for name, rows in tables.items() if rows}


_RATE = re.compile(r"lr([\d.]+(?:e-?\d+)?)")
_EPOCHS = re.compile(r"(\d+)epochs(?:_(full|half|quarter))?")


def _properties(name: str) -> tuple[str, str]:
    """Return what colours and what marks a run's points: learning rate and epochs, where its name has them."""
    rate, epochs = _RATE.search(name), _EPOCHS.search(name)
    colour = f"learning rate {rate[1]}" if rate else name
    if epochs is None:
        return colour, "run"
    share = f", {epochs[2]} data" if epochs[2] not in (None, "full") else ""
    return colour, f"{epochs[1]} epoch{'s' if epochs[1] != '1' else ''}{share}"


def _order(name: str) -> tuple[float, int, str]:
    """Return what runs are sorted by in legends."""
    rate, epochs = _RATE.search(name), _EPOCHS.search(name)
    return float(rate[1]) if rate else 0.0, int(epochs[1]) if epochs else 0, name


def _figures(
    runs: Sequence[RecordedRun],
    sweep: ThresholdSweep,
    pre: Sequence[Any],
    plain: Sequence[Any],
    chosen: float,
    out: Path,
    label: str,
) -> list[Path]:
    panels: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
    for title, predicted in (("train accuracy", plain), ("pre-memorization train accuracy", pre)):
        series = panels.setdefault(title, {})
        ordered = sorted(zip(sweep.runs, predicted, strict=True), key=lambda pair: _order(pair[0].name))
        for c, values in ordered:
            points = series.setdefault(_properties(c.name), [])
            points += list(zip(values.tolist(), c.test_accuracies.tolist(), strict=True))
    figures = out / "figures"
    written = prediction_panels(
        panels, ("accuracy on training examples", "test accuracy"), figures / f"{label}_prediction"
    )
    quality, grid = sweep.qualities(), sweep.thresholds
    curve = {
        "R² of y = x": [(t, q.r2_identity) for t, q in zip(grid, quality, strict=True)],
        "squared correlation": [(t, q.r2_fit) for t, q in zip(grid, quality, strict=True)],
    }
    written += lines(
        curve,
        ("threshold, log(log(perplexity))", "R²"),
        figures / f"{label}_sensitivity",
        "How well pre-memorization accuracy tells test accuracy",
        (-1.0, 1.05),
        {"chosen by all runs": chosen},
    )
    longest = max(range(len(runs)), key=lambda i: (len(runs[i].steps), float(plain[i][-1])))
    run = sweep.runs[longest]
    written += example_heat_map(
        run.train_accuracies,
        log_log(run.train_perplexities),
        figures / f"{label}_examples",
        f"{run.name}\nbright: sampled answers are correct; dark: wrong",
    )
    return written
