"""``surefoot reproduce``: one file a paper; each defines ``PAPER``."""

import argparse
import csv
import importlib
import math
import pkgutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.errors import SurefootError
from surefoot.reproduce.claims import Claim, Paper, Verdict
from surefoot.runs import describe_environment
from surefoot.storage.json_files import write_json

__all__ = ("load_paper", "paper_ids", "run_reproduce")

_SHARED = ("claims", "statistics")

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


def paper_ids() -> list[str]:
    """Return the ids of all papers, which are their files' names."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(n for n in names if not n.startswith("_") and n not in _SHARED)


def load_paper(name: str) -> Paper:
    """Return a paper.

    Raises:
        SurefootError: If there is none of that name.
    """
    if name not in paper_ids():
        raise SurefootError(f"no paper {name!r}; there are {', '.join(paper_ids())}.")
    paper: Paper = importlib.import_module(f"surefoot.reproduce.{name}").PAPER
    return paper


def run_reproduce(arguments: Sequence[str]) -> None:
    """Re-measure a paper's claims and write ``claims.json``, ``table.md``, CSVs and figures.

    Args:
        arguments: The verb, the paper and options.
    """
    parser = argparse.ArgumentParser("surefoot reproduce", description="Re-measure a paper's claims.")
    parser.add_argument("paper", nargs="?", help="which paper; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the papers and stop")
    parser.add_argument(
        "--scale",
        choices=("quick", "laptop", "paper"),
        default="quick",
        help="quick (under a minute, proves the path, judges nothing), laptop (about 30 minutes), paper (GPUs)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="number of seeds to begin with; the scale's own by default. Claims that they leave undecided get more"
        " where"
        " the paper has a budget for it",
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: reproduced/PAPER/SCALE)")
    known, _ = parser.parse_known_args(list(arguments[1:]))
    if known.list or known.paper is None:
        for name in paper_ids():
            paper = load_paper(name)
            print(f"{name:24s}{paper.title} ({paper.reference})")
        return
    paper = load_paper(known.paper)
    for flag, settings in paper.options.items():
        parser.add_argument(flag, **settings)
    options = vars(parser.parse_args(list(arguments[1:])))
    options.pop("list"), options.pop("paper")
    scale, n_seeds, out = options.pop("scale"), options.pop("seeds"), options.pop("out")
    if n_seeds is not None and n_seeds < 1:
        raise SurefootError(f"--seeds must be at least 1, got {n_seeds}.")
    out = out or Path("reproduced") / paper.id / scale
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    findings = paper.measure(scale, n_seeds or paper.default_seeds[scale], out, **options)
    seconds = round(time.monotonic() - started, 1)
    claims = [m.judge(paper.id, scale, seconds) for m in findings.measurements]
    write_json(out / "claims.json", [claim.as_json() for claim in claims])
    write_json(out / "environment.json", describe_environment() | {"seconds": seconds})
    for name, rows in findings.tables.items():
        write_csv(out / f"{name}.csv", rows)
    table = claims_table(paper, claims, findings.notes)
    (out / "table.md").write_text(table)
    print(table)
    print(f"written to {out} in {seconds:.0f} s")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write tidy rows; columns are the keys of all rows, in their order."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def claims_table(paper: Paper, claims: Iterable[Claim], notes: Sequence[str]) -> str:
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
