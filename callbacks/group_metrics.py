"""Accuracy per group, the worst group, and what each model-selection rule would choose."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from surefoot.distributed import sum_over_ranks
from surefoot.errors import ConfigError
from surefoot.metrics import (
    SELECTION_RULES,
    GroupCounts,
    count_groups,
    mean_of_worst,
    select_checkpoints,
    shares_weighted_accuracy,
)

__all__ = ("GroupMetrics",)


class GroupMetrics(Callback):
    """Logs accuracies per group on every evaluated split and keeps their history.

    Logged per split: ``accuracy`` (each example once), ``train_weighted_accuracy`` (groups weighted by their training
    shares, the Waterbirds literature's average), ``worst_group_accuracy``, ``worst_<k>_group_accuracy``, ``worst_group``
    (its index) and ``group_accuracy/<name>``. A group that is empty in a split counts nowhere there; one warning
    names it.

    Attributes:
        history: One entry per evaluation during fit: epoch, step and every quantity above.
        selection: Rule -> the entry it chooses, see `SELECTION_RULES`. While a module says that its network is not
            yet the final one (``selectable``, as JTT's identification stage does), nothing can be chosen.
    """

    def __init__(self, worst_k: int = 2) -> None:
        """Initialize the callback.

        Args:
            worst_k: How many of the worst groups ``worst_<k>_group_accuracy`` averages.

        Raises:
            ConfigError: If it is below one.
        """
        if worst_k < 1:
            raise ConfigError(f"worst_k must be at least 1, got {worst_k}.")
        self.worst_k = worst_k
        self.history: list[dict[str, float]] = []
        self.counts: dict[str, GroupCounts] = {}
        self._running: dict[str, GroupCounts] = {}
        self._pending: dict[str, float] = {}
        self._warned: set[str] = set()

    @property
    def selection(self) -> dict[str, dict[str, float]]:
        """The history's entry that each selection rule chooses."""
        selectable = [entry for entry in self.history if entry["selectable"]]
        return {rule: dict(entry) for rule, entry in select_checkpoints(selectable).items()}

    def _count(self, trainer: Trainer, stage: str, outputs: Any, batch: Any, position: int) -> None:
        if "group" not in batch:
            raise ConfigError(
                "GroupMetrics needs a group per evaluated example and the batch has none."
            )
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        split = datamodule.evaluated(stage)[position]
        correct = outputs["logits"].argmax(1) == batch["target"]
        counts = count_groups(correct, batch["group"], datamodule.n_eval_groups)
        before = self._running.get(split)
        self._running[split] = (
            counts
            if before is None
            else GroupCounts(*(a + b for a, b in zip(before, counts, strict=True)))
        )

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = trainer.datamodule.train_eval_group_shares()  # type: ignore[attr-defined]
        names = trainer.datamodule.eval_group_names  # type: ignore[attr-defined]
        for split, running in self._running.items():
            counts = GroupCounts(*(sum_over_ranks(c).cpu() for c in running))
            self.counts[split] = counts
            self._warn_if_empty(split, names, counts)
            for name, value in self._quantities(counts, names, shares).items():
                key = f"{split}/{name}"
                self._pending[key] = float(value)
                pl_module.log(key, float(value), rank_zero_only=False, sync_dist=False)
        self._running = {}

    def _quantities(
        self, counts: GroupCounts, names: list[str], shares: Tensor
    ) -> dict[str, Tensor]:
        accuracy = counts.accuracy
        per_group = {
            f"group_accuracy/{name}": value
            for name, value in zip(names, accuracy, strict=True)
            if not value.isnan()
        }
        return {
            "accuracy": counts.sample_accuracy,
            "train_weighted_accuracy": shares_weighted_accuracy(accuracy, shares),
            "worst_group_accuracy": mean_of_worst(accuracy, 1),
            f"worst_{self.worst_k}_group_accuracy": mean_of_worst(accuracy, self.worst_k),
            "worst_group": accuracy.nan_to_num(torch.inf).argmin(),
            **per_group,
        }

    def _warn_if_empty(self, split: str, names: list[str], counts: GroupCounts) -> None:
        empty = [name for name, total in zip(names, counts.total, strict=True) if total == 0]
        if empty and split not in self._warned:
            self._warned.add(split)
            shown = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
            rank_zero_warn(
                f"{len(empty)} groups have no example in {split} and count nowhere there: {shown}"
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch's counts."""
        fitting = trainer.state.fn == "fit"
        self._count(trainer, "fit" if fitting else "validate", outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch's counts."""
        self._count(trainer, "test", outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the split's accuracies and remember them."""
        self._finish(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            entry = {
                "epoch": float(trainer.current_epoch),
                "step": float(trainer.global_step),
                "selectable": float(getattr(pl_module, "selectable", True)),
            }
            self.history.append(entry | self._pending)
        self._pending = {}

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the split's accuracies."""
        self._finish(trainer, pl_module)
        self._pending = {}

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``selection.csv``: rule, epoch, its accuracies, and the checkpoint where one monitors the rule's quantity."""
        if not trainer.default_root_dir or not self.selection or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        checkpoints = {
            c.monitor: c.best_model_path
            for c in trainer.checkpoint_callbacks
            if isinstance(c, ModelCheckpoint) and c.monitor is not None
        }
        columns = [c for c in self.history[-1] if c != "selectable"]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "selection.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["rule", *columns, "checkpoint"])
            for rule, entry in self.selection.items():
                values = [entry.get(column, "") for column in columns]
                writer.writerow([rule, *values, checkpoints.get(SELECTION_RULES[rule], "")])

    def state_dict(self) -> dict[str, Any]:
        """Return the history."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = state_dict["history"]
