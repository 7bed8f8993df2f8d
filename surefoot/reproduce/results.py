"""The tidy tables that a paper's runs have written: read from CSV, filtered, and reduced to one value per seed."""

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.errors import DataError
from surefoot.statistics import Estimate, mean_interval, rank_correlation
from surefoot.storage.files import write_text

__all__ = (
    "NotMeasured",
    "PerSeed",
    "Results",
    "Row",
    "Rows",
    "RowsBySeed",
    "Table",
    "by_seed",
    "combine",
    "computed_from",
    "read_results",
    "read_rows",
    "trend",
    "write_csv",
)

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]


class NotMeasured(LookupError):
    """A table, column or row that a claim or a figure reads is not among the results."""


class PerSeed(dict[int, float]):
    """Seed -> value. Differences and ratios are taken within each seed."""

    def __sub__(self, other: "PerSeed") -> "PerSeed":
        """Return the differences of shared seeds."""
        return self._with(other, lambda a, b: a - b)

    def __truediv__(self, other: "PerSeed") -> "PerSeed":
        """Return the ratios of shared seeds."""
        return self._with(other, lambda a, b: a / b)

    @property
    def estimate(self) -> Estimate:
        """Mean over seeds with its 95% interval."""
        return mean_interval(list(self.values()))

    def map(self, function: Callable[[float], float]) -> "PerSeed":
        """Return a function of each value."""
        return PerSeed({seed: function(value) for seed, value in self.items()})

    def _with(self, other: "PerSeed", function: Callable[[float, float], float]) -> "PerSeed":
        return combine([self, other], lambda pair: function(*pair))


def combine(values: Sequence[PerSeed], function: Callable[[list[float]], float] = fmean) -> PerSeed:
    """Return a function of each seed's values, in their order; their mean by default.

    Raises:
        ValueError: If they are not of the same seeds.
    """
    first, *others = values
    for other in others:
        if first.keys() != other.keys():
            raise ValueError(f"the same seeds expected, got {sorted(first)} and {sorted(other)}.")
    return PerSeed({seed: function([one[seed] for one in values]) for seed in first})


class RowsBySeed(dict[int, list[Row]]):
    """Seed -> its rows."""

    def reduce(self, function: Callable[[list[Row]], float]) -> PerSeed:
        """Return a function of each seed's rows."""
        return PerSeed({seed: function(rows) for seed, rows in self.items()})


def by_seed(rows: Iterable[Row]) -> RowsBySeed:
    """Return each seed's rows, seeds ascending."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["seed"], []).append(row)
    return RowsBySeed(sorted(found.items()))


def trend(curve: Mapping[float, PerSeed]) -> PerSeed:
    """Return, for each seed, Kendall's tau of its values over x: +1 where they rise, -1 where they fall."""
    return combine([*curve.values()], lambda values: rank_correlation([*curve], values))


