"""What the runs of the study of reversion have written: read, scored and drawn."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.report.figures import dot_plot
from surefoot.report.shift_figures import draw_layers, draw_sets, family_and_level
from surefoot.reproduce.constant_solution.studies import Study, Training, job
from surefoot.reproduce.jobs import Job, Result, run_jobs
from surefoot.statistics import Estimate, mean_interval

__all__ = ("Rows", "Runs", "draw", "jobs", "ood_scores", "read_rows", "train")

Rows = list[dict[str, Any]]


def read_rows(path: Path) -> Rows:
    """Return a table's rows; numbers as numbers, empty cells as none."""

    def value(text: str) -> Any:
        if text == "":
            return None
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(file)]


class Runs:
    """All seeds of one study under one training, tested with shifts; the first set is the unshifted one."""

    def __init__(self, study: Study, name: str, results: Sequence[Result]) -> None:
        """Read what the tests have written."""
        self.study, self.name, self.results = study, name, results
        self.folders = [Path(r.test_folder or "") for r in results]
        self.sets = [self._read(f, "constant_solution/sets.csv") for f in self.folders]
        self.layers = [self._read(f, "constant_solution/layers.csv") for f in self.folders]
        self.constants = [self._read(f, "constant_solution/constants.csv") for f in self.folders]

    def _read(self, folder: Path, table: str) -> Rows:
        path = folder / table
        return read_rows(path) if path.is_file() else []

    def table(self, name: str) -> list[Rows]:
        """Return a further table of every seed."""
        return [self._read(f, name) for f in self.folders]

    def score(self, ood_scores: Mapping[str, float]) -> None:
        """Tell how far out each set is."""
        for rows in self.sets:
            for row in rows:
                row["ood_score"] = ood_scores.get(row["set"])

    @property
    def graded(self) -> list[str]:
        """Kinds of shifts that come in levels."""
        kinds = [family_and_level(r["set"]) for r in self.sets[0][1:]]
        return list(dict.fromkeys(kind for kind, level in kinds if level > 1))

    def over_levels(self, seed: int, kind: str, quantity: str) -> list[float]:
        """Return a quantity of the unshifted set and of a kind's levels, mildest first."""
        rows = [r for r in self.sets[seed][1:] if family_and_level(r["set"])[0] == kind]
        return [float(r[quantity]) for r in (self.sets[seed][0], *rows)]

    def strongest(self, seed: int, quantity: str) -> float:
        """Return the mean over the kinds, of each the strongest level; over all shifted sets where none has levels."""
        if not self.graded:
            return fmean(float(r[quantity]) for r in self.sets[seed][1:])
        return fmean(self.over_levels(seed, kind, quantity)[-1] for kind in self.graded)

    def layer(self, seed: int, layer: int, set_name: str, quantity: str) -> float:
        """Return a quantity of a layer (counted from the first, or the last backwards) on a set."""
        rows = [r for r in self.layers[seed] if r["set"] == set_name]
        return float(rows[layer][quantity])

    @property
    def key(self) -> str:
        """Study and loss, as in the claims' ids and in file names."""
        return f"{self.study.name}_{self.name.replace(' ', '_').replace('-', '_')}"

    def inner_constants(self, seed: int) -> Rows:
        """Return what accumulated biases predict with the signal cut off behind the first layer."""
        cuts = list(dict.fromkeys(r["signal_cut_before"] for r in self.constants[seed]))
        inner = cuts[min(1, len(cuts) - 1)]
        return [r for r in self.constants[seed] if r["signal_cut_before"] == inner]

    def head_constants(self, seed: int) -> Rows:
        """Return what the last layer's bias alone predicts."""
        last = self.constants[seed][-1]["signal_cut_before"]
        return [r for r in self.constants[seed] if r["signal_cut_before"] == last]

    def tidy(self) -> Rows:
        """Return all sets of all seeds."""
        kept = (
            "set", "n_examples", "ood_score", "distance", "normalised_distance", "confidence",
            "accuracy", "loss", "bias_share",
        )  # fmt: skip
        return [
            {"study": self.study.name, "training": self.name, "seed": seed} | {k: row.get(k) for k in kept}
            for seed, rows in enumerate(self.sets)
            for row in rows
        ]


def jobs(study: Study, trainings: Mapping[str, Training], n_seeds: int, quick: bool) -> dict[tuple[str, int], Job]:
    """Return the runs of every seed of some trainings, by training and seed."""
    return {
        (name, seed): job(study, name, training, seed, quick)
        for name, training in trainings.items()
        for seed in range(n_seeds)
    }


def train(study: Study, trainings: Mapping[str, Training], n_seeds: int, quick: bool, out: Path) -> dict[str, Runs]:
    """Train and test every seed of some trainings, or read what is there."""
    wanted = jobs(study, trainings, n_seeds, quick)
    found = run_jobs(list(wanted.values()), out)
    return {name: Runs(study, name, [found[wanted[name, seed].name] for seed in range(n_seeds)]) for name in trainings}


def ood_scores(runs: Runs, n_repeats: int) -> dict[str, float]:
    """Return how far out every set is, told from its pixels: the sets are the same for every seed and loss."""
    import numpy as np
    import torch
    import yaml

    from surefoot.cli.loading import build_datamodule
    from surefoot.metrics.ood_score import ood_score

    settings = yaml.safe_load((runs.folders[0] / "config.yaml").read_text())["data"]
    data: Any = build_datamodule(settings)
    data.setup("test")
    pixels = {}
    for name, loader in zip(data.evaluated("test"), data.test_dataloader(), strict=True):
        inputs = [data.on_after_batch_transfer(batch, 0)["input"] for batch in loader]
        pixels[name] = np.asarray(torch.cat(inputs).mean(1).flatten(1))  # one grey channel
    first = next(iter(pixels))
    return {first: 0.5} | {
        name: ood_score(pixels[first], found, n_repeats) for name, found in pixels.items() if name != first
    }


def draw(runs: Runs, out: Path) -> None:
    """Draw all mechanisms of one study under one loss, over all seeds."""
    folder, title = out / "figures" / runs.key, f"{runs.name} on {runs.study.name}"
    draw_sets([row for rows in runs.sets for row in rows], folder, title)
    draw_layers([row for rows in runs.layers for row in rows], folder, title)
    seeds = range(len(runs.sets))
    inner = [runs.inner_constants(seed) for seed in seeds]
    head = [runs.head_constants(seed) for seed in seeds]

    def over_seeds(tables: Sequence[Rows], quantity: str) -> dict[str, Estimate]:
        return {
            str(int(row["number"])): mean_interval([float(t[i][quantity]) for t in tables])
            for i, row in enumerate(tables[0])
        }

    dot_plot(
        {
            "optimal constant": over_seeds(head[:1], "optimal_constant"),
            "accumulated biases": over_seeds(inner, "prediction"),
            "last bias alone": over_seeds(head, "prediction"),
        },
        "prediction without a signal",
        folder / "constants",
        title,
    )
