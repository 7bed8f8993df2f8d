"""The study's figures, drawn from its tables."""

from pathlib import Path

from surefoot.report.figures import dot_plot, interval_curves
from surefoot.report.shift_figures import draw_layers, draw_sets
from surefoot.reproduce.constant_solution import tables
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY
from surefoot.reproduce.constant_solution.tables import Decisions, Networks
from surefoot.reproduce.results import Results

__all__ = ("decisions", "mechanisms", "theory_norms", "variants")

#: Legend -> policy.
POLICIES = {
    "reward prediction": "reward_prediction",
    "always act": "always_act",
    "max softmax": "max_softmax",
    "calibrated max softmax": "calibrated_max_softmax",
    "oracle (sees the labels)": "oracle",
}


def mechanisms(results: Results, folder: Path) -> None:
    """Draw distances, layers and constants of every study whose signals were cut off, under each loss."""
    for key in tables.traced(results):
        networks, own = Networks(results, key["study"], key["training"]), folder / key["key"]
        title = f"{key['training']} on {key['study']}"
        draw_sets(networks.sets, own, title)
        draw_layers(networks.layers, own, title)
        inner, last = networks.constants("inner"), networks.constants("last")
        dot_plot(
            {
                "optimal constant": last.where(seed=0).estimates("optimal_constant", by="number"),
                "accumulated biases": inner.estimates("prediction", by="number"),
                "last bias alone": last.estimates("prediction", by="number"),
            },
            "prediction without a signal",
            own / "constants",
            title,
        )


def decisions(results: Results, folder: Path) -> None:
    """Draw what policies earn, and how often they abstain, at every level of the shifts."""
    for study in results["decisions"].distinct("study"):
        found = Decisions(results, study)
        for quantity in ("reward", "abstention"):
            curves = {
                label: [(float(level), v.estimate) for level, v in enumerate(found.levels(policy, quantity))]
                for label, policy in POLICIES.items()
            }
            interval_curves(
                curves,
                ("level of the shift (mean over kinds)", quantity),
                folder / f"{quantity}_{study}",
                f"Decisions on {study}: right +1, wrong -4, abstain 0",
            )


def variants(results: Results, folder: Path) -> None:
    """Draw what variants of training do to the distance at the strongest levels and to accuracy."""
    keys = list(tables.variants(results))
    trained = {"usual training": Networks(results, keys[0]["study"], CROSS_ENTROPY)}
    trained |= {key["training"]: Networks(results, key["study"], key["training"]) for key in keys}
    quantities = {
        "relative distance, strongest levels": {
            name: n.strongest("normalised_distance").estimate for name, n in trained.items()
        },
        "unshifted accuracy": {name: n.unshifted("accuracy").estimate for name, n in trained.items()},
    }
    dot_plot(quantities, "ratio, fraction", folder / "variants", "Variants of training")


def theory_norms(results: Results, folder: Path) -> None:
    """Draw how norms of inputs off the data's span shrink from layer to layer in homogeneous networks."""
    layers = results["theory_layers"]
    interval_curves(
        {f"{depth} layers": layers.curve("layer", "relative_norm", depth=depth) for depth in layers.distinct("depth")},
        ("layer", "norm of inputs off the data's span, relative"),
        folder / "theory_norms",
        "Homogeneous networks: signals off the span",
    )
