"""Run folders as tidy records."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from surefoot.errors import SurefootError
from surefoot.runs import fingerprint

__all__ = ("RecordedRun", "flatten", "read_metrics", "read_runs", "read_selection")


class RecordedRun(NamedTuple):
    """One finished run."""

    path: Path
    method: str  # class name of the model
    data: str  # class name of the datamodule
    seed: int
    arm: str  # settings without the seeds, as a short hash
    settings: Mapping[str, Any]  # flattened, dotted keys
    selection: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, list[float]]

    def value(self, metric: str, rule: str) -> float:
        """Return a quantity at the epoch that a rule chose, or its last value.

        Raises:
            SurefootError: If the run has no such quantity.
        """
        found = (
            self.metrics.get(metric, [math.nan])[-1]
            if rule == "last"
            else self.selection.get(rule, {}).get(metric, math.nan)
        )
        if math.isnan(found):
            have = sorted(self.metrics if rule == "last" else self.selection.get(rule, {}))
            raise SurefootError(
                f"{self.path} has no {metric!r} under rule {rule!r}; it has {', '.join(have) or 'nothing'}."
            )
        return found


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted keys."""
    if isinstance(settings, Mapping) and settings:
        parts = (flatten(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in settings.items())
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: settings}


def _folders(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise SurefootError(
                f"{path} does not exist; give a run folder such as runs/erm_digits/0."
            )
        candidates = (
            [path]
            if (path / "finished.json").is_file()
            else sorted(p.parent for p in path.rglob("finished.json"))
        )
        yield from (
            c
            for c in candidates
            if not any(part.is_symlink() for part in (c, *c.parents)) or c == path
        )


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """Return every logged value by name, in order, over all parts of an interrupted run."""
    values: dict[str, list[float]] = {}
    for path in sorted(
        folder.glob("metrics*.csv"), key=lambda p: (p.name == "metrics.csv", p.name)
    ):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if text:
                        values.setdefault(name, []).append(float(text))
    return values


def read_selection(folder: Path) -> dict[str, dict[str, float]]:
    """Return what each selection rule chose, by rule; nothing where no `GroupMetrics` ran."""
    path = folder / "selection.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["rule"]: {k: float(v) for k, v in row.items() if k not in ("rule", "checkpoint") and v}
        for row in rows
    }


def read_runs(paths: Sequence[Path]) -> list[RecordedRun]:
    """Read all finished runs in some folders.

    Args:
        paths: Run folders, or folders that hold some.

    Returns:
        One record per run.

    Raises:
        SurefootError: If a folder is missing or a config unreadable.
    """
    runs = []
    for folder in dict.fromkeys(_folders(paths)):
        try:
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            method = settings["model"]["class_path"].split(".")[-1]
            data = settings["data"]["class_path"].split(".")[-1]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise SurefootError(f"{folder}/config.yaml cannot be read: {error}.") from error
        flat = flatten(settings)
        seeds = ("seed_everything", "data.init_args.seed")
        identity = {
            k: v
            for k, v in flat.items()
            if k not in seeds and k.startswith(("model", "data", "trainer.max_"))
        }
        seed = flat.get("seed_everything")
        runs.append(
            RecordedRun(
                folder,
                method,
                data,
                int(seed) if isinstance(seed, int) else 0,
                fingerprint(identity)[:6],
                flat,
                read_selection(folder),
                read_metrics(folder),
            )
        )
    return runs
