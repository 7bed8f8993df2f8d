"""Data curation on runs of our own: are new problems near those that were not learned worth more than any new ones?"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.reasoning.curation import (
    ARMS,
    CURATED,
    Arm,
    choose_parents,
    draw_variants,
    instruction_following_difficulties,
    read_curated,
    write_curated,
)
from surefoot.reasoning.learning_dynamics import read_record
from surefoot.reasoning.problems import Problem
from surefoot.report.figures import interval_curves
from surefoot.reproduce.claims import Findings, Measurement, Scale, interval_above, reported
from surefoot.reproduce.jobs import run_jobs
from surefoot.reproduce.learning_dynamics.sweep import (
    MIDDLE_RATE,
    Size,
    curation_data,
    curation_round,
    pretrained_folder,
    pretraining,
    sizes,
)
from surefoot.statistics import mean_interval, paired_difference

__all__ = ("measure_curation",)

NAMES = {
    "pre_memorization": "low pre-memorization accuracy",
    "iid": "IID",
    "ifd": "IFD",
    "heuristic": "longest solutions",
}


def measure_curation(scale: Scale, n_seeds: int, out: Path, log_log_threshold: float) -> Findings:
    """Grow a training set in rounds by four rules, and compare test accuracies at equal numbers of examples.

    Args:
        scale: quick or laptop.
        n_seeds: Number of seeds.
        out: Folder of runs and figures.
        log_log_threshold: Below it an example is memorized; chosen on the sweep's runs, which are others.
    """
    size, seeds = sizes(scale), range(n_seeds)
    run_jobs([pretraining(s, size) for s in seeds], out)
    # seed -> arm -> test accuracy after each round
    accuracy: dict[int, dict[str, list[float]]] = {s: {a: [] for a in ARMS} for s in seeds}
    shares: list[float] = []
    first = {s: curation_round(s, size, out, "originals", []) for s in seeds}
    results = run_jobs(list(first.values()), out)
    for s, job in first.items():
        for arm in ARMS:
            accuracy[s][arm].append(results[job.name].last["memorization/test_accuracy"])
    runs: dict[tuple[int, Arm], str] = {(s, arm): first[s].name for s in seeds for arm in ARMS}
    added: dict[tuple[int, Arm], list[Path]] = {(s, arm): [] for s in seeds for arm in ARMS}
    for number in range(1, size.curation_rounds + 1):
        for (s, arm), folders in added.items():
            folder = out / "curated" / f"{arm}_seed{s}_round{number}"
            share = _curate(arm, s, size, out, runs[s, arm], folders, folder, log_log_threshold)
            if arm == "pre_memorization":
                shares.append(share)
            folders.append(folder)
        jobs = {
            key: curation_round(key[0], size, out, f"{key[1]}_round{number}", folders) for key, folders in added.items()
        }
        results = run_jobs(list(jobs.values()), out)
        for (s, arm), job in jobs.items():
            accuracy[s][arm].append(results[job.name].last["memorization/test_accuracy"])
            runs[s, arm] = job.name
    counts = [size.n_curation * (1 + r) for r in range(size.curation_rounds + 1)]
    return Findings(
        _claims(accuracy, counts),
        {"arithmetic_curation": _rows(accuracy, counts)},
        [
            (
                f"Curation: {size.curation_rounds} rounds, each adding as many new problems as there are originals"
                f" ({size.n_curation}); a variant differs from its parent in one number or operator; chains of 2 to 4"
                " operations;"
                f" every round trains from the pretrained model at {MIDDLE_RATE:g} for equally many epochs. Parents of"
                " low"
                f" pre-memorization accuracy (at most 0.75 at log log perplexity {log_log_threshold:g}) were"
                f" {fmean(shares):.0%} of the originals on average."
            )
        ],
        interval_curves(
            {
                NAMES[arm]: [(n, mean_interval([accuracy[s][arm][r] for s in seeds])) for r, n in enumerate(counts)]
                for arm in ARMS
            },
            ("training examples", "test accuracy"),
            out / "figures" / "arithmetic_curation",
            "New problems by what they are near to",
        ),
    )


def _curate(
    arm: Arm,
    seed: int,
    size: Size,
    out: Path,
    run: str,
    earlier: Sequence[Path],
    folder: Path,
    log_log_threshold: float,
) -> float:
    """Write a round's new problems unless they are there; return the share of originals that are parents."""
    data = curation_data(seed, size)
    originals: list[Problem] = list(data.problems("train"))
    record, difficulties = None, None
    if arm == "pre_memorization":
        record = read_record(out / "runs" / run / "latest" / "memorization", run)
    if arm == "ifd":
        from surefoot.reasoning.language_models import PretrainedLanguageModel
        from surefoot.reasoning.prompts import PlainPrompt

        model = PretrainedLanguageModel(str(pretrained_folder(out, seed)))
        difficulties = instruction_following_difficulties(originals, model, PlainPrompt(), 8192)
    parents = choose_parents(arm, originals, record, log_log_threshold, difficulties=difficulties)
    if not (folder / CURATED).is_file():
        known = [p.question for p in originals]
        known += [p.question for f in earlier for p in read_curated(f)]
        variants = draw_variants(parents, size.n_curation, data.variant, known, seed)
        write_curated(folder, variants)
    return len(parents) / len(originals)


