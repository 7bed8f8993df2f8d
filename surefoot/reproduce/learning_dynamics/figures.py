"""The study's figures, drawn from its tables."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from surefoot.report.dynamics_figures import example_heat_map, lines, prediction_panels, violins
from surefoot.report.figures import interval_curves
from surefoot.reproduce.learning_dynamics import tables
from surefoot.reproduce.results import Results

__all__ = ("curation", "examples", "gaps", "memorized", "prediction", "prefixes", "sensitivity")

#: Predictors whose range spans decades.
LOGARITHMIC = ("gradient variance", "distance from start")

_RATE = re.compile(r"lr([\d.]+(?:e-?\d+)?)")
_EPOCHS = re.compile(r"(\d+)epochs(?:_(full|half|quarter))?")

Points = dict[tuple[str, str], list[tuple[float, float]]]


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


def prediction(results: Results, folder: Path) -> None:
    """Draw test accuracy against train and pre-memorization accuracy, a point per checkpoint."""
    titles = {
        "train accuracy": "train_accuracy",
        "pre-memorization train accuracy": "pre_memorization_accuracy",
    }
    for record in results["records"].distinct("record"):
        panels: dict[str, Points] = {title: {} for title in titles}
        for name, rows in sorted(tables.runs_of(results, record).items(), key=lambda pair: _order(pair[0])):
            for title, column in titles.items():
                points = [(row[column], row["test_accuracy"]) for row in rows]
                panels[title].setdefault(_properties(name), []).extend(points)
        prediction_panels(panels, ("accuracy on training examples", "test accuracy"), folder / f"{record}_prediction")


def sensitivity(results: Results, folder: Path) -> None:
    """Draw R² against the threshold."""
    for row in results["records"]:
        record = row["record"]
        points = [r for r in results[f"{record}_sensitivity"] if r["log_log_threshold"] != "train accuracy"]
        lines(
            {
                label: [(r["log_log_threshold"], r[column]) for r in points]
                for label, column in (("R² of y = x", "r2_identity"), ("squared correlation", "r2_fit"))
            },
            ("threshold, log(log(perplexity))", "R²"),
            folder / f"{record}_sensitivity",
            "How well pre-memorization accuracy predicts test accuracy",
            (-1.0, 1.05),
            {"chosen by all runs": row["log_log_threshold"]},
        )


def examples(results: Results, folder: Path) -> None:
    """Draw accuracy and perplexity of the longest run's examples over its checkpoints."""
    for record in results["records"].distinct("record"):
        rows = results[f"{record}_examples"]

        def over_checkpoints(quantity: str, rows: Sequence[Mapping[str, float]] = rows) -> torch.Tensor:
            names = [name for name in rows[0] if name.startswith(quantity)]
            return torch.tensor([[row[name] for row in rows] for name in names], dtype=torch.float64)

        example_heat_map(
            over_checkpoints("accuracy_"),
            over_checkpoints("log_log_perplexity_"),
            folder / f"{record}_examples",
            f"{rows[0]['run']}\nbright: sampled answers are correct; dark: wrong",
        )


def memorized(results: Results, folder: Path) -> None:
    """Draw, for the first seed's longest own runs on all data, the share of memorized examples."""
    for record in results["records"].where(own=True).distinct("record"):
        runs = tables.runs_of(results, record)
        first = [name for name in sorted(runs, key=_order) if "_full_" in name and name.endswith("_seed0")]
        longest = max(_order(name)[1] for name in first)
        lines(
            {
                _properties(name)[0]: [
                    (longest * row["checkpoint"] / len(runs[name]), row["share_memorized"]) for row in runs[name]
                ]
                for name in first
                if _order(name)[1] == longest
            },
            ("epoch", "share of training examples memorized"),
            folder / f"{record}_memorized",
            "Seed 0",
            (-0.02, 1.02),
        )


def gaps(results: Results, folder: Path) -> None:
    """Draw the gap between train and test accuracy against each of its predictors."""
    panels: dict[str, Points] = {}
    for name in tables.PREDICTORS:
        series = panels.setdefault(f"log10 {name}" if name in LOGARITHMIC else name, {})
        for row in results[tables.GAPS_TABLE]:
            x = math.log10(max(row[name], 1e-30)) if name in LOGARITHMIC else row[name]
            key = (f"learning rate {row['learning_rate']:g}", f"seed {row['seed']}")
            series.setdefault(key, []).append((x, row["gap"]))
    labels = ("predictor", "gap: train minus test accuracy")
    prediction_panels(panels, labels, folder / "arithmetic_gap", diagonal=False)


def prefixes(results: Results, folder: Path) -> None:
    """Draw sampled accuracies after each start of the answer, by pre-memorization accuracy."""
    rows = results[tables.PREFIXES_TABLE]
    panels: dict[str, dict[float, list[float]]] = {}
    for column in (name for name in rows[0] if name.startswith("accuracy/")):
        prefix = column.removeprefix("accuracy/")
        bins = panels.setdefault(f"answer started with {prefix!r}" if prefix else "answer not started", {})
        for row in rows:
            bins.setdefault(round(row["pre_memorization_accuracy"], 1), []).append(row[column])
    labels = ("pre-memorization accuracy of the example", "sampled accuracy at the end")
    violins(panels, labels, folder / "arithmetic_prefixes")


def curation(results: Results, folder: Path) -> None:
    """Draw test accuracy against the number of examples, by how parents of new problems were chosen."""
    interval_curves(
        {
            label: results[tables.CURATION_TABLE].curve("n_examples", "test_accuracy", method=method)
            for method, label in tables.METHOD_NAMES.items()
        },
        ("training examples", "test accuracy"),
        folder / "arithmetic_curation",
        "New problems by what they are near to",
    )
