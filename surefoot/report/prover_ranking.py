"""What a ranking of provers found, as tables."""

import csv
from collections.abc import Sequence
from pathlib import Path

from surefoot.reasoning.credit import RankedProver
from surefoot.report.tables import markdown_table
from surefoot.statistics import Estimate
from surefoot.storage.files import replacing, write_text

__all__ = ("write_prover_ranking",)

_TERMS = ("distinguishability", "alignment", "improvement")


def write_prover_ranking(ranked: Sequence[RankedProver], folder: Path) -> str:
    """Write ``provers.csv`` and ``table.md``: a row for each prover and number of attempts, the most promising first.

    Args:
        ranked: In the order of their ranks.
        folder: Where to write.

    Returns:
        The Markdown table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "provers.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ends = [f"{term}{end}" for term in (*_TERMS, "behind") for end in ("", "_low", "_high")]
        writer.writerow(["rank", "prover", "k", *ends, "problems", "states", "steps"])
        for rank, p in enumerate(ranked, 1):
            numbers = [n for term in (*p.quality, p.behind) for n in term[:3]]
            writer.writerow([rank, p.name, p.k, *numbers, p.quality.improvement.n, p.n_states, p.n_steps])
    header = (
        "rank",
        "prover",
        "K",
        *(f"{term} [95%]" for term in (*_TERMS, "behind the first")),
        "problems",
        "states",
        "steps",
    )
    rows = [
        [
            *(str(rank), p.name, str(p.k)),
            *map(_cell, (*p.quality, p.behind)),
            *map(str, (p.quality.improvement.n, p.n_states, p.n_steps)),
        ]
        for rank, p in enumerate(ranked, 1)
    ]
    table = markdown_table(header, rows)
    write_text(folder / "table.md", table + "\n")
    return table


def _cell(e: Estimate) -> str:
    return f"{e.mean:.4f} [{e.low:.4f}, {e.high:.4f}]" if e.n > 1 else f"{e.mean:.4f} (one problem, no interval)"
