"""The parser of verbs without a trainer: YAML files and flags, errors in one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from surefoot.cli.settings import check_yaml, flag_values, plain_message
from surefoot.errors import ConfigError
from surefoot.reasoning.rollouts import RolloutEngine
from surefoot.storage.contents import named_contents

__all__ = ("VerbParser", "build_objects", "engine_name", "print_summary", "verb_parser")


def verb_parser(verb: str, description: str) -> "VerbParser":
    """Return a parser that takes ``--config FILE``, to which a verb adds its settings.

    Args:
        verb: Name of the verb.
        description: What it does.
    """
    parser = VerbParser(prog=f"surefoot {verb}", description=description)
    parser.add_argument("--config", "-c", action="config", help="YAML file with any of these settings.")
    return parser


class VerbParser(ArgumentParser):
    """Takes settings by their names; parsers of nested classes are made from it too."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise a `ConfigError` with the plain message."""
        if not self.exit_on_error:
            return super().error(message, ex)
        raise ConfigError(plain_message(message)) from ex

    def parse_verb(self, arguments: Sequence[str]) -> Namespace:
        """Return the settings.

        Args:
            arguments: The verb and its options.

        Raises:
            ConfigError: If a file or a setting is wrong.
        """
        given = list(arguments)[1:]
        for config in flag_values(given, "--config", "-c"):
            check_yaml(Path(config))
        return self.parse_args(given)


def _plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Return parsed settings as mappings."""
    return {n: v.as_dict() if isinstance(v, Namespace) else v for n, v in settings.items()}


def build_objects(parser: VerbParser, parsed: Namespace, read: Sequence[str]) -> tuple[Namespace, dict[str, str]]:
    """Return the objects that settings describe, and hashes of what the paths among some of them hold.

    Args:
        parser: The verb's parser.
        parsed: Its settings.
        read: Names of the settings whose paths are read.
    """
    named = _plain_settings({name: parsed.get(name) for name in read})
    contents = named_contents(named)
    objects = parser.instantiate_classes(parsed)
    return objects, named_contents(named) | contents  # a hub's model may have come only now


def engine_name(engine: RolloutEngine) -> str:
    """Return the name of what samples: of Ray's workers, the engine that each of them runs."""
    return type(engine.sampling_engine).__name__


def print_summary(summary: Mapping[str, float]) -> None:
    """Print numbers, a line each, those with ``_low`` and ``_high`` with their interval."""
    for name, value in summary.items():
        if not name.endswith(("_low", "_high")):
            low, high = summary.get(f"{name}_low"), summary.get(f"{name}_high")
            interval = "" if low is None else f"  [{low:.3f}, {high:.3f}]"
            print(f"{name:24s} {value:.3f}{interval}")
