"""Import lightning without the optional packages that torchmetrics would pull in behind it.

Lightning imports all of torchmetrics, which imports transformers, torchvision, scipy.signal and matplotlib for metrics
that this process does not use: half of the time to ``surefoot fit --help``. While lightning is first imported,
torchmetrics is told that they are absent; they stay importable for everybody else.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("without_optional_metrics",)

_SKIPPED = ("transformers", "torchvision", "scipy", "matplotlib")


@contextmanager
def without_optional_metrics() -> Iterator[None]:
    """Answer "absent" to questions about the skipped packages; does nothing once torchmetrics is loaded."""
    from lightning_utilities.core.imports import RequirementCache

    if "torchmetrics" in sys.modules:
        yield
        return
    answer = RequirementCache.__bool__

    def lean(self: RequirementCache) -> bool:
        asked = self.requirement or self.module or ""
        return not asked.startswith(_SKIPPED) and answer(self)

    RequirementCache.__bool__ = lean  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = answer  # type: ignore[method-assign]
