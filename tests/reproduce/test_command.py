"""Running, judging and drawing a paper that is added as a folder."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surefoot import reproduce
from surefoot.cli import main
from surefoot.reproduce.results import read_rows


@pytest.fixture
def coin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the example's folder."""
    monkeypatch.setattr(reproduce, "__path__", [*reproduce.__path__, str(Path(__file__).parent / "papers")])
    yield
    for name in [n for n in sys.modules if n.startswith("surefoot.reproduce.coin")]:
        del sys.modules[name]
    vars(reproduce).pop("coin", None)


def claims(folder: Path) -> dict[str, dict[str, Any]]:
    return {c["id"]: c for c in json.loads((folder / "claims.json").read_text())}


@pytest.mark.usefixtures("coin")
def test_a_paper_is_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "--list"])
    listed = capsys.readouterr().out
    assert "coin" in listed
    assert "br_dro" in listed
    assert "tasks" not in listed
    main(["reproduce", "coin", "--scale", "laptop", "--seeds", "3", "--bias", "0.2", "--out", str(tmp_path / "o")])
    found = claims(tmp_path / "o")
    assert [*found] == ["first_fair", "second_fair", "second_above_first"]
    claim = found["first_fair"]
    assert claim["verdict"] == "holds"
    assert claim["n_seeds"] == 3
    assert set(claim) == {
        *("id", "paper", "claim", "source", "criterion", "measured", "interval", "unit"),
        *("n_seeds", "holds", "verdict", "scale", "seconds"),
    }
    table = (tmp_path / "o/table.md").read_text()
    assert "The first coin shows heads as often as tails | page 1" in table
    assert "- A hundred throws a seed." in table
    assert [r["table"] for r in read_rows(tmp_path / "o/timings.csv")] == ["throws"]
    assert (tmp_path / "o/figures/heads.svg").is_file()


@pytest.mark.usefixtures("coin")
def test_undecided_claims_get_seeds_up_to_the_budget(tmp_path: Path) -> None:
    flags = ["reproduce", "coin", "--scale", "laptop", "--seeds", "2", "--out", str(tmp_path)]
    for most, asked in (("8", 8), ("5", 5), ("2", 2)):
        main([*flags, "--bias", "0.0", "--max-seeds", most])
        equal = claims(tmp_path)["second_above_first"]
        assert (equal["n_seeds"], equal["verdict"]) == (2, "contradicted"), "the same throws: no difference"
        main([*flags, "--bias", "0.01", "--max-seeds", most])
        assert claims(tmp_path)["second_above_first"]["n_seeds"] <= asked
    main([*flags, "--bias", "0.005", "--max-seeds", "7"])
    assert claims(tmp_path)["second_above_first"]["n_seeds"] in (2, 4, 7)


@pytest.mark.usefixtures("coin")
def test_judging_and_drawing_read_the_tables_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reproduce", "coin", "--out", str(tmp_path)])
    before = claims(tmp_path)
    from surefoot.reproduce.coin import runs

    monkeypatch.delattr(runs, "throw")
    for name in ("claims.json", "table.md", "figures/heads.svg"):
        (tmp_path / name).unlink()
    main(["reproduce", "coin", "--judge", "--out", str(tmp_path)])
    assert claims(tmp_path) == before
    assert not (tmp_path / "figures/heads.svg").exists()
    text = (tmp_path / "throws.csv").read_text()
    (tmp_path / "throws.csv").write_text(text.replace("first", "third"))
    main(["reproduce", "coin", "--judge", "--out", str(tmp_path)])
    assert [*claims(tmp_path)] == ["third_fair", "second_fair"]
    assert "Not measured: second_above_first (no row of throws has coin=first)." in (tmp_path / "table.md").read_text()
    (tmp_path / "throws.csv").write_text("seed\n0\n")
    main(["reproduce", "coin", "--judge", "--out", str(tmp_path)])
    assert "Not measured: fair (throws has no column coin)." in (tmp_path / "table.md").read_text()
    (tmp_path / "throws.csv").write_text(text.replace("first", "third"))
    (tmp_path / "claims.json").unlink()
    main(["reproduce", "coin", "--figures", "--out", str(tmp_path)])
    assert "third" in (tmp_path / "figures/heads.svg").read_text()
    assert not (tmp_path / "claims.json").exists()
    (tmp_path / "throws.csv").write_text("seed\n0\n")
    capsys.readouterr()
    main(["reproduce", "coin", "--figures", "--out", str(tmp_path)])
    assert "not drawn: heads (throws has no column coin)" in capsys.readouterr().out


@pytest.mark.usefixtures("coin")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--judge"], "holds no results (there is no protocol.json): run surefoot reproduce coin first"),
        (["--figures"], "holds no results"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--max-seeds", "0"], "--max-seeds must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "coin", *flags, "--out", str(tmp_path / "nothing")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("coin")
def test_results_of_another_paper_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "coin", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["reproduce", "br_dro", "--judge", "--out", str(tmp_path)])
    assert "holds results of coin, expected br_dro" in capsys.readouterr().err


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a command ends in."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("coin")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("protocol.json", "[]", "protocol.json is not as surefoot reproduce has written it: expected paper, scale"),
        ("protocol.json", '{"paper": "coin"}', "protocol.json is not as"),
        (
            "protocol.json",
            '{"paper": "coin", "scale": "huge", "n_seeds": 1, "tables": [], "notes": []}',
            "protocol.json is not as",
        ),
        ("throws.csv", "seed,coin,heads\n0,first,0.5\n1,first", "throws.csv is not a whole table"),
        ("throws.csv", "seed,coin,heads\n0,first,many\n", "The claim first_fair cannot be computed from throws.csv"),
        (
            "throws.csv",
            "seed,coin,heads\n0,first,0.5\n1,second,0.5\n",
            "The claim second_above_first cannot be computed from throws.csv (ValueError: the same seeds expected",
        ),
        ("timings.csv", "table,seconds\nthrows,long\n", "Seconds per claim cannot be computed from timings.csv"),
        ("timings.csv", "table\nthrows\n", "Seconds per claim cannot be computed from timings.csv"),
    ],
)
def test_damaged_results_are_named(
    name: str, content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reproduce", "coin", "--out", str(tmp_path)])
    (tmp_path / name).write_text(content)
    assert message in complaint(["coin", "--judge", "--out", str(tmp_path)], capsys)
    if name == "throws.csv" and "many" in content:
        drawn = complaint(["coin", "--figures", "--out", str(tmp_path)], capsys)
        assert "The figure heads cannot be computed from throws.csv" in drawn


@pytest.mark.usefixtures("coin")
def test_a_run_that_breaks_off_leaves_nothing_that_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["coin", "--scale", "laptop", "--out", str(tmp_path)]
    main(["reproduce", *flags])
    main(["reproduce", "coin", "--judge", "--out", str(tmp_path)])
    from surefoot.reproduce.coin import runs

    def broken(*_: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "throw", broken)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            main(["reproduce", *flags])
    assert not (tmp_path / "claims.json").exists()
    assert "holds no results" in complaint(["coin", "--judge", "--out", str(tmp_path)], capsys)
    main(["reproduce", *flags])
    assert claims(tmp_path)


@pytest.mark.usefixtures("coin")
def test_a_run_does_not_replace_another_papers_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "coin", "--out", str(tmp_path)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "holds results of coin, expected private_transfer" in complaint(
        ["private_transfer", "--out", str(tmp_path)], capsys
    )
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
