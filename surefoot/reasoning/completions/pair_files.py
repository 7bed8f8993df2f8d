"""Preference pairs as JSON lines: token ids with a record of where they come from, or texts."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from surefoot.errors import DataError
from surefoot.reasoning.completions.pairs import PairRecord, Pit, PreferencePair, TextPair
from surefoot.reasoning.problems import first_field, read_jsonl
from surefoot.storage.files import write_text

__all__ = ("PAIRS_FILE", "read_pairs", "write_pairs")

#: The pairs' file in a folder of ``surefoot pairs``.
PAIRS_FILE = "pairs.jsonl"
_SIDES = ("prompt", "chosen", "rejected")


def write_pairs(pairs: Iterable[PreferencePair], path: Path) -> None:
    """Write pairs, a line each; a reader sees all of them or none."""
    write_text(path, "".join(f"{json.dumps(_row(pair))}\n" for pair in pairs))


def read_pairs(path: Path) -> list[PreferencePair | TextPair]:
    """Return pairs.

    Args:
        path: What ``surefoot pairs --out`` wrote, or a file of lines with ``prompt``, ``chosen`` and ``rejected``, all
            texts or all lists of token ids.

    Raises:
        DataError: If it is missing, unfinished, or a line is no pair.
    """
    if path.is_dir():
        if not (path / "summary.json").is_file():
            raise DataError(f"{path} is not finished: run the same surefoot pairs again to go on.")
        path = path / PAIRS_FILE
    return [_pair(row, f"{path}, row {i}") for i, row in enumerate(read_jsonl(path), 1)]


def _row(pair: PreferencePair) -> dict[str, object]:
    sides: dict[str, object] = {name: list(getattr(pair, name)) for name in _SIDES}
    if pair.record is None:
        return sides
    pit = None if pair.record.pit is None else pair.record.pit._asdict()
    return sides | {"record": pair.record._asdict() | {"pit": pit}}


def _pair(row: Mapping[str, Any], where: str) -> PreferencePair | TextPair:
    """Return a row's pair; texts stay texts."""
    prompt, chosen, rejected = sides = [row.get(name) for name in _SIDES]
    if all(isinstance(side, list) and all(isinstance(t, int) for t in side) for side in sides):
        return PreferencePair(prompt, chosen, rejected, _record(row.get("record"), where))  # type: ignore[arg-type]
    for name in _SIDES:
        first_field(row, [name], where)
    if not all(isinstance(side, str) for side in sides):
        raise DataError(f"{where}: prompt, chosen and rejected must all be texts, or all lists of token ids.")
    return TextPair(prompt, chosen, rejected)  # type: ignore[arg-type]


def _record(row: Any, where: str) -> PairRecord | None:
    if row is None:
        return None
    try:
        given = row.get("pit") or {}
        pit: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return PairRecord(**row | {"pit": Pit(**pit) if pit else None})
    except (AttributeError, TypeError) as error:
        raise DataError(f"{where}: the record says not where the pair comes from: {error}.") from error
