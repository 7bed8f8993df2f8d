"""How a method's example weights are spread over the true groups and the mislabelled examples."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from surefoot.contracts import ExampleBatch, TrainAnnotations, datamodule_as
from surefoot.metrics import precision_recall_of_top, roc_auc
from surefoot.training.distributed import gather_batch

__all__ = ("ExampleWeightMonitor",)


class ExampleWeightMonitor(Callback):
    """Follows the weight of every training example, for BR-DRO and any method that reweights or resamples.

    The weight is relative to uniform weights (1 for ERM) and multiplied with how often the example was drawn in the
    epoch, so that JTT's upsampling shows too. Logged under ``example_weights/`` at each epoch's end:
    ``group_mean/<name>``, ``minority_auc``, ``minority_precision`` and ``minority_recall`` (of as many top-weighted
    examples as there are minority examples), and the same for ``noisy`` labels where the datamodule has them. Groups
    and noise come from ``datamodule.train_annotations()``, never from the batch: they may be hidden from the method.

    Attributes:
        weights: Total relative weight of each training example in the last whole epoch, ``(examples,)``.
    """

    def __init__(self) -> None:
        """Initialize the callback."""
        self.weights: Tensor | None = None
        self._running: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise a `ConfigError` if the data do not know their training examples."""
        self._data(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: ExampleBatch, batch_idx: int
    ) -> None:
        """Add the batch's weights."""
        if not isinstance(outputs, dict) or "weights" not in outputs:
            return
        weights, index = gather_batch(outputs["weights"]), gather_batch(batch["index"])
        if self._running is None:
            self._running = weights.new_zeros(self._data(trainer).n_train)
        self._running = self._running.to(weights).index_add(0, index, weights)

    def _data(self, trainer: Trainer) -> TrainAnnotations:
        return datamodule_as(trainer, TrainAnnotations, type(self).__name__)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how the epoch's weights were spread."""
        if self._running is None:
            return
        # Rounded, so that weights that differ by floating-point error alone are ties.
        self.weights, self._running = self._running.cpu().round(decimals=4), None
        annotations, names = self._data(trainer).train_annotations(), self._data(trainer).group_names
        group = annotations.pop("group")
        for value in group.unique().tolist():
            mean = self.weights[group == value].mean()
            pl_module.log(f"example_weights/group_mean/{names[value]}", mean, rank_zero_only=False)
        for name, member in annotations.items():
            if member.any() and not member.all():
                top = precision_recall_of_top(self.weights, member, int(member.sum()))
                pl_module.log(f"example_weights/{name}_auc", roc_auc(self.weights, member).float())
                pl_module.log(f"example_weights/{name}_precision", top.precision.float())
                pl_module.log(f"example_weights/{name}_recall", top.recall.float())

    def state_dict(self) -> dict[str, object]:
        """Return the weights of the last and the running epoch."""
        return {"weights": self.weights, "running": self._running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the weights."""
        self.weights, self._running = state_dict["weights"], state_dict["running"]
        if self._running is not None:
            self._running = torch.as_tensor(self._running)