def _claims(accuracy: Mapping[int, Mapping[str, Sequence[float]]], counts: Sequence[int]) -> list[Measurement]:
    ours = [fmean(a["pre_memorization"][1:]) for a in accuracy.values()]
    claims = []
    for arm in ("iid", "ifd", "heuristic"):
        theirs = [fmean(a[arm][1:]) for a in accuracy.values()]
        claims.append(
            Measurement(
                f"curation_above_{arm}",
                f"Test accuracy with new problems near those of {NAMES['pre_memorization']} above {NAMES[arm]}, at"
                " equal"
                " numbers of examples",
                "section 6: 0.5 to 2 points above IID",
                interval_above(0, "a difference has to stand out from the seeds"),
                paired_difference(ours, theirs),
                "accuracy",
            )
        )
    efficiencies = [_efficiency(a, counts) for a in accuracy.values()]
    claims.append(
        Measurement(
            "curation_data_efficiency",
            "Examples that IID needs for the accuracy that low pre-memorization accuracy reaches with all, over that"
            " number",
            "section 6: 1.5 to 2",
            interval_above(1, "more than IID's own number, by the seeds' interval"),
            mean_interval(efficiencies),
            "ratio",
        )
    )
    claims.append(
        Measurement(
            "curation_more_data_helps",
            "Test accuracy gained by IID's additions over the originals",
            "section 6",
            reported("where more data does not help, no rule for choosing it can"),
            paired_difference(
                [a["iid"][-1] for a in accuracy.values()],
                [a["iid"][0] for a in accuracy.values()],
            ),
            "accuracy",
        )
    )
    return claims


def _efficiency(accuracy: Mapping[str, Sequence[float]], counts: Sequence[int]) -> float:
    """Return the number of IID examples, along its fitted line, that reach our last accuracy, over our number.

    IID's accuracies are fitted against the logarithm of the number of examples; where they do not rise, the ratio is 1.
    """
    x = [math.log(n) for n in counts]
    y = list(accuracy["iid"])
    x_mean, y_mean = fmean(x), fmean(y)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)
    if slope <= 0:
        return 1.0
    reached = x_mean + (accuracy["pre_memorization"][-1] - y_mean) / slope
    return math.exp(min(reached - x[-1], math.log(10)))


def _rows(accuracy: Mapping[int, Mapping[str, Sequence[float]]], counts: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"seed": s, "arm": arm, "n_examples": n, "test_accuracy": values[r]}
        for s, arms in accuracy.items()
        for arm, values in arms.items()
        for r, n in enumerate(counts)
    ]
