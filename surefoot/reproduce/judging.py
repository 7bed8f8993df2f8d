"""The second and third step: judge claims, and draw figures, from a folder's tables alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from surefoot.reproduce.claims import Claim, Measurement, Verdict, measure_claims, shares_of_seconds
from surefoot.reproduce.papers import Paper
from surefoot.reproduce.results import NotMeasured, Results, computed_from
from surefoot.reproduce.running import Protocol, tables_at_hand
from surefoot.storage.files import write_text
from surefoot.storage.json_files import write_json

__all__ = ("claims_table", "draw", "judge")

_SHOWN: Mapping[Verdict, str] = {
    "holds": "holds",
    "contradicted": "**contradicted**",
    "undecided": "undecided",
    "reported": "reported",
}

_VERDICTS = (
    "Verdicts compare the 95% interval with what the criterion says of the mean: it *holds* where the interval lies"
    " within, is *contradicted* where it lies outside, and *undecided* where it reaches into both; *reported* are"
    " numbers of which nothing is claimed. Nothing is judged at quick scale but what is the same at every scale."
)


def judge(paper: Paper, folder: Path) -> str:
    """Judge a paper's claims from the tables of a folder, and write ``claims.json`` and ``table.md`` there.

    Returns:
        The table.

    Raises:
        SurefootError: If the folder holds no results of this paper.
    """
    protocol = Protocol.read(folder, paper.id)
    results = tables_at_hand(folder, protocol)
    found, missing = measure_claims(paper.claims, results)
    shares = [None] * len(found) if "timings" not in results else _shares_of_seconds(found, results)
    claims = [m.judge(paper.id, protocol.scale, seconds) for m, seconds in zip(found, shares, strict=True)]
    notes = [*protocol.notes, *(f"Not measured: {name} ({reason})." for name, reason in missing.items())]
    table = claims_table(paper, claims, notes)
    write_json(folder / "claims.json", [claim.as_json() for claim in claims])
    write_text(folder / "table.md", table)
    return table


def _shares_of_seconds(found: Sequence[Measurement], results: Results) -> list[float | None]:
    timings = Results({"timings": results["timings"]})
    with computed_from(timings, "Seconds per claim"):
        return shares_of_seconds(found, {row["table"]: float(row["seconds"]) for row in timings["timings"]})


def draw(paper: Paper, folder: Path) -> dict[str, NotMeasured]:
    """Draw a paper's figures from the tables of a folder into ``figures`` there.

    Returns:
        Figures for which the tables lack data -> reason.

    Raises:
        SurefootError: If the folder holds no results of this paper.
    """
    tables = tables_at_hand(folder, Protocol.read(folder, paper.id)).tables
    missing = {}
    for figure in paper.figures:
        results = Results(tables)
        try:
            with computed_from(results, f"The figure {figure.__name__}"):
                figure(results, folder / "figures")
        except NotMeasured as reason:
            missing[figure.__name__] = reason
    return missing


def claims_table(paper: Paper, claims: Sequence[Claim], notes: Sequence[str]) -> str:
    """Return the claims as a Markdown page."""
    lines = [f"# {paper.title}", "", paper.reference, ""]
    lines += [
        "| claim | source | measured (95% interval) | seeds | criterion | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        low, high = claim.interval or (math.nan, math.nan)
        measured = f"{claim.measured:.3f} ({low:.3f}, {high:.3f}) {claim.unit}"
        lines.append(
            f"| {claim.claim} | {claim.source} | {'not measured' if math.isnan(claim.measured) else measured} |"
            f" {claim.n_seeds} | {claim.criterion} | {_SHOWN[claim.verdict]} |"
        )
    lines += ["", _VERDICTS, "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines)
