"""What is drawn of BR-DRO's tables."""

from pathlib import Path

from surefoot.report.figures import Plane, decision_planes, dot_plot, interval_curves
from surefoot.reproduce.br_dro.studies import AVERAGE, BITS, WORST
from surefoot.reproduce.br_dro.toy import PENALTIES, at_penalty
from surefoot.reproduce.results import Results, Table
from surefoot.statistics import Estimate

__all__ = (
    "capacity",
    "capacity_toy",
    "decision_boundaries_toy",
    "label_noise",
    "label_noise_toy",
    "methods",
    "recovery",
    "recovery_over_training",
)


def _toy(results: Results) -> Table:
    """Return the toy's rows on the seeds that all methods have, in few nuisance dimensions."""
    table = results["toy"]
    return table.where(nuisance_dimensions=10, n_seeds=min(table.distinct("n_seeds")))


def capacity_toy(results: Results, folder: Path) -> None:
    """Draw the toy's worst group over the l2 penalty."""
    clean = _toy(results).where(label_noise=0.0)
    curve = [(p, clean.estimate("worst_group", method=at_penalty(p))) for p in PENALTIES]
    interval_curves(
        {"BR-DRO (l2)": curve},
        ("l2 penalty", "worst-group accuracy"),
        folder / "capacity_toy",
        "Capacity path on the linear toy",
        log_x=True,
        horizontals={m: clean.estimate("worst_group", method=m) for m in ("ERM", "CVaR-DRO", "Group DRO")},
    )


def label_noise_toy(results: Results, folder: Path) -> None:
    """Draw the toy's worst group over simple label noise."""
    table = _toy(results)
    interval_curves(
        {
            m: table.curve("label_noise", "worst_group", method=m)
            for m in ("ERM", "CVaR-DRO", "JTT", "BR-DRO (l2)", "Group DRO")
        },
        ("share of training labels flipped", "worst-group accuracy"),
        folder / "label_noise_toy",
        "Simple label noise: no loss-based method is robust",
    )


def decision_boundaries_toy(results: Results, folder: Path) -> None:
    """Draw the first seed's training data in core and spurious feature with the decision lines of some methods."""
    points, lines = results["toy_points"], results["toy_lines"]
    x, y, labels = ([row[column] for row in points] for column in ("core", "spurious", "label"))
    planes = {
        method: Plane(
            x, y, labels, {r["line"]: (r["core"], r["spurious"], r["constant"]) for r in lines.where(method=method)}
        )
        for method in lines.distinct("method")
    }
    decision_planes(
        planes,
        ("core feature", "spurious feature (jittered)"),
        folder / "decision_boundaries_toy",
        "Linear toy, first seed, nuisance at zero",
    )


def methods(results: Results, folder: Path) -> None:
    """Draw worst-group and average accuracy of every method."""
    for study in results["methods"].distinct("study"):
        table = results["methods"].where(study=study)
        panels = {
            label: table.estimates(quantity, by="method")
            for label, quantity in {"worst group": WORST, "average (train shares)": AVERAGE}.items()
        }
        dot_plot(panels, "test accuracy", folder / f"methods_{study}", f"{study}: mean and 95% interval")


def recovery(results: Results, folder: Path) -> None:
    """Draw how well each method's weights find the minority, late in training."""
    for study in results["methods"].distinct("study"):
        table = results["methods"].where(study=study)
        reweighting = [m for m in table.distinct("method") if m != "ERM"]
        panels = {
            q: {m: table.estimate(f"minority_{q}", method=m) for m in reweighting}
            for q in ("auc", "precision", "recall")
        }
        dot_plot(
            panels,
            "against the true minority",
            folder / f"recovery_{study}",
            f"{study}: how well the weights find the minority",
        )


def recovery_over_training(results: Results, folder: Path) -> None:
    """Draw how well each method's weights find the minority, epoch by epoch."""
    for study in results["recovery"].distinct("study"):
        table = results["recovery"].where(study=study)
        interval_curves(
            {
                m: [
                    (float(r["epoch"]), Estimate(r["mean"], r["low"], r["high"], r["n_seeds"]))
                    for r in table.where(method=m)
                ]
                for m in table.distinct("method")
            },
            ("epoch", "AUC of the weights for the minority"),
            folder / f"recovery_over_training_{study}",
            f"{study}: how well the weights find the minority, over training",
        )


def capacity(results: Results, folder: Path) -> None:
    """Draw the worst group over the penalty per nat."""
    for study in results["capacity"].distinct("study"):
        table, tuned = results["capacity"].where(study=study), results["methods"].where(study=study)
        rivals = {f"{m}, tuned": tuned.estimate(WORST, method=m) for m in ("ERM", "CVaR-DRO", "Group DRO")}
        interval_curves(
            {"BR-DRO (VIB)": table.curve("penalty", "worst_group", method=BITS)},
            ("penalty per nat", "worst-group accuracy"),
            folder / f"capacity_{study}",
            f"Capacity path on {study}",
            log_x=True,
            horizontals={"ERM, same rate": table.estimate("worst_group", method="ERM")} | rivals,
        )


def label_noise(results: Results, folder: Path) -> None:
    """Draw the worst group over random label noise."""
    for study in results["label_noise"].distinct("study"):
        table = results["label_noise"].where(study=study)
        interval_curves(
            table.curves("label_noise", "worst_group", by="method"),
            ("share of training labels flipped", "worst-group accuracy"),
            folder / f"label_noise_{study}",
            f"Random label noise on {study}",
        )
