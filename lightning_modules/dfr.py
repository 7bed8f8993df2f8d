"""DFR: deep feature reweighting, or last-layer retraining on a balanced held-out set."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.classification import ClassifierModule
from surefoot.classification.last_layer import balanced_last_layer
from surefoot.classification.networks import Encoder
from surefoot.errors import ConfigError
from surefoot.training.distributed import gather_batch

__all__ = ("DFR",)


class DFR(ClassifierModule):
    """Keep a trained encoder and refit its last layer on group-balanced examples, by l1 logistic regression.

    One epoch over the training loader collects features, of each example once however often it is drawn;
    ``data.init_args.training.split: val`` makes the held-out set the one to fit on, as in the paper. The strength is
    chosen on half of it by the worst group's accuracy, then the layers fitted on several balanced subsets are averaged.

    Reference: Kirichenko et al., ICLR 2023, arXiv 2204.02937 (DFR with validation data).
    """

    needs_cross_entropy = True

    def __init__(
        self,
        encoder: Encoder,
        n_classes: int | None = None,
        n_subsets: int = 10,
        inverse_strengths: tuple[float, ...] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        seed: int | None = None,
    ) -> None:
        """Initialize DFR.

        Args:
            encoder: Trained network from inputs to features: a `CheckpointEncoder` with the weights of an ERM run,
                say, or a pretrained one.
            n_classes: Number of classes; filled in from the datamodule.
            n_subsets: Balanced subsets whose layers are averaged.
            inverse_strengths: Candidates for C, the inverse strength of the l1 penalty.
            seed: Seed of the subsets; the run's ``seed_everything`` by default, 0 outside the command line.

        Raises:
            ConfigError: If a count is unknown or too small.
        """
        super().__init__(encoder, optimizer=None, n_classes=n_classes)
        if n_subsets < 1 or not inverse_strengths:
            raise ConfigError(
                f"n_subsets must be at least 1 and inverse_strengths not empty, got {n_subsets} and"
                f" {inverse_strengths}."
            )
        self.automatic_optimization = False
        self.n_subsets, self.inverse_strengths, self.seed = n_subsets, inverse_strengths, seed or 0
        self.collected: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # features, target, group, index

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the features that the epoch has collected so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["collected"] = list(self.collected)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        self.collected = list(checkpoint.get("collected", ()))

    @torch.no_grad()
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collect a batch's features."""
        self.check_input(batch)
        if "group" not in batch:
            raise ConfigError(
                "DFR needs the groups of the held-out set: set data.init_args.training.group_labels to given."
            )
        self.network.eval()
        features = self.network(batch["input"])[1]
        self.collected.append(
            tuple(gather_batch(x).cpu() for x in (features.float(), batch["target"], batch["group"], batch["index"]))  # type: ignore[arg-type]
        )

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Refit after the last batch, which is before the epoch's evaluation."""
        if self.trainer.is_last_batch:
            self.refit()

    def refit(self) -> None:
        """Fit the last layer and put it on the encoder."""
        features, target, group, index = (
            np.concatenate([np.asarray(part[i]) for part in self.collected]) for i in range(4)
        )
        first = np.sort(np.unique(index, return_index=True)[1])
        self.collected.clear()
        head = self.network.head
        layer = balanced_last_layer(
            features[first],
            target[first],
            group[first],
            self.n_subsets,
            self.inverse_strengths,
            self.seed,
            head.out_features,
        )
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(layer.weight))
            head.bias.copy_(torch.from_numpy(layer.bias))
        self.log("train/inverse_strength", layer.inverse_strength)
        self.count_step()  # a checkpoint is written after a step

    def unfinished(self) -> str | None:
        """Return what is missing until the last layer is refitted."""
        missing = super().unfinished()
        if missing is None and self.trainer.global_step == 0:
            return (
                "the last layer was not refitted, which happens after an epoch's last batch: training was stopped"
                " before (trainer.max_epochs, max_time, or a callback)"
            )
        return missing
