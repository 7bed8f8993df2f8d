"""Recorded runs as tables: predictions at each checkpoint, and how they depend on the threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from surefoot.reasoning.learning_dynamics import TrackedRun, learning_curves
from surefoot.reasoning.metrics.memorization import (
    LearningCurves,
    LeaveOneRunOut,
    ThresholdSweep,
    is_memorized,
    is_trivial,
    log_log,
    perplexity_at,
    quality_of_train_accuracy,
    threshold_grid,
)
from surefoot.reproduce.results import Rows

__all__ = ("Record", "notes_on", "tabulate")

#: Of more examples a figure shows so many, evenly spaced.
N_EXAMPLES_DRAWN = 256


@dataclass(frozen=True)
class Record:
    """Recorded runs with the threshold that each is predicted with.

    Attributes:
        label: Begins ids, names of tables and of figures.
        own: Whether the runs are this study's own tiny models, of which the paper claims no number.
        runs: The runs, with test samples.
        curves: Their accuracies, at equal numbers of samples.
        sweep: Predictions at every threshold.
        given: The threshold, log(log(perplexity)), if one was given.
        left_out: Predictions with the threshold that the other runs choose; none of a single run.
    """

    label: str
    own: bool
    runs: Sequence[TrackedRun]
    curves: Sequence[LearningCurves]
    sweep: ThresholdSweep
    given: float | None
    left_out: LeaveOneRunOut | None

    @classmethod
    def of(cls, runs: Sequence[TrackedRun], label: str, given: float | None = None, own: bool = False) -> "Record":
        """Compute the predictions at every threshold.

        Args:
            runs: Runs with test samples.
            label: Begins ids, names of tables and of figures.
            given: The threshold; without one each run is predicted with the threshold that the others choose.
            own: Whether the runs are this study's own.
        """
        curves = learning_curves(runs)
        sweep = ThresholdSweep(curves, sorted({*threshold_grid(), *([] if given is None else [given])}))
        return cls(label, own, runs, curves, sweep, given, sweep.leave_one_run_out() if len(curves) > 1 else None)

    @property
    def chosen(self) -> float:
        """The threshold that was given, or the one that all runs together choose."""
        return self.sweep.best() if self.given is None else self.given

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Run -> the threshold that it is predicted with."""
        if self.given is None and self.left_out is not None:
            return self.left_out.thresholds
        return {c.name: self.chosen for c in self.curves}


def tabulate(record: Record) -> dict[str, Rows]:
    """Return a record's checkpoints, thresholds, calibration and drawn examples; ``records`` describes it in a row."""
    found = {
        "checkpoints": _checkpoints(record),
        "sensitivity": _sensitivity(record),
        "calibration": _calibration(record),
        "examples": _examples(record),
    }
    described = {"record": record.label, "own": record.own, "log_log_threshold": record.chosen}
    return {f"{record.label}_{name}": rows for name, rows in found.items() if rows} | {"records": [described]}


def _checkpoints(record: Record) -> Rows:
    rows = []
    for c in record.curves:
        threshold = record.thresholds[c.name]
        columns = {
            "train_accuracy": c.train_accuracies.mean(1),
            "pre_memorization_accuracy": record.sweep.at(c.name, threshold),
            "test_accuracy": c.test_accuracies,
            "share_memorized": is_memorized(c.train_perplexities, threshold).double().mean(1),
            "median_perplexity": c.train_perplexities.median(1).values,
        }
        if record.given is not None and record.left_out is not None:
            columns["left_out_accuracy"] = record.sweep.at(c.name, record.left_out.thresholds[c.name])
        rows += [
            {"run": c.name, "checkpoint": m + 1} | {k: float(v[m]) for k, v in columns.items()}
            for m in range(len(c.test_accuracies))
        ]
    return rows


def _sensitivity(record: Record) -> Rows:
    sweep = record.sweep
    rows: Rows = [
        {"log_log_threshold": threshold, **quality._asdict()}
        for threshold, quality in zip(sweep.thresholds, sweep.qualities(), strict=True)
    ]
    return [*rows, {"log_log_threshold": "train accuracy", **quality_of_train_accuracy(sweep.runs)._asdict()}]


def _calibration(record: Record) -> Rows:
    """Return what the threshold of each single run gives on the others; nothing where there are none."""
    rows: Rows = []
    for c in record.curves:
        others = [other.name for other in record.curves if other.name != c.name]
        own = record.sweep.best([c.name])
        if others:
            quality = record.sweep.quality(own, others)
            rows.append(
                {"calibrated_on": c.name, "log_log_threshold": own, "trivial": is_trivial(c, own)}
                | {f"others_{k}": v for k, v in quality._asdict().items()}
                | {"left_out_log_log_threshold": record.thresholds[c.name]}
            )
    return rows


def _examples(record: Record) -> Rows:
    """Return accuracy and perplexity of the longest run's examples, one a row: a sample of them where they are many."""
    longest = max(record.curves, key=lambda c: (len(c.test_accuracies), float(c.train_accuracies[-1].mean())))
    n = longest.train_accuracies.shape[1]
    perplexities = log_log(longest.train_perplexities)
    return [
        {"run": longest.name, "example": i}
        | {f"accuracy_{m + 1}": float(a) for m, a in enumerate(longest.train_accuracies[:, i])}
        | {f"log_log_perplexity_{m + 1}": float(p) for m, p in enumerate(perplexities[:, i])}
        for i in range(0, n, -(-n // N_EXAMPLES_DRAWN))
    ]


def notes_on(record: Record) -> list[str]:
    """Return how a record was read, and what in it is no evidence."""
    runs, label = record.runs, record.label
    n_checkpoints = sum(len(c.test_accuracies) for c in record.curves)
    notes = [f"{len(runs)} runs, {n_checkpoints} checkpoints. Intervals are percentiles over redrawn runs."]
    sizes = sorted({r.n_train_samples for r in runs})
    if len(sizes) > 1:
        notes.append(
            f"Runs have {', '.join(map(str, sizes))} samples per training example. A running maximum is biased"
            f" upwards, the more the fewer samples: all are compared at {sizes[0]}, drawn from the others' without"
            " replacement (seed 0)."
        )
    dropped = [f"{r.n_dropped} in {r.name}" for r in runs if r.n_dropped]
    if dropped:
        notes.append(f"Examples that were not measured at every checkpoint are left out: {', '.join(dropped)}.")
    never = [r.name for r in runs if not bool(r.train_correct.any())]
    if never:
        notes.append(f"No sample was ever correct in {', '.join(never)}: the metric is 0 there.")
    trivial = [c.name for c in record.curves if is_trivial(c, record.thresholds[c.name])]
    notes.append(_threshold_note(record))
    if trivial:
        notes.append(
            f"{label}: nothing was ever memorized in {', '.join(trivial)}: there the metric is a running maximum of"
            " train accuracy and no evidence for or against the method."
        )
    return notes


def _threshold_note(record: Record) -> str:
    label, chosen = record.label, record.chosen
    if record.given is not None:
        return f"{label}: log(log(perplexity)) {chosen:g} was given (perplexity {perplexity_at(chosen):.4f})."
    if record.left_out is None:
        return (
            f"{label}: there is one run only; the threshold {chosen:g} was calibrated on the test accuracy that it is"
            " compared with, so R² is optimistic."
        )
    values = sorted(record.thresholds.values())
    return (
        f"{label}: no threshold was given; each run is predicted with the log(log(perplexity)) that the other runs"
        f" choose: {values[0]:g} to {values[-1]:g}; all runs together choose {chosen:g} (perplexity"
        f" {perplexity_at(chosen):.4f})."
    )
