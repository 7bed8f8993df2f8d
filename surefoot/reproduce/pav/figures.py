"""What is drawn of the tables on process advantage verifiers."""

from pathlib import Path

from surefoot.report.figures import interval_curves
from surefoot.reproduce.pav.claims import PAPER_RATE, settings
from surefoot.reproduce.results import Results

__all__ = ("didactic_learning", "didactic_pass", "didactic_sweep")


def didactic_learning(results: Results, folder: Path) -> None:
    """Draw both methods' learning curves on the planted sub-sequence."""
    table = results["didactic_learning"].where(lr=PAPER_RATE)
    interval_curves(
        table.curves("iteration", "value", by="method"),
        ("iteration", "samples with the answer"),
        folder / "didactic_learning",
        "Planted sub-sequence: effective reward against outcomes alone",
    )


def didactic_pass(results: Results, folder: Path) -> None:
    """Draw Pass@N after 100 iterations, and of the start."""
    table = results["didactic_pass"].where(lr=PAPER_RATE)
    first, last = min(table.distinct("iteration")), max(table.distinct("iteration"))
    curves = table.where(iteration=last).curves("n", "value", by="method")
    curves["start"] = table.curve("n", "value", method=next(iter(curves)), iteration=first)
    interval_curves(curves, ("N", "Pass@N"), folder / "didactic_pass", f"Pass@N after {last:g} iterations", log_x=True)


def didactic_sweep(results: Results, folder: Path) -> None:
    """Draw the accuracy over the run against the strength of the prover, under every setting."""
    table = results["didactic_sweep"]
    interval_curves(
        {
            f"{key['optimizer']}, {key['prover']}": table.curve(
                "weight", "mean_accuracy", optimizer=key["optimizer"], prover=key["prover"]
            )
            for key in settings(results)
        },
        ("weight of the prover's next right token", "accuracy, mean over the run"),
        folder / "didactic_sweep",
        "Strength of the prover",
        log_x=True,
    )
