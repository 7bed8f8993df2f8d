"""How a classifier learns its training examples, and which it forgets."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from surefoot.contracts import ExampleBatch, TrainExamples, datamodule_as
from surefoot.errors import ConfigError
from surefoot.metrics.example_dynamics import ExampleHistory, empty_history, observe_examples
from surefoot.training.distributed import gather_batch

__all__ = ("ExampleDynamics",)


class ExampleDynamics(Callback):
    """Follows confidence, correctness and forgetting of every training example as it is presented, at no forward pass.

    For any module whose training step returns ``logits (batch, classes)`` and batches with ``target`` and ``index``.
    Logged at each epoch's end, as means over the examples seen: ``dynamics/confidence``, ``dynamics/variability``,
    ``dynamics/correctness``, ``dynamics/forgetting_events``, ``dynamics/share_never_learned``. At the end of training
    ``example_dynamics.csv`` is written into the run folder, one example a row.

    Reference: Swayamdipta et al. 2020; Toneva et al. 2019.

    Attributes:
        history: What has been seen of each example; none before the first batch.
    """

    def __init__(self) -> None:
        """Initialize the callback."""
        self.history: ExampleHistory | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise a `ConfigError` if the data do not number their training examples."""
        self._data(trainer)

    def _data(self, trainer: Trainer) -> TrainExamples:
        return datamodule_as(trainer, TrainExamples, type(self).__name__)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: ExampleBatch, batch_idx: int
    ) -> None:
        """Take note of a batch.

        Raises:
            ConfigError: If the module or the data does not fit.
        """
        if not isinstance(outputs, dict) or "logits" not in outputs:
            raise ConfigError(
                f"ExampleDynamics reads the logits that a training step returns; {type(pl_module).__name__} returns"
                " none."
            )
        if self.history is None:
            self.history = empty_history(self._data(trainer).n_train)
        logits, target = outputs["logits"].float(), batch["target"]
        confidences = logits.softmax(1).gather(1, target[:, None])[:, 0]
        self.history = observe_examples(
            self.history,
            gather_batch(batch["index"]),
            gather_batch(confidences),
            gather_batch(logits.argmax(1) == target),
            trainer.current_epoch,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over the examples that have been seen."""
        if self.history is None:
            return
        seen = self.history.n_seen > 0
        values = {
            "confidence": self.history.confidence,
            "variability": self.history.variability,
            "correctness": self.history.correctness,
            "forgetting_events": self.history.n_forgotten.double(),
            "share_never_learned": (self.history.first_learned < 0).double(),
        }
        for name, value in values.items():
            pl_module.log(f"dynamics/{name}", value[seen].mean().float(), rank_zero_only=False)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``example_dynamics.csv``."""
        if self.history is None:
            return
        h = self.history
        path = Path(trainer.default_root_dir) / "example_dynamics.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = ("index", "n_seen", "confidence", "variability", "correctness")
        columns = (
            h.n_seen,
            h.confidence,
            h.variability,
            h.correctness,
            h.n_forgotten,
            h.first_learned,
        )
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*names, "forgetting_events", "first_learned_epoch"])
            for i, row in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
                writer.writerow([i, *(f"{v:.6g}" if isinstance(v, float) else v for v in row)])

    def state_dict(self) -> dict[str, object]:
        """Return the history."""
        return {"history": None if self.history is None else self.history._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history."""
        given = state_dict["history"]
        self.history = None if given is None else ExampleHistory(**given)
