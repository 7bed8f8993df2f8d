"""The lines that end a fit."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from surefoot.report.runs import read_metrics

__all__ = ("result_lines",)

#: What is better when small; accuracies and the like are better when large, of others no best is shown.
_SMALLER = re.compile(r"loss|perplexity|error|nll")
_LARGER = re.compile(r"accuracy|reward|auroc|auc|r2")
_DETAIL = re.compile(r"group_accuracy/|worst_group$|_(low|high)$|accuracy_steps_|worst_\d+_group")


def result_lines(folder: Path, epochs: int, steps: int, last: Mapping[str, float]) -> list[str]:
    """Return the end of a fit in a line or two.

    Args:
        folder: The run folder; the best values come from its ``metrics.csv``, where it has one.
        epochs: Epochs done.
        steps: Optimizer steps done.
        last: Logged name -> last value.
    """
    names = [n for n in last if n.startswith("val/") and not _DETAIL.search(n)] or [
        n for n in last if n.startswith("train/") and _SMALLER.search(n)
    ]
    logged = read_metrics(folder)
    shown = []
    for name in sorted(names, key=_importance)[:3]:
        text = f"{name} {last[name]:.4g}"
        best = _best(name, logged.get(name, []), last[name])
        shown.append(text if best is None else f"{text} (best {best:.4g})")
    first = f"finished: {epochs} epoch{'s' * (epochs != 1)}, {steps} optimizer steps: {folder}"
    return [first, *([", ".join(shown)] if shown else [])]


def _importance(name: str) -> tuple[int, str]:
    order = ("val/worst_group_accuracy", "val/accuracy", "val/loss")
    return (order.index(name) if name in order else len(order), name)


def _best(name: str, values: Sequence[float], last: float) -> float | None:
    """Return the best of all values, none where it is the last or where there is no telling."""
    finite = [v for v in values if math.isfinite(v)]
    if len(finite) < 2 or not (_LARGER.search(name) or _SMALLER.search(name)):
        return None
    best = max(finite) if _LARGER.search(name) else min(finite)
    return None if math.isclose(best, last, rel_tol=1e-6) else best