class Table(Sequence[Row]):
    """Tidy rows; empty cells are none."""

    def __init__(self, rows: Iterable[Row], name: str = "") -> None:
        """Keep the rows."""
        self.rows, self.name = tuple(rows), name

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return a row, or several."""
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows."""
        return iter(self.rows)

    def where(self, **values: object) -> "Table":
        """Return the rows that have these values.

        Raises:
            NotMeasured: If a column is missing, or no row has them.
        """
        for column in values:
            self._expect(column)
        kept = [row for row in self.rows if all(row.get(k) == v for k, v in values.items())]
        if not kept:
            raise NotMeasured(f"no row of {self.name} has {', '.join(f'{k}={v}' for k, v in values.items())}")
        return Table(kept, self.name)

    def distinct(self, column: str) -> list[Any]:
        """Return a column's different values, in the order of their first rows.

        Raises:
            NotMeasured: If the column is missing.
        """
        self._expect(column)
        return list(dict.fromkeys(row.get(column) for row in self.rows if row.get(column) is not None))

    def per_seed(self, quantity: str, **where: object) -> PerSeed:
        """Return a quantity of the rows that have these values, averaged within each seed, seeds ascending.

        Raises:
            NotMeasured: If a column or a value is missing, or no row fits.
        """
        chosen = self.where(**where)
        chosen._expect(quantity)
        chosen._expect("seed")
        values: dict[int, list[float]] = {}
        for row in chosen.rows:
            if row.get(quantity) is None:
                raise NotMeasured(f"{quantity} of {self.name} is empty in {dict(where)}, seed {row['seed']}")
            values.setdefault(row["seed"], []).append(row[quantity])
        return PerSeed({seed: fmean(values[seed]) for seed in sorted(values)})

    def estimate(self, quantity: str, **where: object) -> Estimate:
        """Return a quantity's mean over seeds with its 95% interval; see `per_seed`."""
        return self.per_seed(quantity, **where).estimate

    def estimates(self, quantity: str, by: str) -> dict[str, Estimate]:
        """Return a quantity's estimate for each value of a column, in the order of their first rows."""
        return {str(v): self.estimate(quantity, **{by: v}) for v in self.distinct(by)}

    def curve(self, x: str, quantity: str, **where: object) -> list[tuple[float, Estimate]]:
        """Return a quantity's estimate at each value of a column, ascending."""
        chosen = self.where(**where)
        return [(float(v), chosen.estimate(quantity, **{x: v})) for v in sorted(chosen.distinct(x))]

    def curves(self, x: str, quantity: str, by: str) -> dict[str, list[tuple[float, Estimate]]]:
        """Return such a curve for each value of another column, in the order of their first rows."""
        return {str(v): self.curve(x, quantity, **{by: v}) for v in self.distinct(by)}

    def _expect(self, column: str) -> None:
        if not any(column in row for row in self.rows):
            raise NotMeasured(f"{self.name or 'the table'} has no column {column}")


class Results:
    """Name -> table; remembers which tables were read, so that it is no Mapping: checks of types would read one."""

    def __init__(self, tables: Mapping[str, Iterable[Row]]) -> None:
        """Keep the tables."""
        self.tables = {name: t if isinstance(t, Table) else Table(t, name) for name, t in tables.items()}
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Table:
        """Return a table.

        Raises:
            NotMeasured: If it is not among the results.
        """
        if name not in self.tables:
            raise NotMeasured(f"there is no table {name}")
        self.used.add(name)
        return self.tables[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is a table of this name."""
        return name in self.tables


@contextlib.contextmanager
def computed_from(results: Results, what: str) -> Iterator[None]:
    """Name the claim or figure, and the tables that it has read, in the error of values that it fails on.

    Raises:
        DataError: If what is done within raises an error of values; `NotMeasured` passes.
    """
    try:
        yield
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        tables = ", ".join(f"{name}.csv" for name in sorted(results.used))
        raise DataError(
            f"{what} cannot be computed from {tables} ({type(error).__name__}: {error}): are they as surefoot reproduce"
            " has written them?"
        ) from error


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write tidy rows; columns are the keys of all rows, in their order."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> Rows:
    """Return a CSV's rows: whole and other numbers as such, True and False as such, empty cells as none.

    Raises:
        DataError: If the file is missing, is no text, or is not a whole table.
    """
    try:
        text = path.read_bytes().decode()
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path} cannot be read as a table: {reason}. Run surefoot reproduce again.") from error
    columns = lines[0] if lines else []
    ragged = [i for i, cells in enumerate(lines, 1) if len(cells) != len(columns)]
    if not text.endswith("\n") or ragged or len(set(columns)) != len(columns):
        at = "it breaks off, or repeats a column"
        if ragged:
            at = f"line {ragged[0]} has {len(lines[ragged[0] - 1])} cells"
        raise DataError(
            f"{path} is not a whole table: {at}, expected {len(columns)} columns and an end of line after each row. Run"
            " surefoot reproduce again."
        )
    return [dict(zip(columns, map(_value, cells), strict=True)) for cells in lines[1:]]


def read_results(folder: Path, names: Sequence[str]) -> Results:
    """Return the tables of these names in a folder of results."""
    return Results({name: read_rows(folder / f"{name}.csv") for name in names})


def _value(text: str) -> object:
    if text in ("True", "False"):
        return text == "True"
    if text == "":
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
