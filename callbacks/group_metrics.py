"""Accuracy per group, the worst group, and what each model-selection rule would choose."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from callbacks.evaluation import EvaluationObserver, logits_of
from surefoot.compatibility.lightning import is_fast_dev_run
from surefoot.contracts import EvaluatedGroups, ExampleBatch, StagedTraining, datamodule_as, offers
from surefoot.errors import ConfigError
from surefoot.metrics import (
    SELECTION_RULES,
    GroupCounts,
    count_groups,
    mean_of_worst,
    select_checkpoints,
    shares_weighted_accuracy,
)
from surefoot.training.distributed import sum_over_ranks

__all__ = ("GroupMetrics",)


class GroupMetrics(EvaluationObserver):
    """Logs accuracies per group on every evaluated split and keeps their history.

    Logged per split: ``accuracy`` (each example once), ``train_weighted_accuracy`` (groups weighted by their training
    shares, the Waterbirds literature's average), ``worst_group_accuracy``, ``worst_<k>_group_accuracy``,
    ``worst_group`` (its index) and ``group_accuracy/<name>``. A group that is empty in a split counts nowhere there;
    one warning names it. ``group_sizes.csv`` in the run folder lists how many examples of each group were evaluated.

    Attributes:
        history: One entry per evaluation during fit: epoch, step and every quantity above.
        selection: Rule -> the entry it chooses, see `SELECTION_RULES`. While a module reports that its network is not
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
        super().__init__()
        self.worst_k = worst_k
        self.history: list[dict[str, float]] = []
        self.counts: dict[str, GroupCounts] = {}
        self._running: dict[str, GroupCounts] = {}
        self._warned: set[str] = set()

    @property
    def selection(self) -> dict[str, dict[str, float]]:
        """The history's entry that each selection rule chooses."""
        selectable = [entry for entry in self.history if entry["selectable"]]
        return {rule: dict(entry) for rule, entry in select_checkpoints(selectable).items()}

    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Add a batch's counts; sets without labels or groups, such as another dataset, are left out.

        Raises:
            ConfigError: If the batch has no groups, or the module returned no logits.
        """
        if not self._has_groups(trainer, split):
            return
        if "group" not in batch:
            raise ConfigError("GroupMetrics needs a group per evaluated example and the batch has none.")
        correct = logits_of(outputs, "GroupMetrics").argmax(1) == batch["target"]
        counts = count_groups(correct, batch["group"], len(self._groups(trainer).eval_group_names))
        before = self._running.get(split)
        self._running[split] = (
            counts if before is None else GroupCounts(*(a + b for a, b in zip(before, counts, strict=True)))
        )

    def _has_groups(self, trainer: Trainer, split: str) -> bool:
        assert trainer.state.fn is not None
        stage = trainer.state.fn.value
        return self._groups(trainer).evaluation_set(stage, split).eval_group is not None

    def _groups(self, trainer: Trainer) -> EvaluatedGroups:
        return datamodule_as(trainer, EvaluatedGroups, "GroupMetrics")

    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the splits' accuracies and, during fit, keep them."""
        groups = self._groups(trainer)
        shares, names = groups.train_eval_group_shares(), groups.eval_group_names
        entry = {
            "epoch": float(trainer.current_epoch),
            "step": float(trainer.global_step),
            "selectable": float(not offers(pl_module, StagedTraining) or pl_module.selectable),
        }
        none = torch.zeros(0, dtype=torch.long, device=pl_module.device)
        for split in self.splits(trainer):  # on a rank that saw no example too
            if not self._has_groups(trainer, split):
                continue
            running = self._running.get(split) or count_groups(none.bool(), none, len(names))
            counts = GroupCounts(*(sum_over_ranks(c).cpu() for c in running))
            self.counts[split] = counts
            self._warn_if_empty(split, names, counts)
            for name, value in self._quantities(counts, names, shares).items():
                key = f"{split}/{name}"
                entry[key] = float(value)
                pl_module.log(key, float(value), rank_zero_only=False, sync_dist=False)
        self._running = {}
        if trainer.state.fn == "fit":
            self.history.append(entry)

    def _quantities(self, counts: GroupCounts, names: list[str], shares: Tensor) -> dict[str, Tensor]:
        accuracy = counts.accuracy
        per_group = {
            f"group_accuracy/{name}": value for name, value in zip(names, accuracy, strict=True) if not value.isnan()
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
            rank_zero_warn(f"{len(empty)} groups have no example in {split} and count nowhere there: {shown}")

    @rank_zero_only
    def _write_sizes(self, trainer: Trainer) -> None:
        """Write ``group_sizes.csv``: split, group, examples that were evaluated."""
        if not self.counts or not trainer.default_root_dir or is_fast_dev_run(trainer):
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "group_sizes.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "group", "size"])
            for split, counts in self.counts.items():
                sizes = zip(self._groups(trainer).eval_group_names, counts.total.tolist(), strict=True)
                writer.writerows([split, name, int(size)] for name, size in sizes)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the groups' sizes."""
        self._write_sizes(trainer)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``selection.csv`` (rule, epoch, accuracies, the checkpoint that monitors its quantity) and sizes."""
        self._write_sizes(trainer)
        if not trainer.default_root_dir or not self.selection or is_fast_dev_run(trainer):
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

    def state_dict(self) -> dict[str, object]:
        """Return the history."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = state_dict["history"]
