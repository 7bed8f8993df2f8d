"""What a run hands on to whoever reads its folder, with hashes: ``manifest.json``."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from surefoot.errors import DataError
from surefoot.storage.json_files import fingerprint, read_json, write_json

__all__ = (
    "MANIFEST",
    "WEIGHTS",
    "find_weights",
    "hash_files",
    "manifest_content",
    "write_manifest",
)

MANIFEST = "manifest.json"
#: A trained network's tensors, in a run folder.
WEIGHTS = "weights.safetensors"
#: Logs, times and what is needed to go on: not handed on.
_NOT_HANDED_ON = (
    "checkpoints",
    "config.yaml",
    "environment.json",
    "finished.json",
    "identity.json",
    "unfinished.json",
    "inputs.json",
    "running.json",
    "tensorboard",
    MANIFEST,
)


def hash_files(folder: Path) -> dict[str, dict[str, object]]:
    """Return size in bytes and SHA-256 of every file that a run folder hands on, by its path in the folder."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        first = name.parts[0]
        is_log = len(name.parts) == 1 and first.startswith("metrics") and name.suffix == ".csv"
        if first in _NOT_HANDED_ON or is_log or name.suffix in (".part", ".lock", ".log"):
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name.as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def write_manifest(folder: Path, settings: Mapping[str, object]) -> None:
    """Write what a run hands on, and what it was trained with.

    Args:
        folder: The run folder.
        settings: Class path and arguments of ``model`` and ``data``; others are left out.
    """
    trained_with = {part: settings[part] for part in ("model", "data")}
    write_json(folder / MANIFEST, trained_with | {"files": hash_files(folder)})


def manifest_content(folder: Path) -> str:
    """Return a hash of what a finished run hands on.

    Raises:
        DataError: If it has no manifest, or a file is missing or another.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} has no {MANIFEST}: the run has not finished, or was made by an older version of Surefoot."
        )
    files, found = read_json(path)["files"], hash_files(folder)
    differing = sorted(n for n in files if files[n] != found.get(n))
    if differing:
        state = "has changed since the run finished" if differing[0] in found else "is missing"
        raise DataError(f"{folder / differing[0]} {state}.")
    return fingerprint(files)


def find_weights(path: Path) -> Path:
    """Return the file of weights that a path stands for: itself, or a run folder's.

    Raises:
        DataError: If there is none.
    """
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        raise DataError(
            f"{path} is not a file: expected a run folder of a finished fit, its {WEIGHTS}, or a checkpoint."
        )
    return path
