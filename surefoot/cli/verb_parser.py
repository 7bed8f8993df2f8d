"""The parser of verbs without a trainer: YAML files and flags, errors in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from surefoot.cli.settings import check_yaml, flag_values, plain_message
from surefoot.errors import ConfigError

__all__ = ("VerbParser", "verb_parser")


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
