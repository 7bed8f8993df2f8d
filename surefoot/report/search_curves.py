"""What a search found: its table, and accuracy against candidates and against tokens."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from surefoot.errors import DataError
from surefoot.reasoning.search import SearchPoint, begins_above, compute_ratio, up_to_best
from surefoot.report.figures import interval_curves
from surefoot.report.tables import markdown_table
from surefoot.statistics import Estimate
from surefoot.storage.files import replacing

__all__ = ("TABLE", "describe_search", "draw_search", "read_points", "write_points")

#: File of a search's folder that holds its points.
TABLE = "accuracy.csv"
_COLUMNS = ("selection", "n", "accuracy", "low", "high", "problems", "generated_tokens", "scored_tokens")


def write_points(points: Sequence[SearchPoint], folder: Path) -> None:
    """Write a row per way of choosing and number of candidates; tokens are per problem."""
    with replacing(folder / TABLE) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for p in points:
            writer.writerow([p.selection, p.n, *p.accuracy, p.generated_tokens, p.scored_tokens])


def read_points(folder: Path) -> list[SearchPoint]:
    """Return what `write_points` wrote.

    Raises:
        DataError: If the folder holds no such table, or a damaged one.
    """
    path = folder / TABLE
    if not path.is_file():
        raise DataError(f"{folder} holds no finished search: expected {TABLE}, which surefoot search writes.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            points = [_point(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no table of a search: {error}.") from error
    if not points:
        raise DataError(f"{path} is empty.")
    return points


def _point(row: Mapping[str, str]) -> SearchPoint:
    accuracy = Estimate(float(row["accuracy"]), float(row["low"]), float(row["high"]), int(row["problems"]))
    return SearchPoint(
        row["selection"], int(row["n"]), accuracy, float(row["generated_tokens"]), float(row["scored_tokens"])
    )


def _curves(points: Sequence[SearchPoint], name: str = "") -> dict[str, list[SearchPoint]]:
    """Return the points of each way of choosing, in the order of their number of candidates."""
    curves: dict[str, list[SearchPoint]] = {}
    for p in sorted(points, key=lambda p: p.n):
        curves.setdefault(f"{p.selection.replace('_', ' ')}{name}", []).append(p)
    return curves


def draw_search(points: Sequence[SearchPoint], baseline: Sequence[SearchPoint], folder: Path) -> list[Path]:
    """Draw accuracy against the number of candidates and against generated tokens.

    Args:
        points: Of the search.
        baseline: Of another one to draw beside it; may be empty.
        folder: Where to write.

    Returns:
        The files.
    """
    curves = _curves(points) | _curves(baseline, " (baseline)")
    by_n = {name: [(float(p.n), p.accuracy) for p in own] for name, own in curves.items()}
    by_tokens = {name: [(p.generated_tokens, p.accuracy) for p in own] for name, own in curves.items()}
    return [
        interval_curves(by_n, ("candidates N", "accuracy"), folder / "accuracy_by_n", log_x=True),
        interval_curves(
            by_tokens, ("generated tokens per problem", "accuracy"), folder / "accuracy_by_tokens", log_x=True
        ),
    ]


def describe_search(points: Sequence[SearchPoint], baseline: Sequence[SearchPoint]) -> str:
    """Return a table, and how much less a search generates for what the baseline reaches.

    With most candidates, and where fewer are more accurate, also with its best number of them.
    """
    rows = []
    for p in points:
        interval = f"{p.accuracy.mean:.3f} [{p.accuracy.low:.3f}, {p.accuracy.high:.3f}]"
        rows.append((p.selection, str(p.n), interval, f"{p.generated_tokens:.0f}", f"{p.scored_tokens:.0f}"))
    lines = [markdown_table(("selection", "N", "accuracy [95%]", "generated tokens", "scored tokens"), rows)]
    theirs = _curves(baseline)
    for name, own in _curves(points).items():
        for against in dict.fromkeys((tuple(theirs[name]), tuple(up_to_best(theirs[name])))) if name in theirs else ():
            last, ratio = against[-1], compute_ratio(own, against)
            bound = "at least " if begins_above(own, last.accuracy.mean) else ""
            reached = f"{bound}{ratio:.2f} times fewer generated tokens" if ratio is not None else "not reached"
            lines.append(f"{name}: the baseline's {last.accuracy.mean:.3f} at N = {last.n}: {reached}")
    return "\n".join(lines)
