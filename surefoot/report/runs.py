"""Run folders as tidy records, and which of them are left out of a report, with the reason."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from surefoot.errors import SurefootError

__all__ = (
    "LeftOut",
    "RecordedRun",
    "flatten",
    "read_metrics",
    "read_run",
    "read_runs",
    "read_selection",
)


class LeftOut(NamedTuple):
    """A run folder that a report does not count."""

    path: Path
    reason: str


class RecordedRun(NamedTuple):
    """One finished run."""

    path: Path
    experiment: str
    method: str  # class name of the model
    data: str  # class name of the datamodule
    seeds: Mapping[str, int | None]  # dotted key -> seed; none where the run was not seeded
    created: float  # seconds since the epoch
    ranks: int
    revision: str  # of the source; empty if unknown
    settings: Mapping[str, Any]  # flattened, dotted keys
    selection: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, list[float]]
    group_sizes: Mapping[str, int] = {}  # group of the test split -> examples evaluated

    @property
    def pair(self) -> tuple[int | None, int | None]:
        """Seed of training and seed of the data: runs of two methods that share both are compared as a pair."""
        training = self.seeds.get("seed_everything")
        of_streams = [seed for key, seed in self.seeds.items() if key.startswith("data.init_args.streams.")]
        return training, self.seeds.get("data.init_args.seed", of_streams[0] if of_streams else training)

    def chosen(self, rule: str) -> dict[str, float]:
        """Return every quantity at the epoch that a rule chose, or its last value."""
        if rule == "last":
            return {name: values[-1] for name, values in self.metrics.items()}
        return dict(self.selection.get(rule, {}))

    def value(self, metric: str, rule: str) -> float:
        """Return a quantity at the epoch that a rule chose, or its last value.

        Raises:
            SurefootError: If the run has no such quantity, or it is not finite.
        """
        have = self.chosen(rule)
        if not self.selection and rule != "last":
            raise SurefootError(
                "no epoch was selected: none ended a validation with GroupMetrics among its callbacks,"
                f" so it has no {metric} under rule {rule}: --rule last takes the last values"
            )
        if metric not in have:
            near = sorted(n for n in have if n.startswith(("test/", "val/"))) or sorted(have)
            shown = ", ".join(near[:6]) + (" ..." if len(near) > 6 else "")
            raise SurefootError(f"has no {metric} under rule {rule}; it has {shown or 'nothing'}")
        if not math.isfinite(have[metric]):
            raise SurefootError(f"its {metric} under rule {rule} is {have[metric]}")
        return have[metric]


def flatten(settings: object, prefix: str = "") -> dict[str, object]:
    """Return nested settings under dotted keys; lists of mappings are numbered, other lists stay values."""
    if isinstance(settings, list) and any(isinstance(v, Mapping) for v in settings):
        settings = dict(enumerate(settings))
    if isinstance(settings, Mapping) and settings:
        parts = (flatten(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in settings.items())
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: settings}


def _folders(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield every run folder once, whether finished or not; links to runs are not read twice."""
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise SurefootError(f"{path} is not a folder; give a run folder such as runs/erm_digits/0.")
        marks = ("finished.json", "identity.json")
        if any((path / m).is_file() for m in marks):
            found = [path]
        else:
            found = sorted({p.parent for m in marks for p in path.rglob(m)}, key=_order)
        for folder in found:
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def _order(folder: Path) -> tuple[object, ...]:
    """Sort run 10 after run 9."""
    return tuple((int(p), "") if p.isdecimal() else (-1, p) for p in folder.parts)


def _part(path: Path) -> float:
    """Return the number of a part of an interrupted run's metrics; ``metrics.csv`` is the last, infinity."""
    middle = path.name.removeprefix("metrics").removesuffix(".csv").strip(".")
    return int(middle) if middle.isdecimal() else math.inf


def read_metrics(folder: Path) -> dict[str, list[float]]:
    """Return every logged value by name, in order, over all parts of an interrupted run.

    A last row without an end was cut off by a kill or a full disk, perhaps within a number: it does not count.
    """
    values: dict[str, list[float]] = {}
    for path in sorted(folder.glob("metrics*.csv"), key=_part):
        with path.open(newline="") as file:
            whole = (line for line in file if line.endswith(("\n", "\r")))
            for row in csv.DictReader(whole):
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
    return {row["rule"]: {k: float(v) for k, v in row.items() if k not in ("rule", "checkpoint") and v} for row in rows}


def _read_group_sizes(folder: Path) -> dict[str, int]:
    """Return how many examples of each group of the test split were evaluated; nothing where it was not recorded."""
    path = folder / "group_sizes.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["group"]: int(row["size"]) for row in csv.DictReader(file) if row["split"] == "test"}


def _read_optional(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise TypeError(f"{path.name} holds no mapping")
    return value


def _seeds(flat: Mapping[str, object]) -> dict[str, int | None]:
    """Return every seed among the settings; one that nobody gave is the class's own."""
    seeds: dict[str, int | None] = {}
    for key, value in flat.items():
        if key == "seed_everything" or (key.startswith(("model.", "data.")) and key.split(".")[-1] == "seed"):
            seeds[key] = value if isinstance(value, int) and not isinstance(value, bool) else None
    return seeds


def read_run(folder: Path) -> RecordedRun:
    """Read a finished run.

    Args:
        folder: Its folder.

    Raises:
        SurefootError: With the reason why it cannot be reported.
    """
    try:
        verb = _read_optional(folder / "identity.json").get("verb") or "fit"
        if verb != "fit":
            raise SurefootError(f"a run of {verb}, not of fit")
        if not (folder / "finished.json").is_file():
            raise SurefootError("not finished: the same command resumes it")
        return _recorded(folder)
    except SurefootError:
        raise
    except (
        OSError,
        ValueError,  # json's and unicode's too
        TypeError,
        KeyError,
        AttributeError,
        csv.Error,
        yaml.YAMLError,
    ) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SurefootError(f"cannot be read as a run of surefoot fit ({reason[:160]})") from error


def _recorded(folder: Path) -> RecordedRun:
    """Return what the files of a finished fit say."""
    created = _read_optional(folder / "identity.json").get("created")
    finished = folder / "finished.json"
    _read_optional(finished)
    config = folder / "config.yaml"
    if not config.is_file():
        raise SurefootError("no config.yaml: not a run of surefoot fit")
    settings = yaml.safe_load(config.read_text())
    method, data = (settings[k]["class_path"].split(".")[-1] for k in ("model", "data"))
    environment = _read_optional(folder / "environment.json")
    flat = flatten(settings)
    resolved = folder.resolve()
    return RecordedRun(
        folder,
        resolved.parent.name if resolved.name.isdecimal() else resolved.name,
        method,
        data,
        _seeds(flat),
        float(created if created is not None else finished.stat().st_mtime),
        int(environment.get("ranks") or 1),
        str(environment.get("revision") or ""),
        flat,
        read_selection(folder),
        read_metrics(folder),
        _read_group_sizes(folder),
    )


def read_runs(paths: Sequence[Path]) -> tuple[list[RecordedRun], list[LeftOut]]:
    """Read all runs in some folders.

    Args:
        paths: Run folders, or folders that hold some, at any depth.

    Returns:
        One record per finished run, and the folders that hold none, each with its reason.

    Raises:
        SurefootError: If a given folder is missing.
    """
    runs, left_out = list[RecordedRun](), list[LeftOut]()
    for folder in _folders(paths):
        try:
            runs.append(read_run(folder))
        except SurefootError as error:
            left_out.append(LeftOut(folder, str(error)))
    return runs, left_out
