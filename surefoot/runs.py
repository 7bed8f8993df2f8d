"""Run folders: ``<root>/<experiment>/<number>/``, found again by the settings that made them.

A folder holds ``config.yaml`` (effective settings), ``environment.json``, ``metrics.csv``, ``checkpoints/`` and, when
the run has ended well, ``finished.json``. The same settings lead back to the same folder: a finished run is not run
again, an interrupted one goes on.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from surefoot.errors import SurefootError
from surefoot.storage.contents import differing_contents
from surefoot.storage.files import partial_path, remove_partials
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.storage.locks import is_held_by_this_launch, one_at_a_time

__all__ = (
    "RUN_VARIABLE",
    "RunFolder",
    "await_run",
    "describe_environment",
    "list_runs",
    "mark_latest",
    "open_run",
)

#: Environment variable with the folder that the ranks which Lightning launches write to
RUN_VARIABLE = "SUREFOOT_RUN_FOLDER"
_IDENTITY = "identity.json"
_PACKAGES = (
    "surefoot",
    "torch",
    "lightning",
    "torchvision",
    "transformers",
    "timm",
    "wilds",
    "numpy",
    "scikit-learn",
)


@dataclass(frozen=True)
class RunFolder:
    """One run folder."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether the run has ended well."""
        return (self.path / "finished.json").is_file()

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint, whole or not, to go on from."""
        return any((self.path / "checkpoints").glob("*.ckpt"))

    @property
    def inputs(self) -> dict[str, str]:
        """What the paths in its settings held when it began, by dotted key."""
        path = self.path / "inputs.json"
        return dict(read_json(path)) if path.is_file() else {}


def list_runs(folder: Path) -> list[RunFolder]:
    """Return the runs of one experiment, oldest first."""
    numbered = [p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir() and not p.is_symlink()]
    return [RunFolder(p) for p in sorted(numbered, key=lambda p: int(p.name))]


def open_run(
    root: Path,
    experiment: str,
    settings: Mapping[str, object],
    fresh: bool = False,
    contents: Mapping[str, str] | None = None,
) -> RunFolder:
    """Find the newest run of these settings, or make a new folder for them.

    Args:
        root: Folder of all runs.
        experiment: Name of the experiment.
        settings: What identifies the run; JSON types.
        fresh: Make a new folder in any case.
        contents: What the paths in the settings hold, see `surefoot.storage.contents.named_contents`; a run that read
            something else from them is another run.

    Returns:
        The run; hold it (`surefoot.storage.locks.hold`) before anything is written there.
    """
    folder = root / experiment
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):  # two first starts at once are of one run, which the second finds held
        return _find_or_make(folder, settings, fresh, contents)


def _find_or_make(
    folder: Path, settings: Mapping[str, object], fresh: bool, contents: Mapping[str, str] | None
) -> RunFolder:
    key, runs = fingerprint(settings), list_runs(folder)
    keys = [_key_of(r) for r in runs]
    found = [r for r, k in zip(runs, keys, strict=True) if k == key]
    if contents is not None:
        found = [r for r in found if _reads_the_same(r, contents)]
    for run, known in zip(runs, keys, strict=True):
        if known is None and (run.path / _IDENTITY).exists():
            print(f"left out: {run.path / _IDENTITY} cannot be read", file=sys.stderr)
    if found and not fresh:
        return found[-1]
    run = RunFolder(folder / str(int(runs[-1].path.name) + 1 if runs else 0))
    remove_partials(folder)
    unnamed = partial_path(run.path)  # a process that is killed here leaves no numbered folder
    unnamed.mkdir()
    write_json(unnamed / "inputs.json", dict(contents or {}))
    created = {"fingerprint": key, "created": time.time(), "verb": settings.get("verb")}
    write_json(unnamed / _IDENTITY, created)
    unnamed.rename(run.path)
    return run


def mark_latest(run: RunFolder) -> None:
    """Let ``latest`` beside a run point to it; what is there and no link is left alone."""
    link, target = run.path.parent / "latest", run.path.name
    if link.is_symlink() and os.readlink(link) == target:
        return
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def await_run(root: Path, experiment: str, settings: Mapping[str, object], seconds: float = 120) -> RunFolder:
    """Find the run that rank zero has opened for these settings, on a rank launched by torchrun or SLURM.

    Raises:
        SurefootError: If rank zero holds no such run in time.
    """
    key, deadline = fingerprint(settings), time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in reversed(list_runs(root / experiment)):
            if is_held_by_this_launch(run.path) and _key_of(run) == key:
                return run
        time.sleep(0.2)
    raise SurefootError(f"rank zero opened no run of these settings in {root / experiment} within {seconds:.0f} s.")


def _reads_the_same(run: RunFolder, contents: Mapping[str, str]) -> bool:
    try:
        return not differing_contents(run.inputs, contents)
    except SurefootError as error:
        print(f"left out: {error}", file=sys.stderr)
        return False


def _key_of(run: RunFolder) -> str | None:
    """Return the fingerprint of a run's settings; none where it has none, or none that can be read."""
    try:
        return str(read_json(run.path / _IDENTITY)["fingerprint"])
    except (SurefootError, KeyError, TypeError):
        return None


def describe_environment() -> dict[str, object]:
    """Return versions, source revision and device of this process."""
    import torch

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    revision = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "python": sys.version.split()[0],
        "versions": versions,
        "revision": revision.stdout.strip() or None,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """Return the processor's name and the number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"
