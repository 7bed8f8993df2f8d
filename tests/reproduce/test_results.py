"""The committed results say what their own intervals say."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from surefoot.cli import main
from surefoot.reproduce.papers import paper_ids
from surefoot.reproduce.running import Measured, Run
from surefoot.storage.json_files import write_json

RESULTS = Path(__file__).parents[2] / "docs/papers"


def claims(paper: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / paper / "claims.json").read_text())
    return rows


def expected(claim: dict[str, Any]) -> str:
    """Read the criterion's words, not its code."""
    text, (low, high) = claim["criterion"].partition(":")[0], claim["interval"]
    numbers = [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w%])", text)]
    if text == "reported only":
        return "reported"
    if text.startswith("mean >="):
        return "holds" if low >= numbers[0] else "contradicted" if high < numbers[0] else "undecided"
    if text.startswith("mean <="):
        return "holds" if high <= numbers[0] else "contradicted" if low > numbers[0] else "undecided"
    if text.startswith("95% interval above"):
        return "holds" if low > numbers[0] else "contradicted" if high <= numbers[0] else "undecided"
    assert text.startswith("within")
    tolerance, reference = numbers
    if max(abs(low - reference), abs(high - reference)) <= tolerance:
        return "holds"
    outside = low > reference + tolerance or high < reference - tolerance
    return "contradicted" if outside else "undecided"


@pytest.mark.parametrize("paper", paper_ids())
def test_every_committed_claim_has_the_verdict_of_its_interval(paper: str) -> None:
    found = claims(paper)
    assert len({c["id"] for c in found}) == len(found) > 10
    wrong = {c["id"]: c["verdict"] for c in found if c["verdict"] != expected(c)}
    assert not wrong
    assert all(c["measured"] is not None for c in found)


@pytest.mark.parametrize("paper", paper_ids())
def test_committed_results_are_judged_the_same_from_their_tables(paper: str, tmp_path: Path) -> None:
    names = [*json.loads((RESULTS / paper / "protocol.json").read_text())["tables"]]
    for name in (*(f"{n}.csv" for n in names), "protocol.json", "timings.csv"):
        if name != "timings.csv" or (RESULTS / paper / name).is_file():
            shutil.copy(RESULTS / paper / name, tmp_path / name)
    main(["reproduce", paper, "--judge", "--out", str(tmp_path)])
    again = json.loads((tmp_path / "claims.json").read_text())
    assert again == claims(paper)
    assert (tmp_path / "table.md").read_text() == (RESULTS / paper / "table.md").read_text()


@pytest.mark.parametrize("paper", paper_ids())
def test_the_committed_table_is_that_of_the_claims(paper: str) -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in (RESULTS / paper / "table.md").read_text().splitlines()
        if line.startswith("| ")
    ][1:]
    found = claims(paper)
    assert [(r[0], r[-3], r[-1].strip("* ")) for r in rows] == [
        (c["claim"], str(c["n_seeds"]), c["verdict"]) for c in found
    ]


@pytest.mark.parametrize("paper", paper_ids())
def test_the_readme_counts_the_verdicts(paper: str) -> None:
    counts = Counter(c["verdict"] for c in claims(paper))
    numbers = [counts[v] for v in ("holds", "contradicted", "undecided", "reported")]
    row = f"(docs/papers/{paper}/table.md) | " + " | ".join(map(str, numbers)) + " |"
    assert row in (RESULTS.parents[1] / "README.md").read_text()


def test_tables_of_an_earlier_run_are_kept_and_named(tmp_path: Path) -> None:
    first = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path)
    first.add(Measured({"one": [{"seed": 0, "value": 0.1 + 0.2}], "two": [{"seed": 0}]}, {"one": 2.5}))
    first.write_protocol("paper")
    write_json(tmp_path / "environment.json", {"revision": "abc"})
    again = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path)
    again.keep(["one", "never measured"])
    assert again.tables == {"one": [{"seed": 0, "value": 0.1 + 0.2}]}
    assert again.seconds == {"one": 2.5}
    assert again.notes == ["one: measured by an earlier run, of revision abc."]
    nothing = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path / "elsewhere")
    nothing.keep(["one"])
    assert (nothing.tables, nothing.notes) == ({}, [])
