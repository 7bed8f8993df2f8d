"""YAML files, read so that nothing in them is lost."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

__all__ = ("read_yaml",)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses a key that comes twice in one mapping, of which yaml would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping, unless a key repeats; merged ones (``<<``) may be overridden."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} comes twice", problem_mark=key.start_mark
                )
            seen.add(name)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_yaml(path: Path) -> Any:
    """Return what a file holds, in plain types.

    Raises:
        OSError: If it cannot be read.
        UnicodeDecodeError: If it is no text.
        yaml.YAMLError: If it is not yaml, or a key comes twice in one mapping.
    """
    # _Loader constructs plain types only, as yaml.safe_load does
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)
