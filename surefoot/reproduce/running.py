"""The first of three steps: run a paper's experiments and write tidy tables, notes and timings."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from surefoot.errors import SurefootError
from surefoot.reproduce.claims import ClaimDefinition, Scale, undecided
from surefoot.reproduce.results import Results, Rows, read_results, read_rows, write_csv
from surefoot.storage.json_files import read_json, write_json

__all__ = ("Measured", "Protocol", "Run", "data_folder", "settle", "tables_at_hand")

PROTOCOL, TIMINGS = "protocol.json", "timings.csv"
#: The protocol of the results that are being replaced.
EARLIER = "protocol_earlier.json"


class Measured(NamedTuple):
    """Tables, and the work behind them."""

    tables: Mapping[str, Rows]
    seconds: Mapping[str, float] = {}  # table -> seconds of work, summed over processes; none for what others imply


@dataclass
class Run:
    """What was asked for, and what the running step writes."""

    scale: Scale
    n_seeds: int
    most_seeds: int  # up to which undecided claims get more
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)  # the paper's own
    notes: list[str] = field(default_factory=list)  # protocol and caveats, printed under the table
    tables: dict[str, Rows] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of work, by table
    revisions: dict[str, str | None] = field(default_factory=dict)  # of the code behind tables that were kept
    earlier: "Protocol | None" = field(default=None, init=False)  # of the run that the folder has results of

    @property
    def quick(self) -> bool:
        """Whether everything is shortened and nothing is judged."""
        return self.scale == "quick"

    def begin(self, paper: str) -> None:
        """Make the folder, and remove what an earlier run's tables were judged to be: they are about to be replaced.

        The earlier protocol is put aside until this run has one, for `keep`.

        Raises:
            SurefootError: If the folder holds another paper's results.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / PROTOCOL).exists():
            Protocol.read(self.out, paper)
            (self.out / PROTOCOL).replace(self.out / EARLIER)
        if (self.out / EARLIER).exists():
            self.earlier = Protocol.read(self.out, paper, EARLIER)
        for name in ("claims.json", "table.md"):
            (self.out / name).unlink(missing_ok=True)

    def add(self, measured: Measured) -> None:
        """Append rows to tables and write them."""
        for name, rows in measured.tables.items():
            self.tables[name] = [*self.tables.get(name, []), *rows]
            self.seconds[name] = self.seconds.get(name, 0.0) + measured.seconds.get(name, 0.0)
            write_csv(self.out / f"{name}.csv", self.tables[name])

    def keep(self, names: Sequence[str], notes: Sequence[str] = ()) -> None:
        """Take those of some tables that the folder's earlier run has, with timings and revisions, and say so.

        Args:
            names: Of the tables.
            notes: What those of the earlier run's notes begin with that are about these tables.

        Raises:
            SurefootError: If that run was of another scale, or had other seeds.
        """
        kept = [name for name in self.earlier.tables if name in names] if self.earlier else []
        if self.earlier is None or not kept:
            return
        if (self.earlier.scale, self.earlier.n_seeds) != (self.scale, self.n_seeds):
            raise SurefootError(
                f"{self.out} holds tables of scale {self.earlier.scale} and {self.earlier.n_seeds} seeds, which are not"
                f" judged together with those of scale {self.scale} and {self.n_seeds}: name another --out."
            )
        for row in read_rows(self.out / TIMINGS):
            if row["table"] in kept:
                self.seconds[row["table"]] = row["seconds"]
                self.revisions[row["table"]] = row.get("revision")
        self.tables |= {name: read_rows(self.out / f"{name}.csv") for name in kept}
        self.notes += [note for note in self.earlier.notes if any(note.startswith(beginning) for beginning in notes)]
        revisions = sorted({str(self.revisions[name]) for name in kept if self.revisions.get(name)})
        of = f", of revision {' and '.join(revisions)}" if revisions else ""
        self.notes.append(f"{', '.join(kept)}: measured by an earlier run{of}.")

    def write_protocol(self, paper: str, revision: str | None = None) -> None:
        """Write what judging needs beside the tables: scale, seeds, notes and timings.

        Args:
            paper: Its id.
            revision: Of the code that has measured the tables that were not kept.
        """
        timings = [
            {"table": t, "seconds": round(s, 1), "revision": self.revisions.get(t, revision)}
            for t, s in self.seconds.items()
        ]
        write_csv(self.out / TIMINGS, timings)
        protocol = Protocol(paper, self.scale, self.n_seeds, [*self.tables], self.notes)
        write_json(self.out / PROTOCOL, protocol.__dict__)
        (self.out / EARLIER).unlink(missing_ok=True)


