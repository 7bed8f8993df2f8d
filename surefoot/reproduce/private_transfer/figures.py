"""What is drawn of private transfer's tables."""

from pathlib import Path

from surefoot.report.figures import interval_curves
from surefoot.reproduce.private_transfer.claims import is_public
from surefoot.reproduce.results import Results

__all__ = ("error_against_samples", "excess_risk", "features_directions", "personalisation")

MODES = {"full": "all dimensions", "true": "true subspace", "public": "public subspace"}


def error_against_samples(results: Results, folder: Path) -> None:
    """Draw errors over private samples, with each public subspace's gamma, and the bounds."""
    table, bounds = results["curves"], results["curve_bounds"]
    largest = max(table.distinct("n"))
    series = {}
    for curve in table.distinct("curve"):
        gamma = f", gamma {table.estimate('gamma', curve=curve, n=largest).mean:.2f}" if is_public(curve) else ""
        series[f"{curve}{gamma}"] = table.curve("n", "error", curve=curve)
    series |= bounds.curves("n", "error", by="curve")
    interval_curves(
        series,
        ("private samples", "error of the weights"),
        folder / "error_against_samples",
        f"d = {bounds[0]['d']}, k = {bounds[0]['k']}, epsilon = 1; bounds without constants",
        log_x=True,
        log_y=True,
    )


def excess_risk(results: Results, folder: Path) -> None:
    """Draw excess risks and their bounds over every quantity that was varied."""
    for sweep in results["sweeps"].distinct("sweep"):
        table = results["sweeps"].where(sweep=sweep)
        interval_curves(
            {
                f"{label}{MODES[mode]}": table.curve("value", quantity, mode=mode)
                for label, quantity in (("", "excess_risk"), ("bound, ", "bound"))
                for mode in table.distinct("mode")
            },
            (sweep, "excess risk"),
            folder / f"excess_risk_against_{sweep.replace(' ', '_')}",
            log_x=True,
            log_y=True,
        )


def personalisation(results: Results, folder: Path) -> None:
    """Draw users' errors over their samples, for every way to learn."""
    table = results["personalisation"]
    interval_curves(
        table.curves("n_examples", "error", by="way"),
        ("samples a user", "error of the weights, mean over users"),
        folder / "personalisation",
        "50 users, d = 25, k = 5, epsilon = 1 for a user",
        log_x=True,
        log_y=True,
    )


def features_directions(results: Results, folder: Path) -> None:
    """Draw the probes' accuracy over the number of directions."""
    table = results["features"].where(kind="public features")
    interval_curves(
        {f"epsilon {e:g}": table.curve("directions", "accuracy", epsilon=e) for e in sorted(table.distinct("epsilon"))},
        ("directions of the public subspace", "test accuracy of five private classes"),
        folder / "features_directions",
        "CIFAR-10, encoder of five other classes",
        log_x=True,
    )
