"""How well the usual scores separate shifted sets from the one they are compared with."""

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from callbacks.evaluation import EvaluationObserver
from surefoot.contracts import EvaluatingModule, ExampleBatch, TrainPass, datamodule_as, module_as
from surefoot.errors import ConfigError
from surefoot.metrics.ood_detection import (
    ClassGaussians,
    energy_scores,
    fit_class_gaussians,
    fpr_at_tpr,
    knn_scores,
    mahalanobis_scores,
    max_softmax_scores,
)
from surefoot.metrics.recovery import roc_auc
from surefoot.training.distributed import gather_rows

__all__ = ("OODDetection",)


class OODDetection(EvaluationObserver):
    """AUROC and FPR95 of four scores, each shifted set against the first set of ``validate`` or ``test``.

    Scores: maximum softmax probability, energy, Mahalanobis distance and the k-th nearest neighbour, the last two on
    features of the training examples. For classifiers whose evaluation returns ``logits`` and ``features``. Logged:
    ``shift/<set>/auroc_<score>`` and ``shift/<set>/fpr95_<score>``; all in ``ood_detection.csv`` of the run folder.

    Attributes:
        results: One row per shifted set and score.
    """

    def __init__(self, n_training_examples: int = 5000, neighbour: int = 50) -> None:
        """Initialize the callback.

        Args:
            n_training_examples: How many of the first training examples are put through the network for their features.
            neighbour: Which nearest neighbour's distance is the score.

        Raises:
            ConfigError: If a number is below one.
        """
        if n_training_examples < 1 or neighbour < 1:
            raise ConfigError(
                f"n_training_examples and neighbour must be at least 1, got {n_training_examples} and {neighbour}."
            )
        super().__init__()
        self.n_training_examples, self.neighbour = n_training_examples, neighbour
        self.results: list[dict[str, object]] = []
        self._gaussians: ClassGaussians | None = None
        self._bank: Tensor | None = None
        self._scores: dict[str, list[dict[str, float]]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect training features, but not during fit."""
        if trainer.state.fn != "fit":
            self._collect(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect training features."""
        self._collect(trainer, pl_module)

    def _collect(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = module_as(pl_module, EvaluatingModule, "OODDetection")
        features, target, n_seen = [], [], 0
        data = datamodule_as(trainer, TrainPass, "OODDetection")
        n_mine = -(-self.n_training_examples // trainer.world_size)
        for batch in data.train_examples():
            with trainer.precision_plugin.forward_context():
                found = module.evaluation_step(batch)
            if "features" not in found or "logits" not in found:
                raise ConfigError("OODDetection needs a classifier whose evaluation returns logits and features.")
            features.append(found["features"].float())
            target.append(batch["target"])
            n_seen += len(batch["target"])
            if n_seen >= n_mine:
                break
        rows = torch.cat(features)[:n_mine], torch.cat(target)[:n_mine]
        pairs = gather_rows(list(zip(*(r.tolist() for r in rows), strict=True)))
        device = rows[0].device
        self._bank = torch.tensor([f for f, _ in pairs], device=device)
        labels = torch.tensor([t for _, t in pairs], device=device)
        self._gaussians = fit_class_gaussians(self._bank, labels, data.n_classes)
        self._scores = {}

    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Score a batch."""
        if self._bank is None or not isinstance(outputs, Mapping):
            return
        assert self._gaussians is not None
        logits, features = outputs["logits"].float(), outputs["features"].float()
        scores = {
            "max_softmax": max_softmax_scores(logits),
            "energy": energy_scores(logits),
            "mahalanobis": mahalanobis_scores(features, self._gaussians),
            "knn": knn_scores(features, self._bank, self.neighbour),
        }
        columns = [v.double().tolist() for v in scores.values()]
        self._scores.setdefault(split, []).extend(
            dict(zip(scores, row, strict=True)) for row in zip(*columns, strict=True)
        )

    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare each shifted set with the first."""
        if self._bank is None:
            return
        names = self.splits(trainer)
        rows = {n: gather_rows(self._scores.get(n, [])) for n in names}
        first = rows[names[0]]
        self.results = []
        for name in names[1:]:
            outside = torch.arange(len(first) + len(rows[name])) >= len(first)
            for score in first[0]:
                values = torch.tensor([row[score] for row in (*first, *rows[name])], dtype=torch.float64)
                auroc, fpr = roc_auc(values, outside), fpr_at_tpr(values, outside)
                found = {"auroc": float(auroc), "fpr95": float(fpr)}
                self.results.append({"set": name, "score": score, **found})
                for kind, value in found.items():
                    pl_module.log(f"shift/{name}/{kind}_{score}", value, rank_zero_only=False)
        self._bank = self._gaussians = None
        self._scores = {}
        self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        path = Path(trainer.default_root_dir) / "ood_detection.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["set", "score", "auroc", "fpr95"])
            writer.writeheader()
            writer.writerows(self.results)
