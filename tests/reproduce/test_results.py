"""The committed results say what their own intervals say."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from surefoot.cli import main
from surefoot.errors import SurefootError
from surefoot.reproduce.papers import paper_ids
from surefoot.reproduce.results import read_rows
from surefoot.reproduce.running import Measured, Run

RESULTS = Path(__file__).parents[2] / "docs/papers"
MEASURED = [paper for paper in paper_ids() if (RESULTS / paper / "claims.json").is_file()]


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


@pytest.mark.parametrize("paper", MEASURED)
def test_every_committed_claim_has_the_verdict_of_its_interval(paper: str) -> None:
    found = claims(paper)
    assert len({c["id"] for c in found}) == len(found) > 10
    wrong = {c["id"]: c["verdict"] for c in found if c["verdict"] != expected(c)}
    assert not wrong
    assert all(c["measured"] is not None for c in found)


@pytest.mark.parametrize("paper", MEASURED)
def test_committed_results_are_judged_the_same_from_their_tables(paper: str, tmp_path: Path) -> None:
    names = [*json.loads((RESULTS / paper / "protocol.json").read_text())["tables"]]
    for name in (*(f"{n}.csv" for n in names), "protocol.json", "timings.csv"):
        if name != "timings.csv" or (RESULTS / paper / name).is_file():
            shutil.copy(RESULTS / paper / name, tmp_path / name)
    main(["reproduce", paper, "--judge", "--out", str(tmp_path)])
    again = json.loads((tmp_path / "claims.json").read_text())
    assert again == claims(paper)
    assert (tmp_path / "table.md").read_text() == (RESULTS / paper / "table.md").read_text()


@pytest.mark.parametrize("paper", MEASURED)
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


@pytest.mark.parametrize("paper", MEASURED)
def test_the_readme_counts_the_verdicts(paper: str) -> None:
    counts = Counter(c["verdict"] for c in claims(paper))
    numbers = [counts[v] for v in ("holds", "contradicted", "undecided", "reported")]
    row = f"(docs/papers/{paper}/table.md) | " + " | ".join(map(str, numbers)) + " |"
    assert row in (RESULTS.parents[1] / "README.md").read_text()


def test_the_readme_says_what_is_not_measured_yet() -> None:
    readme = (RESULTS.parents[1] / "README.md").read_text()
    missing = re.findall(r"\(docs/papers/(\w+)/README\.md\) \| not measured yet \|", readme)
    assert sorted([*missing, *MEASURED]) == paper_ids()


def earlier_run(out: Path, revision: str, tables: dict[str, list[dict[str, Any]]], *notes: str) -> Run:
    run = Run(scale="quick", n_seeds=1, most_seeds=1, out=out)
    run.begin("paper")
    run.notes += notes
    run.add(Measured(tables, dict.fromkeys(tables, 2.5)))
    run.write_protocol("paper", revision)
    return run


def test_tables_of_an_earlier_run_are_kept_with_their_notes_and_revisions(tmp_path: Path) -> None:
    rows = {"one": [{"seed": 0, "value": 0.1 + 0.2}], "two": [{"seed": 0}]}
    earlier_run(tmp_path, "abc", rows, "One is left out: no data.", "Of all.")
    again = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path)
    again.begin("paper")
    assert not (tmp_path / "protocol.json").exists(), "nothing is judged while tables are replaced"
    again.keep(["one", "never measured"], ["One is left out"])
    assert again.tables == {"one": rows["one"]}
    said = ["One is left out: no data.", "one: measured by an earlier run, of revision abc."]
    assert again.notes == said
    again.add(Measured({"two": [{"seed": 0}]}, {"two": 1.0}))
    again.write_protocol("paper", "def")
    assert read_rows(tmp_path / "timings.csv") == [
        {"table": "one", "seconds": 2.5, "revision": "abc"},
        {"table": "two", "seconds": 1.0, "revision": "def"},
    ]
    third = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path)
    third.begin("paper")
    third.keep(["one", "two"])
    assert third.notes[-1] == "one, two: measured by an earlier run, of revision abc and def."
    killed = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path)
    killed.begin("paper")
    killed.keep(["two"])
    assert list(killed.tables) == ["two"], "the third never came to its protocol"


def test_tables_of_another_scale_or_other_seeds_are_not_kept(tmp_path: Path) -> None:
    earlier_run(tmp_path, "abc", {"one": [{"seed": 0}]})
    for scale, n_seeds in (("laptop", 1), ("quick", 2)):
        run = Run(scale=scale, n_seeds=n_seeds, most_seeds=n_seeds, out=tmp_path)
        run.begin("paper")
        with pytest.raises(SurefootError, match="tables of scale quick and 1 seeds"):
            run.keep(["one"])
    nothing = Run(scale="quick", n_seeds=1, most_seeds=1, out=tmp_path / "elsewhere")
    nothing.begin("paper")
    nothing.keep(["one"])
    assert (nothing.tables, nothing.notes) == ({}, [])
