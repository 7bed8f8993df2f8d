"""What ``fit``, ``validate``, ``test`` and ``predict`` show: a progress bar, the results, and no useless line."""

import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from surefoot.report.runs import read_metrics

__all__ = ("QuietProgressBar", "result_lines", "silence")

#: Lightning's lines that advertise, that repeat what is said already, or that are about what Surefoot sees to itself.
_USELESS = re.compile(
    r"💡 Tip|TPU available|HPU available|GPU available: False|Restoring states from|Restored all states"
    r"|`Trainer\.fit` stopped: `max_(epochs|steps)="
)
_USELESS_WARNINGS = (
    ".*LeafSpec.*",
    "Experiment logs directory .* exists and is not empty",  # `_set_aside_metrics` has moved its file
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    "The dirpath has changed from .*",
    "The '.*' does not have many workers",
    "Checkpoint directory .* exists and is not empty",
)
#: What is better when small; accuracies and the like are better when large, and of others no best is told.
_SMALLER = re.compile(r"loss|perplexity|error|nll")
_LARGER = re.compile(r"accuracy|reward|auroc|auc|r2")
_DETAIL = re.compile(r"group_accuracy/|worst_group$|_(low|high)$|accuracy_steps_|worst_\d+_group")


class _Useful(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is shown."""
        return not _USELESS.match(record.getMessage())


def silence() -> None:
    """Drop useless lines of Lightning; the rest, and all of Surefoot's, stay."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not any(isinstance(f, _Useful) for f in logger.filters):
        logger.addFilter(_Useful())
    for message in _USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _one_warning


def _one_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning without the line of code that gave it."""
    return f"warning: {message}\n"


class QuietProgressBar(RichProgressBar):
    """Lightning's bar without the logger's version and without a last epoch where there is none."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what the bar shows beside the rate."""
        items: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        items.pop("v_num", None)
        return {name.removeprefix("train/"): value for name, value in items.items()}

    def _get_train_description(self, current_epoch: int) -> str:
        text: str = super()._get_train_description(current_epoch)
        return re.sub(r"/-\d+", "", text)


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
