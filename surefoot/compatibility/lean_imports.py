"""Import lightning without the optional packages that torchmetrics would pull in behind it.

Lightning imports all of torchmetrics, which imports transformers, torchvision, scipy.signal and matplotlib for metrics
that this process does not use: half of the time to ``surefoot fit --help``. While lightning is first imported,
torchmetrics finds them absent; they stay importable for everybody else.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("without_optional_metrics",)

_SKIPPED = ("transformers", "torchvision", "scipy", "matplotlib")


@contextmanager
def without_optional_metrics() -> Iterator[None]:
    """Answer "absent" to questions about the skipped packages; does nothing once torchmetrics is loaded."""
    from lightning_utilities.core import imports

    if "torchmetrics" in sys.modules:
        yield
        return
    ask_requirement, ask_package = imports.RequirementCache.__bool__, imports.package_available
    importing = True

    def lean_requirement(self: imports.RequirementCache) -> bool:
        asked = self.requirement or self.module or ""
        return not asked.startswith(_SKIPPED) and ask_requirement(self)

    def lean_package(package_name: str) -> bool:  # modules keep this one; later it answers truly
        return not (importing and package_name in _SKIPPED) and ask_package(package_name)

    imports.RequirementCache.__bool__ = lean_requirement  # type: ignore[method-assign]
    imports.package_available = lean_package  # type: ignore[assignment]
    try:
        yield
    finally:
        importing = False
        imports.RequirementCache.__bool__ = ask_requirement  # type: ignore[method-assign]
        imports.package_available = ask_package
