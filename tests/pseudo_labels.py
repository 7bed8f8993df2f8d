"""A method of a user's own on two streams, and what of them it has been shown."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.classification import ClassifierModule

__all__ = ("PseudoLabels", "StreamRecorder", "read_streams", "two_streams")


class PseudoLabels(ClassifierModule):
    """Cross-entropy on labelled images, and on strong views of unlabelled ones with the classes of their weak views."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Return the sum of both losses."""
        examples = self.run_network(batch["labelled"])
        with torch.no_grad():
            pseudo_labels = self(batch["unlabelled"]["weak"]).argmax(1)
        of_unlabelled = F.cross_entropy(self(batch["unlabelled"]["strong"]), pseudo_labels)
        loss = self.check_finite(examples.losses.mean() + of_unlabelled)
        return self.finish_step(loss, examples, torch.full_like(examples.losses, 1 / len(examples.losses)))


class StreamRecorder(Callback):
    """Writes what each step of a rank has shown: ``seen_<rank>.jsonl`` in the run folder."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step: its epoch, and the indices and entries of each stream."""
        seen = {name: {"index": part["index"].tolist(), "entries": sorted(part)} for name, part in batch.items()}
        path = Path(trainer.default_root_dir) / f"seen_{trainer.global_rank}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps({"epoch": trainer.current_epoch, "step": trainer.global_step, **seen}) + "\n")


def read_streams(run: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Return the steps that a rank has recorded, a step that was repeated after a kill in its last form."""
    steps = [json.loads(line) for line in (run / f"seen_{rank}.jsonl").read_text().splitlines()]
    return list({step["step"]: step for step in steps}.values())


def two_streams(n_ranks: int = 1, augmented: bool = True) -> dict[str, Any]:
    """Return the data of a config: labelled digits beside more, unlabelled ones, in two views."""
    strong = {"class_path": "ShiftFlip", "init_args": {"padding": 1}}
    views = {"weak": {"class_path": "Flip"} if augmented else None, "strong": strong if augmented else None}
    labelled = {"batch_size": 52 // n_ranks, "training": {"sampling": "group_subsampled"}}
    unlabelled = {"batch_size": 136 // n_ranks, "confounding": None}
    unlabelled |= {"augmentation": {"class_path": "Views", "init_args": {"views": views}}}
    streams = {"labelled": labelled, "unlabelled": unlabelled}
    given = {n: {"class_path": "DigitsDataModule", "init_args": s | {"seed": 0}} for n, s in streams.items()}
    return {
        "class_path": "TwoStreamDataModule",
        "init_args": {"streams": given, "without_targets": ["unlabelled"], "epoch_of": "unlabelled"},
    }
