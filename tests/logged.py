"""Reading what runs have logged."""

import csv
from pathlib import Path

__all__ = ("metric_values",)


def metric_values(run: Path, key: str) -> list[float]:
    """Return every logged value of a key, in order."""
    with (run / "metrics.csv").open() as file:
        return [float(r[key]) for r in csv.DictReader(file) if r.get(key)]
