"""Settings and results as JSON files, and a short hash of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surefoot.errors import SurefootError
from surefoot.storage.files import write_text

__all__ = ("fingerprint", "read_json", "write_json")


def fingerprint(settings: Mapping[str, object]) -> str:
    """Return a short hash of settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        SurefootError: If the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SurefootError(f"{path} cannot be read as JSON: {error}.") from error