@dataclass(frozen=True)
class Protocol:
    """What a folder of results says of itself (``protocol.json``)."""

    paper: str
    scale: Scale
    n_seeds: int
    tables: Sequence[str]
    notes: Sequence[str]

    @staticmethod
    def read(folder: Path, paper: str, name: str = PROTOCOL) -> "Protocol":
        """Return the protocol of a paper's results.

        Args:
            folder: Of the results.
            paper: Its id.
            name: Of the file.

        Raises:
            SurefootError: If the folder holds none, a damaged one, or another paper's.
        """
        path = folder / name
        if not path.is_file():
            raise SurefootError(
                f"{folder} holds no results (there is no {name}): run surefoot reproduce {paper} first,"
                " or name the folder with --out."
            )
        found = read_json(path)
        if not _is_protocol(found):
            raise SurefootError(
                f"{path} is not as surefoot reproduce has written it: expected {', '.join(_NAMES)}. Remove it and run"
                f" surefoot reproduce {paper} again, or name another --out."
            )
        protocol = Protocol(**found)
        if protocol.paper != paper:
            raise SurefootError(f"{folder} holds results of {protocol.paper}, expected {paper}: name another --out.")
        return protocol


_NAMES = tuple(f.name for f in fields(Protocol))


def _is_protocol(found: object) -> bool:
    """Return whether what a JSON file holds has a protocol's names and types."""
    return (
        isinstance(found, dict)
        and found.keys() == set(_NAMES)
        and found["scale"] in get_args(Scale)
        and type(found["n_seeds"]) is int
        and all(
            isinstance(found[name], list) and all(isinstance(text, str) for text in found[name])
            for name in ("tables", "notes")
        )
    )


def tables_at_hand(folder: Path, protocol: Protocol) -> Results:
    """Return the tables that a run has written, with its timings where they were recorded."""
    timings = [TIMINGS.removesuffix(".csv")] if (folder / TIMINGS).is_file() else []
    return read_results(folder, [*protocol.tables, *timings])


def data_folder(name: str, run: Run, what: str) -> Path | None:
    """Return a folder or file in ``SUREFOOT_DATA``; where it is not at hand, note that something is left out.

    Args:
        name: Its path within ``SUREFOOT_DATA``.
        run: Gets the note.
        what: What is left out without it, as the sentence's subject.
    """
    root = os.environ.get("SUREFOOT_DATA")
    if root is not None and (Path(root) / name).exists():
        return Path(root) / name
    run.notes.append(f"{what} left out: SUREFOOT_DATA names no folder with {name}.")
    return None


def settle(measure: Callable[[int], Measured], claims: Sequence[ClaimDefinition], n_seeds: int, most: int) -> Measured:
    """Measure with some seeds, and once more with twice as many for as long as a claim on these tables is undecided.

    The rule asks only whether the 95% interval reaches into what is claimed and out of it, never on which side the
    mean lies. All methods get the new seeds; the last measurement, on all of them, is the one that counts.

    Args:
        measure: From a number of seeds to tables; keeps its runs, so that only new seeds cost.
        claims: Those that read these tables are settled.
        n_seeds: Seeds to begin with.
        most: The budget: with so many seeds a claim stays as it is.

    Returns:
        The last measurement.

    Raises:
        ValueError: If no claim reads these tables.
    """
    while True:
        measured = measure(n_seeds)
        if not undecided(claims, Results(measured.tables)) or n_seeds >= most:
            return measured
        n_seeds = min(2 * n_seeds, most)
