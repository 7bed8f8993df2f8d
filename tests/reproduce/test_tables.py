"""Tables of results: what was written is read, and values are compared within their seeds."""

import math
from pathlib import Path

import pytest

from surefoot.errors import DataError
from surefoot.reproduce.results import NotMeasured, PerSeed, Results, Table, read_rows, trend, write_csv
from surefoot.statistics import mean_interval

ROWS = [
    {"method": "a", "seed": 1, "score": 0.1 + 0.2, "known": True},
    {"method": "a", "seed": 0, "score": 1e-17},
    {"method": "b", "seed": 0, "score": -math.inf, "known": False},
    {"method": "12,5", "seed": 0, "score": 3},
]


def test_csv_keeps_numbers_truth_values_and_gaps(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", ROWS)
    assert read_rows(tmp_path / "x.csv") == [{"known": None} | row for row in ROWS]


def test_values_are_averaged_within_seeds_in_their_order() -> None:
    table = Table([*ROWS, {"method": "a", "seed": 0, "score": 2.0}], "scores")
    assert list(table.per_seed("score", method="a").items()) == [(0, 1.0), (1, 0.1 + 0.2)]
    assert table.estimate("score", method="a") == mean_interval([1.0, 0.1 + 0.2])
    assert table.distinct("known") == [True, False]
    assert [x for x, _ in table.curve("seed", "score", method="a")] == [0.0, 1.0]


def test_what_is_missing_is_named() -> None:
    table = Table(ROWS, "scores")
    with pytest.raises(NotMeasured, match="scores has no column epoch"):
        table.per_seed("epoch")
    with pytest.raises(NotMeasured, match="no row of scores has method=c"):
        table.per_seed("score", method="c")
    with pytest.raises(NotMeasured, match=r"known of scores is empty in {'method': 'a'}, seed 0"):
        table.per_seed("known", method="a")
    with pytest.raises(NotMeasured, match="there is no table others"):
        Results({"scores": ROWS})["others"]


def test_differences_and_ratios_are_taken_within_seeds() -> None:
    first, second = PerSeed({0: 3.0, 1: 5.0}), PerSeed({1: 2.0, 0: 4.0})
    assert first - second == {0: -1.0, 1: 3.0}
    assert first / second == {0: 0.75, 1: 2.5}
    assert first.map(math.sqrt) == {0: math.sqrt(3), 1: math.sqrt(5)}
    with pytest.raises(ValueError, match=r"the same seeds expected, got \[0, 1\] and \[0\]"):
        _ = first - PerSeed({0: 1.0})
    assert trend({0.1: first, 1.0: second}) == {0: 1.0, 1: -1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x99\x00", "cannot be read as a table: 'utf-8' codec"),
        (b'seed,score\r\n0,"1\r\n', "cannot be read as a table: unexpected end of data"),
        (b"", "not a whole table: it breaks off"),
        (b"seed,score\r\n0,1.5\r\n1,2.", "it breaks off"),
        (b"seed,score\r\n0,1\r\n1\r\n", "line 3 has 1 cells, expected 2 columns"),
        (b"seed,score\r\n0,1,2\r\n", "line 2 has 3 cells, expected 2 columns"),
        (b"seed,seed\r\n0,1\r\n", "repeats a column"),
        (None, "cannot be read as a table: No such file or directory"),
    ],
)
def test_what_is_no_whole_table_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"x.csv .*{message}"):
        read_rows(tmp_path / "x.csv")


def test_a_table_without_rows_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [])
    assert read_rows(tmp_path / "x.csv") == []
