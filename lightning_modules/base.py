"""What every module of Surefoot shares: exact resumption and a stop at the first non-finite loss."""

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from surefoot.contracts import TrainExamples, datamodule_as
from surefoot.errors import ConfigError, NonFiniteLossError
from surefoot.training.distributed import is_distributed
from surefoot.training.loading import ResumableLoader
from surefoot.training.precision import watch_updates
from surefoot.training.random_state import RandomState, gather_random_states, restore_random_state

__all__ = ("ResumableModule", "with_schedule")


class ResumableModule(LightningModule):
    """Saves every rank's random state, restores it, and refuses to go on from a NaN.

    An epoch is resumed after the examples that optimizer steps have used, in batches of any size on any number of
    ranks. Between two steps of accumulated gradients one rank saves the gradients too; several ranks go back to the
    last step.

    On a GPU the loss is looked at every ``trainer.log_every_n_steps`` steps and before every checkpoint, so that
    training never waits for it; on a CPU, at every step. No checkpoint with a non-finite loss behind it is written.
    """

    _random_states: list[RandomState] | None = None
    _finite: Tensor | None = None
    _accumulation: dict[str, Any] | None = None
    _example_buffers: tuple[str, ...] = ()

    def check_finite(self, loss: Tensor) -> Tensor:
        """Return the loss; raise if it, or one since the last look, is NaN or infinite.

        Args:
            loss: Scalar training loss.

        Raises:
            NonFiniteLossError: If a loss was not finite.
        """
        finite = loss.detach().isfinite()
        self._finite = finite if self._finite is None else self._finite & finite
        if loss.device.type == "cpu" or self._is_logging_step():
            self._raise_if_not_finite()
        return loss

    def _is_logging_step(self) -> bool:
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return self.global_step % max(1, interval) == 0

    def _raise_if_not_finite(self) -> None:
        if self._finite is not None and not self._finite:
            raise NonFiniteLossError(
                f"the training loss is NaN or infinite at epoch {self.current_epoch}, optimizer step"
                f" {self.global_step}: check the inputs for NaN, or lower the learning rate."
            )

    def first_stage(self) -> tuple[str, int] | None:
        """Return the setting that gives the length of a first stage, and it, in epochs; none where there is one stage.

        A run that ends within it is not the method's: see `unfinished`.
        """
        return None

    def unfinished(self) -> str | None:
        """Return what is missing, after training has ended, until the method has done what its settings say.

        Returns:
            What, and what to do about it; none if nothing is.
        """
        self._raise_if_not_finite()
        stage = self.first_stage()
        if stage is None or self.trainer.current_epoch > stage[1]:
            return None
        return (
            f"training ended after {self.trainer.current_epoch} epochs and the first stage takes {stage[1]}"
            f" ({stage[0]}): raise trainer.max_epochs, max_steps or max_time, or let EarlyStopping stop later"
        )

    def _check_first_stage(self) -> None:
        """Raise a `ConfigError` where the trainer's limits end training within the first stage."""
        stage, trainer = self.first_stage(), self.trainer
        if stage is None:
            return
        name, n_epochs = stage
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= n_epochs:
            raise ConfigError(
                f"trainer.max_epochs is {trainer.max_epochs} and must exceed {name}, {n_epochs}: it counts both stages."
            )
        if trainer.max_steps < 0 or trainer.num_training_batches == float("inf"):
            return
        n_steps = n_epochs * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        if trainer.max_steps <= n_steps:
            raise ConfigError(
                f"trainer.max_steps is {trainer.max_steps} and must exceed {n_steps}, the steps of {name}, {n_epochs}:"
                " it counts both stages."
            )

    def on_train_start(self) -> None:
        """Restore the random state of a resumed run, after everything before the first batch has drawn from it.

        Also watch whether updates of weights in half precision are large enough to change them.
        """
        self._check_first_stage()
        for optimizer in self.trainer.optimizers:
            watch_updates(optimizer)
        if self._random_states is not None:
            rank = self.global_rank
            if rank < len(self._random_states):
                restore_random_state(self._random_states[rank])
            self._random_states = None
        self._resume_epoch()

    def _resume_epoch(self) -> None:
        """Take up accumulated gradients, and count the resumed epoch's batches in batches of the present size."""
        loader, loop = self.trainer.train_dataloader, self.trainer.fit_loop.epoch_loop
        saved, self._accumulation = self._accumulation, None
        if not loop.restarting or not isinstance(loader, ResumableLoader):
            return
        progress: Any = loop.batch_progress
        n_batches = int(self.trainer.num_training_batches)
        finished = progress.is_last_batch and progress.current.processed == progress.current.ready
        if saved is not None and not finished:
            now = (loader.n_examples_per_batch, self.trainer.accumulate_grad_batches)
            if now == (saved["n_examples_per_batch"], saved["accumulate_grad_batches"]):
                for name, parameter in self.named_parameters():
                    if name in saved["gradients"]:
                        parameter.grad = saved["gradients"][name].to(parameter)
            else:  # the next step will be of other examples
                loader.rewind(saved["n_batches"], saved["n_examples_per_batch"])
        counted = progress.current.completed + loop.restarted_on_train_batch_end
        done = n_batches if finished else min(n_batches, loader.n_resumed_batches)
        for kind in ("ready", "started", "processed", "completed"):
            now_done = getattr(progress.current, kind) + done - counted
            setattr(progress.current, kind, now_done)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add every rank's random state, and what has been done since the last optimizer step."""
        self._raise_if_not_finite()
        checkpoint["random_states"] = gather_random_states()
        loader = self.trainer.train_dataloader
        if self.automatic_optimization and isinstance(loader, ResumableLoader):
            self._save_accumulation(checkpoint, loader)

    def _save_accumulation(self, checkpoint: dict[str, Any], loader: ResumableLoader) -> None:
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        n_batches = progress.current.processed % self.trainer.accumulate_grad_batches
        n_begun = progress.current.ready - progress.current.processed  # in the middle of a step
        if progress.is_last_batch and not n_begun:  # which takes a step in any case
            return
        if n_batches and not n_begun and not is_distributed():
            checkpoint["accumulation"] = {
                "n_batches": n_batches,
                "n_examples_per_batch": loader.n_examples_per_batch,
                "accumulate_grad_batches": self.trainer.accumulate_grad_batches,
                "gradients": {n: p.grad.clone() for n, p in self.named_parameters() if p.grad is not None},
            }
        else:
            states = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
            states[0] = loader.state_before(states[0], n_batches + n_begun)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep random states and accumulated gradients for `on_train_start`; register what only ``fit`` registers."""
        self._random_states = checkpoint.get("random_states")
        self._accumulation = checkpoint.get("accumulation")
        self._make_room(checkpoint.get("state_dict", {}))

    def _make_room(self, state: Mapping[str, Any]) -> None:
        """Register what ``setup("fit")`` registers (state per example), so that evaluation needs no training data.

        Raises:
            ConfigError: If training goes on with another number of examples.
        """
        fitting = self._trainer is not None and self._trainer.state.fn == "fit"
        known = {n for n, _ in (*self.named_buffers(recurse=False), *self.named_parameters(recurse=False))}
        for name, value in state.items():
            if "." in name:
                continue
            if not fitting and name not in known:
                self.register_buffer(name, torch.empty_like(value))
            elif fitting and name in self._example_buffers and len(value) != self.train_size():
                raise ConfigError(
                    f"the checkpoint keeps {name} of {len(value)} training examples and the data have"
                    f" {self.train_size()}: training goes on with the data that it began with."
                )

    def count_step(self) -> None:
        """Let Lightning count an optimizer step, as it does when an optimizer of its own steps."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    @property
    def n_ranks(self) -> int:
        """Number of processes that train together."""
        return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

    def train_size(self) -> int:
        """Return the number of training examples.

        Raises:
            ConfigError: If the trainer was given dataloaders instead of a datamodule.
        """
        return datamodule_as(self.trainer, TrainExamples, f"{type(self).__name__} (state per training example)").n_train

    def register_example_buffer(self, name: str, fill: float | bool) -> None:
        """Register one value per training example, to be called in ``setup("fit")``; resumed runs keep theirs.

        Args:
            name: Name of the buffer.
            fill: Value before the example was first seen; its type is the buffer's.
        """
        dtype = torch.bool if isinstance(fill, bool) else torch.float32
        self._example_buffers = (*self._example_buffers, name)
        self.register_buffer(name, torch.full((self.train_size(),), fill, dtype=dtype))


@runtime_checkable
class _Monitoring(Protocol):
    """A schedule that names what it waits for, as Lightning's ReduceLROnPlateau does and torch's does not."""

    monitor: str


def with_schedule(optimizer: Optimizer, schedule: LRSchedulerCallable | None) -> OptimizerLRScheduler:
    """Return what ``configure_optimizers`` has to: an optimizer, and its schedule with what that monitors.

    Args:
        optimizer: The optimizer.
        schedule: Makes its learning-rate schedule; none for a constant rate.

    Raises:
        ConfigError: If the schedule waits for a plateau and does not say of what.
    """
    if schedule is None:
        return optimizer
    scheduler = schedule(optimizer)
    if not isinstance(scheduler, ReduceLROnPlateau):
        return [optimizer], [scheduler]
    if not isinstance(scheduler, _Monitoring):
        raise ConfigError(
            "ReduceLROnPlateau needs the name of what it monitors: class_path: lightning.pytorch.cli.ReduceLROnPlateau,"
            " init_args: {monitor: val/accuracy, mode: max}."
        )
    waiting = {"scheduler": scheduler, "monitor": scheduler.monitor}
    return [optimizer], [waiting]  # type: ignore[return-value]  # Lightning takes a dict where its types do not say so
