"""The study's figures, drawn from its tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from surefoot.report.figures import dot_plot, interval_curves
from surefoot.report.shift_figures import draw_layers, draw_sets
from surefoot.reproduce.constant_solution import tables
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY
from surefoot.reproduce.constant_solution.tables import Decisions, Networks
from surefoot.reproduce.results import Results, Row
from surefoot.statistics import Estimate, mean_interval

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
        draw_sets([row for rows in networks.sets.values() for row in rows], own, title)
        draw_layers([row for rows in networks.layers.values() for row in rows], own, title)
        inner, last = networks.constants("inner"), networks.constants("last")
        dot_plot(
            {
                "optimal constant": _over_seeds({0: last[0]}, "optimal_constant"),
                "accumulated biases": _over_seeds(inner, "prediction"),
                "last bias alone": _over_seeds(last, "prediction"),
            },
            "prediction without a signal",
            own / "constants",
            title,
        )


def _over_seeds(constants: Mapping[int, Sequence[Row]], quantity: str) -> dict[str, Estimate]:
    """Return, by output, a quantity's estimate over seeds."""
    return {
        str(rows[0]["number"]): mean_interval([row[quantity] for row in rows])
        for rows in zip(*constants.values(), strict=True)
    }


def decisions(results: Results, folder: Path) -> None:
    """Draw what policies earn, and how often they abstain, at every level of the shifts."""
    for study in results["decisions"].distinct("study"):
        found = Decisions(results, study)
        for quantity in ("reward", "abstention"):
            curves = {
                label: [
                    (float(level), mean_interval(list(values.values())))
                    for level, values in enumerate(found.levels(policy, quantity))
                ]
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
            name: mean_interval(list(n.strongest("normalised_distance").values())) for name, n in trained.items()
        },
        "unshifted accuracy": {
            name: mean_interval(list(n.unshifted("accuracy").values())) for name, n in trained.items()
        },
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
