"""Stops training at the end of a step when the process is asked to end, with a checkpoint to go on from."""

import signal
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from surefoot.cli.interruption import Interrupted, pending_signal, postpone, take_signals
from surefoot.compatibility.lightning import is_fast_dev_run, requeues

__all__ = ("SafeStop", "SavingStop")


class SafeStop(Callback):
    """Lets a signal wait for the end of the optimizer step and ends the run, which writes no checkpoints."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals wait; Lightning's own handler would end the run with code 0."""
        if not requeues(trainer):  # there, SIGTERM follows a checkpoint and is to be passed over
            take_signals(signal.SIGTERM)
        postpone(True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after a whole optimizer step; after an epoch's last one, the epoch's end comes first."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between epochs."""
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals wait no longer."""
        postpone(False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let signals wait no longer."""
        postpone(False)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        signum = pending_signal()
        if not trainer.strategy.reduce_boolean_decision(signum is not None, all=False):
            return
        self.save(trainer)
        raise Interrupted(signal.SIGTERM if signum is None else signum)

    def save(self, trainer: Trainer) -> None:
        """Save what the run goes on from: nothing."""


class SavingStop(SafeStop, Checkpoint):
    """Lets a signal wait for the end of the optimizer step, writes a checkpoint, and ends the run.

    Lightning runs checkpoint callbacks after all others and, at an epoch's end, after the module: what is saved is
    complete. It refuses them where ``trainer.enable_checkpointing`` is false.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Initialize the callback.

        Args:
            checkpoint: Where to write.
        """
        self.checkpoint = checkpoint

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, unless the run is a trial."""
        if not is_fast_dev_run(trainer):
            trainer.save_checkpoint(self.checkpoint)
