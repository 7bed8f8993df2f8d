"""What is claimed about reversion, its mechanisms, its variants and its failures."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from surefoot.report.figures import dot_plot
from surefoot.report.shift_figures import family_and_level
from surefoot.reproduce.claims import Measurement, at_least, at_most, interval_above, reported
from surefoot.reproduce.constant_solution.attacks import adversarial_rows
from surefoot.reproduce.constant_solution.runs import Rows, Runs
from surefoot.reproduce.constant_solution.studies import REWARD
from surefoot.statistics import correlation, mean_interval, paired_difference, rank_correlation

__all__ = (
    "constant_claims",
    "control_claims",
    "detection",
    "mechanism_claims",
    "reversion_claims",
    "variant_claims",
)

#: Corruptions that do not take the input's own norm away; blur and loss of contrast do.
_UNDIMINISHED = ("rotation", "noise", "occlusion", "impulse")
#: Levels that count as clearly out of distribution.
_FAR = (3, 4, 5)


def reversion_claims(runs: Runs, source: str) -> list[Measurement]:
    """Judge whether the distance to the constant falls: within each kind, over all sets, and by how much."""
    key = runs.key
    where = f", {runs.name} on {runs.study.name}"
    seeds = range(len(runs.sets))
    claims = []
    if runs.graded:
        falls = [
            fmean(
                rank_correlation(range(len(d)), d)
                for kind in runs.graded
                for d in (runs.over_levels(seed, kind, "distance"),)
            )
            for seed in seeds
        ]
        claims.append(
            Measurement(
                f"{key}_falls_with_level",
                f"The distance to the optimal constant falls with the level of each shift{where}"
                " (Kendall's tau, mean over kinds)",
                source,
                at_most(-0.6, "at least four fifths of the pairs in order"),
                mean_interval(falls),
                "tau",
            )
        )
    if all(row["ood_score"] is not None for row in runs.sets[0]):
        pooled = [
            rank_correlation([float(r["ood_score"]) for r in rows], [float(r["distance"]) for r in rows])
            for rows in runs.sets
        ]
        claims.append(
            Measurement(
                f"{key}_falls_with_ood_score",
                f"Over all sets the distance falls as the OOD score grows{where} (Kendall's tau)",
                source,
                at_most(-0.4, "at least seven pairs of ten in order, over kinds of shifts too"),
                mean_interval(pooled),
                "tau",
            )
        )
    claims.append(
        Measurement(
            f"{key}_strongest",
            f"Distance at the strongest level relative to the unshifted set{where} (mean over kinds)",
            source,
            at_most(0.8, "a fifth less, about what the paper's figures show at the least"),
            mean_interval([runs.strongest(seed, "normalised_distance") for seed in seeds]),
            "ratio",
        )
    )
    return claims


def mechanism_claims(runs: Runs) -> list[Measurement]:
    """Judge norms, subspaces and the share of accumulated biases in networks trained with cross-entropy."""
    seeds = range(len(runs.sets))
    test = runs.sets[0][0]["set"]
    kinds = [k for k in runs.graded if k in _UNDIMINISHED]
    far = [max((r["set"] for r in runs.sets[0] if family_and_level(r["set"])[0] == kind), key=str) for kind in kinds]

    def mean_over_kinds(layer: int, quantity: str) -> list[float]:
        return [fmean(runs.layer(seed, layer, name, quantity) for name in far) for seed in seeds]

    def unshifted(quantity: str) -> list[float]:
        return [float(runs.sets[seed][0][quantity]) for seed in seeds]

    def strongest(quantity: str) -> list[float]:
        return [runs.strongest(seed, quantity) for seed in seeds]

    norms, first = mean_over_kinds(-1, "relative_norm"), mean_over_kinds(0, "relative_norm")
    reads = [runs.layer(seed, -1, test, "row_space_share") for seed in seeds]
    within = [runs.layer(seed, -1, test, "in_distribution_share") for seed in seeds]
    differs = "a difference has to stand out from the seeds"
    name = runs.study.name
    return [
        Measurement(
            f"{name}_output_norm_falls",
            "The last layer's output without bias loses norm at the strongest levels, though the input does not, on"
            f" {name}"
            " (1 minus relative norm)",
            "section 5; appendix (normalised norms)",
            interval_above(0, differs),
            mean_interval([1 - n for n in norms]),
            "fraction",
        ),
        Measurement(
            f"{name}_late_layers_lose_more",
            f"The last layer loses more norm than the first on {name} (difference of the relative norms)",
            "section 5: early layers keep or grow, late ones shrink",
            interval_above(0, differs),
            paired_difference(first, norms),
            "ratio",
        ),
        Measurement(
            f"{name}_row_space_share_falls",
            f"Features lie less in what the last layer reads at the strongest levels, on {name} (fall of the share)",
            "section 5: .43 to .344 in the paper's ResNet-20",
            interval_above(0, differs),
            paired_difference(reads, mean_over_kinds(-1, "row_space_share")),
            "fraction",
        ),
        Measurement(
            f"{name}_in_distribution_share_falls",
            f"Features lie less in the principal subspace of unshifted ones, on {name} (fall of the share)",
            "section 5",
            interval_above(0, differs),
            paired_difference(within, mean_over_kinds(-1, "in_distribution_share")),
            "fraction",
        ),
        Measurement(
            f"{name}_bias_share_rises",
            f"Accumulated biases make up more of the output at the strongest levels, on {name} (rise of the share)",
            "section 5",
            interval_above(0, differs),
            paired_difference(strongest("bias_share"), unshifted("bias_share")),
            "fraction",
        ),
        Measurement(
            f"{name}_confidence_falls",
            f"The probability of the predicted class falls at the strongest levels, on {name}",
            "section 4",
            interval_above(0, differs),
            paired_difference(unshifted("confidence"), strongest("confidence")),
            "fraction",
        ),
    ]


def constant_claims(runs: Runs) -> list[Measurement]:
    """Judge whether what biases make without a signal is near the optimal constant."""
    key = runs.key
    ratios, orders = [], []
    for seed, sets in enumerate(runs.sets):
        inner, head = runs.inner_constants(seed), runs.head_constants(seed)
        ratios.append(float(inner[0]["distance"]) / float(sets[0]["distance"]))
        classes = head[: len(head) - (runs.name == REWARD)]
        orders.append(
            correlation(
                [float(r["prediction"]) for r in classes],
                [float(r["optimal_constant"]) for r in classes],
            )
        )
    claims = [
        Measurement(
            f"{key}_constant_near_optimum",
            "With the first layer's signal taken away, accumulated biases are nearer the optimal constant than"
            " predictions are,"
            f" {runs.name} on {runs.study.name} (ratio of the distances)",
            "section 5 (model constants)",
            at_most(0.5, "at most half as far"),
            mean_interval(ratios),
            "ratio",
        )
    ]
    if len(classes) >= 5 and not any(math.isnan(order) for order in orders):
        claims.append(
            Measurement(
                f"{key}_head_bias_tracks_optimum",
                f"The last layer's bias orders the classes as the optimal constant does, {runs.name} on"
                f" {runs.study.name} (correlation over classes)",
                "section 5 and proposition on the last layer's bias",
                at_least(0.8, "an unmistakable order"),
                mean_interval(orders),
                "correlation",
            )
        )
    return claims


def variant_claims(base: Runs, variants: Mapping[str, Runs], out: Path) -> list[Measurement]:
    """Report what batch norm, weight decay and training length do to reversion."""
    seeds = range(len(base.sets))

    def strongest(runs: Runs) -> list[float]:
        return [runs.strongest(seed, "normalised_distance") for seed in seeds]

    claims = []
    for name, runs in variants.items():
        claims.append(
            Measurement(
                f"variant_{name.replace(' ', '_')}_reverts",
                f"Predictions revert with {name} too (1 minus the relative distance at the strongest levels)",
                "reviews: normalisation, regularisation, training length",
                interval_above(0, "the distance falls at all"),
                mean_interval([1 - v for v in strongest(runs)]),
                "fraction",
            )
        )
        claims.append(
            Measurement(
                f"variant_{name.replace(' ', '_')}_effect",
                f"Relative distance at the strongest levels with {name}, minus that of the usual training",
                "reviews",
                reported("the paper makes no claim about it"),
                paired_difference(strongest(runs), strongest(base)),
                "ratio",
            )
        )
    everything = {"usual training": base, **variants}
    quantities = {
        "relative distance, strongest levels": {n: mean_interval(strongest(r)) for n, r in everything.items()},
        "unshifted accuracy": {
            n: mean_interval([float(r.sets[s][0]["accuracy"]) for s in seeds]) for n, r in everything.items()
        },
    }
    dot_plot(quantities, "ratio, fraction", out / "figures" / "variants", "Variants of training")
    return claims


def control_claims(low: Runs, classifiers: Mapping[str, Runs], nll: Runs) -> tuple[list[Measurement], Rows]:
    """Judge the cases in which predictions do not revert."""
    rows: Rows = []
    claims = []
    for name, runs in classifiers.items():
        distances, norms = [], []
        for seed, result in enumerate(runs.results):
            clean, moved = adversarial_rows(Path(result.folder), runs.folders[seed])
            rows += [{"training": name, "seed": seed} | r for r in (clean, moved)]
            distances.append(moved["distance"] / clean["distance"])
            layers = [k for k in clean if k.startswith("norm/")]
            norms.append(fmean(moved[k] / clean[k] for k in layers))
        key = name.replace(" ", "_").replace("-", "_")
        claims += [
            Measurement(
                f"adversarial_{key}_does_not_revert",
                f"Adversarial inputs do not bring predictions nearer the constant, {name} (relative distance)",
                "appendix: 2.291 to 2.298 on MNIST",
                at_least(0.95, "no fall beyond a twentieth"),
                mean_interval(distances),
                "ratio",
            ),
            Measurement(
                f"adversarial_{key}_norms_grow",
                f"Adversarial inputs have larger norms in the layers, {name} (relative norm, mean over layers)",
                "appendix: 1.24 to 1.46",
                at_least(1.0, "they grow"),
                mean_interval(norms),
                "ratio",
            ),
        ]
    low_ratio = [low.over_levels(s, "unclipped_noise", "normalised_distance")[-1] for s in range(len(low.sets))]
    impulse = [nll.over_levels(s, nll.graded[-1], "normalised_distance")[-1] for s in range(len(nll.sets))]
    claims += [
        Measurement(
            "low_dimension_unclipped_noise_does_not_revert",
            "In 64 dimensions unclipped noise drives predictions away from the constant, Gaussian NLL (relative"
            " distance)",
            "specification 9.2",
            at_least(1.0, "no fall"),
            mean_interval(low_ratio),
            "ratio",
        ),
        Measurement(
            "impulse_noise_gaussian_nll",
            f"Strongest {nll.graded[-1]} shift under Gaussian NLL (relative distance): the paper's failure on UTKFace",
            "appendix: .95 to 2.58 on UTKFace",
            reported("UTKFace cannot be had here; MNIST need not fail as faces do"),
            mean_interval(impulse),
            "ratio",
        ),
    ]
    return claims, rows


def detection(runs: Runs) -> tuple[list[Measurement], Rows]:
    """Report how well the usual scores tell clearly shifted sets from the unshifted one."""
    tables = runs.table("ood_detection.csv")
    rows: Rows = [{"study": runs.study.name, "seed": seed, **row} for seed, table in enumerate(tables) for row in table]
    claims = []
    for score in dict.fromkeys(r["score"] for r in rows):
        values = [
            fmean(float(r["auroc"]) for r in table if r["score"] == score and family_and_level(r["set"])[1] in _FAR)
            for table in tables
        ]
        claims.append(
            Measurement(
                f"{runs.study.name}_auroc_{score}",
                f"AUROC of {score.replace('_', ' ')}, levels 3 to 5, on {runs.study.name}",
                "ours: baselines that users expect",
                reported("the paper does not detect"),
                mean_interval(values),
                "AUROC",
            )
        )
    return claims, rows
