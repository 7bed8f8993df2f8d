"""Domains, subclasses or templates that a dataset itself holds out."""

from collections.abc import Sequence

from datamodules.shifts.base import Shift, ShiftedData
from datamodules.splits import Split
from surefoot.errors import ConfigError

__all__ = ("HeldOut",)


class HeldOut(Shift):
    """The sets that a datamodule holds out: WILDS' other splits or domains, target subclasses, templates of texts."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Initialize the shift.

        Args:
            names: Which sets; all by default.
        """
        self.names = names

    def sets(self, data: ShiftedData, split: str) -> dict[str, Split]:
        """Return the sets.

        Raises:
            ConfigError: If the dataset holds none out, or none of that name.
        """
        found = data.held_out(split)
        unknown = [n for n in self.names or () if n not in found]
        if unknown or not found:
            raise ConfigError(
                f"{type(data).__name__} holds out {', '.join(found) or 'nothing'};"
                f" asked for {', '.join(unknown) or 'all of it'}."
            )
        return {n: s for n, s in found.items() if self.names is None or n in self.names}
