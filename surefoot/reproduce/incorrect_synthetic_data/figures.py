"""What is drawn of the tables on learning from incorrect solutions."""

from pathlib import Path

from surefoot.report.figures import interval_curves
from surefoot.reproduce.results import Results
from surefoot.statistics import Estimate

__all__ = ("arithmetic_betas", "arithmetic_scaling", "arithmetic_steps", "star_graph_paths")


def arithmetic_scaling(results: Results, folder: Path) -> None:
    """Draw every method's test error against the number of synthetic problems."""
    table = results["arithmetic_errors"].where(part="scaling")
    interval_curves(
        table.curves("n", "error", by="method"),
        ("synthetic problems", "test error"),
        folder / "arithmetic_scaling",
        "Arithmetic: errors by the number of synthetic problems",
        log_x=True,
    )


def arithmetic_betas(results: Results, folder: Path) -> None:
    """Draw the error of DPO on random pairs and on first pits against beta."""
    table = results["arithmetic_errors"].where(part="betas")
    interval_curves(
        table.curves("beta", "error", by="method"),
        ("beta", "test error"),
        folder / "arithmetic_betas",
        "Arithmetic: strength of the penalty",
        log_x=True,
    )


def arithmetic_steps(results: Results, folder: Path) -> None:
    """Draw the values after each step, of right and of wrong solutions."""
    table = results["arithmetic_steps"]
    interval_curves(
        {
            f"{'right' if right else 'wrong'} solutions": table.curve("step", "value", right=right)
            for right in (True, False)
        },
        ("step", "probability of a right answer after it"),
        folder / "arithmetic_steps",
        "Arithmetic: what steps are worth",
    )


def star_graph_paths(results: Results, folder: Path) -> None:
    """Draw how often the first node is right, of every method, by the epochs of SFT before it."""
    interval_curves(
        results["star_graph_paths"].curves("epochs", "first_node", by="method"),
        ("epochs of SFT", "first node right"),
        folder / "star_graph_paths",
        "Star graphs: the one decision, on test graphs",
        horizontals={"a guess": Estimate(0.5, 0.5, 0.5, 1)},
    )
