"""The parser of verbs without a trainer: YAML files and flags, errors in one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from surefoot.cli.settings import check_yaml, flag_values, plain_message
from surefoot.errors import ConfigError

__all__ = ("VerbParser", "plain_settings", "print_summary", "verb_parser")


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


def plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Return parsed settings as mappings."""
    return {n: v.as_dict() if isinstance(v, Namespace) else v for n, v in settings.items()}


def print_summary(summary: Mapping[str, float]) -> None:
    """Print numbers, a line each, those with ``_low`` and ``_high`` with their interval."""
    for name, value in summary.items():
        if not name.endswith(("_low", "_high")):
            low, high = summary.get(f"{name}_low"), summary.get(f"{name}_high")
            interval = "" if low is None else f"  [{low:.3f}, {high:.3f}]"
            print(f"{name:24s} {value:.3f}{interval}")
