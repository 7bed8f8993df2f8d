"""What is drawn of the tables on process advantage verifiers."""

from pathlib import Path

from surefoot.report.figures import interval_curves
from surefoot.reproduce.pav.didactic_claims import PAPER_RATE, settings
from surefoot.reproduce.results import Results, Table

__all__ = (
    "arithmetic_by_candidates",
    "arithmetic_by_tokens",
    "arithmetic_learning",
    "arithmetic_outcome_errors",
    "arithmetic_pass",
    "arithmetic_provers",
    "didactic_learning",
    "didactic_pass",
    "didactic_sweep",
)

#: What is drawn: the search and by what it chooses.
_SEARCHES = {
    "beam, PAV": ("beam, PAV", "best"),
    "beam, Q": ("beam, Q", "best"),
    "best of N, process": ("best of N, process", "best_progress"),
    "vote of N, process": ("best of N, process", "weighted_majority"),
    "best of N, outcome": ("best of N, outcome", "best"),
    "best of N, control": ("best of N, control", "best"),
    "beam, control": ("beam, control", "best"),
    "beam, oracle": ("beam, oracle", "best"),
}


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


def _searches(table: Table) -> dict[str, Table]:
    """Return the rows of what is drawn, of the searches that were run."""
    run = table.distinct("search")
    return {name: table.where(search=s, selection=by) for name, (s, by) in _SEARCHES.items() if s in run}


def arithmetic_outcome_errors(results: Results, folder: Path) -> None:
    """Draw how often the score of a step, against its best threshold, is wrong on the outcome."""
    interval_curves(
        results["arithmetic_outcome_errors"].curves("step", "error", by="score"),
        ("step", "share of wrong predictions"),
        folder / "arithmetic_outcome_errors",
        "Arithmetic: outcomes predicted after each step",
    )


def arithmetic_by_candidates(results: Results, folder: Path) -> None:
    """Draw the accuracy of every search against its number of candidates."""
    table = results["arithmetic_search"]
    curves = {name: own.curve("n", "accuracy") for name, own in _searches(table).items()}
    curves["pass@N"] = table.curve("n", "accuracy", search="best of N, outcome", selection="pass")
    interval_curves(
        curves, ("N", "accuracy"), folder / "arithmetic_by_candidates", "Arithmetic: search with N", log_x=True
    )


def arithmetic_by_tokens(results: Results, folder: Path) -> None:
    """Draw the accuracy of every search against the tokens it generates for a problem, mean over seeds."""
    table = results["arithmetic_search"]
    curves = {}
    for name, own in _searches(table).items():
        widths = sorted(own.distinct("n"))
        tokens = (own.estimate("generated_tokens", n=n).mean for n in widths)
        curves[name] = [(x, own.estimate("accuracy", n=n)) for x, n in zip(tokens, widths, strict=True)]
    interval_curves(
        curves,
        ("tokens generated for a problem", "accuracy"),
        folder / "arithmetic_by_tokens",
        "Arithmetic: search with so many tokens",
        log_x=True,
    )


def arithmetic_provers(results: Results, folder: Path) -> None:
    """Draw the accuracy of beam search against the attempts of the prover."""
    table = results["arithmetic_search"].where(selection="best")
    interval_curves(
        {"beam, PAV": [(k, table.estimate("accuracy", k=k)) for k in sorted(table.distinct("k"))]},
        ("attempts K of the prover", "accuracy"),
        folder / "arithmetic_provers",
        "Arithmetic: which prover guides the beam",
        log_x=True,
        horizontals={"beam, Q": table.estimate("accuracy", search="beam, Q", n=table.where(k=1).distinct("n")[0])},
    )


def arithmetic_learning(results: Results, folder: Path) -> None:
    """Draw the accuracy of samples while policies are reinforced."""
    table = results["arithmetic_reinforcement"]
    interval_curves(
        table.curves("iteration", "accuracy", by="method"),
        ("iteration", "accuracy of samples"),
        folder / "arithmetic_learning",
        "Arithmetic: reinforcement",
    )


def arithmetic_pass(results: Results, folder: Path) -> None:
    """Draw Pass@N of the policies before and after reinforcement."""
    table = results["arithmetic_pass"]
    interval_curves(
        table.curves("n", "value", by="method"),
        ("N", "Pass@N"),
        folder / "arithmetic_pass",
        "Arithmetic: Pass@N after reinforcement",
        log_x=True,
    )
