"""What Lightning does differently under Surefoot's command line; nothing changes before a function here is called.

The only file of the core, beside the command line's, that imports Lightning.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichModelSummary, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

__all__ = (
    "QuietModelSummary",
    "QuietProgressBar",
    "callbacks_of",
    "is_fast_dev_run",
    "is_first_process",
    "log_short_runs",
    "quiet_screen",
    "requeues",
    "tell_batches_from_shares",
)

#: Lightning's lines that advertise, that repeat what is said already, or that are about what Surefoot sees to itself.
_USELESS = re.compile(
    r"💡 Tip|TPU available|HPU available|GPU available: False|Restoring states from|Restored all states"
    r"|`Trainer\.fit` stopped: `max_(epochs|steps)=|Loading `\w+` to estimate number of stepping batches"
    r"|`Trainer\((limit_\w+_batches|val_check_interval|overfit_batches)=[\d.]+\)` was configured"
    r"|Trainer already configured with model summary callbacks"
)
_USELESS_WARNINGS = (
    ".*LeafSpec.*",
    "Experiment logs directory .* exists and is not empty",  # the command line has moved its file
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    "The dirpath has changed from .*",
    "The '.*' does not have many workers",
    "Checkpoint directory .* exists and is not empty",
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # `log_short_runs`
    "`LightningModule.configure_optimizers` returned `None`",  # DFR and PrivateLinear train by methods of their own
)


def is_first_process() -> bool:
    """Return whether this process is the one that writes and prints, also before there is a trainer."""
    return getattr(rank_zero_only, "rank", 0) == 0


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Return whether a trainer only tries a few batches; Lightning sets this where type checkers do not see it."""
    return bool(vars(trainer)["fast_dev_run"])


def callbacks_of(trainer: Trainer) -> Sequence[Callback]:
    """Return a trainer's callbacks; Lightning sets them where type checkers do not see it."""
    found: Sequence[Callback] = vars(trainer)["callbacks"]
    return found


def tell_batches_from_shares() -> None:
    """Let ``limit_val_batches: 1`` be one batch, whatever was imported before.

    Lightning writes ``Optional[Union[int, float]]``; Python's typing caches that by its set of members, so that an
    earlier ``Optional[Union[float, int]]`` anywhere makes the parser try float first, and 1 batch become 1.0, the whole
    split.
    """
    names = (*(f"limit_{n}_batches" for n in ("train", "val", "test", "predict")), "overfit_batches")
    given: object = Trainer.__init__
    while given is not None:
        for name in names:
            if name in given.__annotations__:
                optional = type(None) in getattr(given.__annotations__[name], "__args__", ())
                given.__annotations__[name] = int | float | None if optional else int | float
        given = getattr(given, "__wrapped__", None)


def _is_useful(record: logging.LogRecord) -> bool:
    """Return whether a line is shown."""
    return not _USELESS.match(record.getMessage())


@contextmanager
def quiet_screen() -> Iterator[None]:
    """Drop useless lines of Lightning, and the code below warnings; afterwards all is shown again."""
    logger, shown = logging.getLogger("lightning.pytorch.utilities.rank_zero"), warnings.formatwarning
    logger.addFilter(_is_useful)
    with warnings.catch_warnings():
        for message in _USELESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        warnings.formatwarning = _one_warning
        try:
            yield
        finally:
            warnings.formatwarning = shown
            logger.removeFilter(_is_useful)


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
        items: dict[str, object] = dict(super().get_metrics(trainer, pl_module))
        items.pop("v_num", None)
        return {name.removeprefix("train/"): value for name, value in items.items()}

    def _get_train_description(self, current_epoch: int) -> str:
        text: str = super()._get_train_description(current_epoch)
        return re.sub(r"/-\d+", "", text)


class QuietModelSummary(RichModelSummary):
    """Lightning's table of a model's parts and a line of totals, without operations that nothing has counted."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: object,
    ) -> None:
        """Print the parts' names, types and parameters; the size is in MB."""
        from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
        from rich import get_console
        from rich.table import Table

        columns = dict(summary_data)
        table = Table("Name", "Type")
        table.add_column("Parameters", justify="right")
        for row in zip(columns["Name"], columns["Type"], columns["Params"], strict=True):
            table.add_row(*row)
        trainable, total = map(get_human_readable_count, (trainable_parameters, total_parameters))
        get_console().print(table, f"{trainable} of {total} parameters are trained; {model_size:.3g} MB", sep="\n")


def requeues(trainer: Trainer) -> bool:
    """Return whether Lightning writes a checkpoint and asks SLURM for another start where SIGUSR1 announces the end."""
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, SLURMEnvironment) and environment.auto_requeue


def log_short_runs(trainer: Trainer) -> None:
    """Let a run that has fewer batches than ``log_every_n_steps`` log its last step; otherwise it would log none."""
    epochs, steps = trainer.max_epochs or 0, trainer.max_steps
    ends = [n for n in (trainer.num_training_batches * epochs, steps) if n > 0]
    trainer.log_every_n_steps = int(min([trainer.log_every_n_steps, *ends]))  # type: ignore[attr-defined]
