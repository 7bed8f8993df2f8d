"""Settings before and after parsing: raw flags, yaml files, checkpoints, and messages about them."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from surefoot.cli.checkpoints import metadata
from surefoot.errors import ConfigError
from surefoot.storage.yaml_files import read_yaml
from surefoot.training.rebuilding import Description

__all__ = (
    "check_yaml",
    "differences",
    "fill_seeds",
    "flag_values",
    "plain_message",
    "stored_descriptions",
    "stored_inputs",
    "stored_settings",
)

#: Lines of jsonargparse's messages about how it searches, not about what is wrong.
_SEARCH = (
    "Does not validate against any",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Given value type:",
    "Given value: Namespace(",
    "Given value: {",
)


def plain_message(message: str) -> str:
    """Return a parser's message without the account of its search, in one line."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    kept = [line for line in lines if line and not line.startswith(_SEARCH)]
    explained = [line for line in kept if not line.startswith(("Expected a", "Given value"))]
    if explained and message.lstrip().startswith(_SEARCH[0]):  # one alternative says what is wrong with what was meant
        kept = explained
    text = "; ".join(kept).replace(":; ", ": ").replace("Given value: ", "got ")
    text = text.replace("Expected a dot import path string: ", "no class of this name is known: ")
    text = re.sub(r"Expected a <class '([\w.]+)'>", r"expected \1", text)
    text = re.sub(r"(expected (?:int|float|bool|str))(?:; (?!expected |got )[^;]+)+(?=; got )", r"\1", text)
    keys = _nested_keys(message)
    if len(keys) < 2:
        return text
    innermost = re.split(r"\. Got value: |; got NestedArg\(", text.rsplit(f'Parser key "{keys[-1]}":', 1)[1])[0]
    return f'Parser key "{".".join(keys)}":{innermost}'


def _nested_keys(message: str) -> list[str]:
    """Return the keys that lead to what is wrong, none where a message names several side by side."""
    found = [(len(line) - len(line.lstrip()), line) for line in message.splitlines() if 'Parser key "' in line]
    if any(outer[0] >= inner[0] for outer, inner in pairwise(found)):
        return []
    return [key for _, line in found for key in re.findall(r'Parser key "([^"]+)"', line)]


def flag_values(arguments: Sequence[str], *flags: str) -> list[str]:
    """Return the values of a flag among raw arguments, as ``--flag value`` or ``--flag=value``."""
    found = [a.split("=", 1)[1] for a in arguments if a.split("=", 1)[0] in flags and "=" in a]
    return found + [v for a, v in pairwise(arguments) if a in flags]


def check_yaml(path: Path) -> None:
    """Raise a `ConfigError` that names the file if it is no yaml of settings."""
    if not path.is_file():
        raise ConfigError(f"config {path} is not a file.")
    try:
        settings = read_yaml(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not valid yaml: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"config {path} holds no settings: a mapping such as 'trainer: ...' is expected.")
    for key in ("runs_root", "experiment", "ckpt_path", "out"):
        if settings.get(key) == "":
            raise ConfigError(f"config {path}: {key} is empty: give a path or a name, or leave it out.")


def stored_settings(path: str | Path) -> dict[str, Any] | None:
    """Return the settings in a checkpoint, none if it has none.

    Raises:
        SurefootError: If the file is not a checkpoint.
    """
    settings: dict[str, object] | None = metadata(path).get("surefoot_settings")
    return settings


def stored_inputs(path: str | Path) -> dict[str, str]:
    """Return what the paths held that a checkpoint's settings name, by dotted key.

    Raises:
        SurefootError: If the file is not a checkpoint.
    """
    return dict(metadata(path).get("surefoot_inputs") or {})


def stored_descriptions(path: str | Path) -> dict[str, Description]:
    """Return what a checkpoint holds, beside weights, of the pretrained models that its settings name.

    Raises:
        SurefootError: If the file is not a checkpoint.
    """
    return dict(metadata(path).get("surefoot_descriptions") or {})


def fill_seeds(settings: object, seed: int) -> None:
    """Set every ``seed`` in nested settings that nobody has given (none) to the run's, in place.

    Args:
        settings: Mappings, namespaces and lists of them; other values are left alone.
        seed: The run's seed.
    """
    if isinstance(settings, list | tuple):
        for value in settings:
            fill_seeds(value, seed)
        return
    values = vars(settings) if isinstance(settings, Namespace) else settings
    if isinstance(values, dict):
        for key, value in values.items():
            if key == "seed" and value is None:
                values[key] = seed
            else:
                fill_seeds(value, seed)


def differences(before: object, now: object, key: str = "") -> list[tuple[str, object, object]]:
    """Return (dotted key, before, now) wherever two settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [d for k in keys for d in differences(before.get(k), now.get(k), f"{key}.{k}" if key else k)]
    return [] if before == now else [(key, before, now)]
