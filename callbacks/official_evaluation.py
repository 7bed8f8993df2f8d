"""Scores of a benchmark's own evaluator, and predictions in its leaderboard's format."""

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from callbacks.evaluation import EvaluationObserver, check_seen, logits_of
from surefoot.contracts import ExampleBatch, OfficialScores, datamodule_as
from surefoot.training.distributed import sum_over_ranks

__all__ = ("OfficialEvaluation",)


class OfficialEvaluation(EvaluationObserver):
    """Logs ``<split>/official/<name>`` from WILDS' evaluators and writes WILDS' submission files.

    After ``validate`` or ``test``, the predictions go to
    ``predictions/<dataset>_split:<split>_seed:<seed>_epoch:best_pred.csv`` in the run folder: one predicted class a
    line, in the split's order. Of a split that was evaluated in part (``limit_test_batches`` and the like) the examples
    that were seen are scored, with a warning, and no file is written.
    """

    of_a_part = "the official numbers are theirs alone, and no submission file is written"

    def __init__(self, seed: int | None = None) -> None:
        """Initialize the callback.

        Args:
            seed: Seed of the run, for the file name; its ``seed_everything`` by default.
        """
        super().__init__()
        self.seed = seed or 0
        self._predictions: dict[str, Tensor] = {}

    def _official(self, trainer: Trainer) -> OfficialScores:
        return datamodule_as(trainer, OfficialScores, "OfficialEvaluation")

    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Keep a batch's predictions on an official split."""
        if split not in self._official(trainer).splits:
            return
        predicted = logits_of(outputs, "OfficialEvaluation").argmax(1)
        counted = torch.stack([torch.ones_like(predicted), predicted])
        self._of(trainer, split, predicted.device).index_add_(1, batch["index"], counted)

    def _of(self, trainer: Trainer, split: str, device: torch.device) -> Tensor:
        """Return how often this rank has seen each example of a split, and its predicted class, ``(2, examples)``."""
        if split not in self._predictions:
            n_examples = len(self._official(trainer).splits[split].target)
            self._predictions[split] = torch.zeros(2, n_examples, dtype=torch.long, device=device)
        return self._predictions[split]

    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score each split; after ``validate`` or ``test`` write its predictions if it was evaluated as a whole.

        Raises:
            DataError: If an example was evaluated twice.
        """
        official = self._official(trainer)
        for split in (s for s in self.splits(trainer) if s in official.splits):
            n_seen, predictions = sum_over_ranks(self._of(trainer, split, pl_module.device)).cpu()
            seen = check_seen(n_seen, split)
            if not seen.any():
                continue
            scores = official.official_evaluation(split, predictions, seen)
            for name, value in scores.items():
                pl_module.log(f"{split}/official/{name}", value, rank_zero_only=False)
            if trainer.state.fn != "fit" and seen.all():
                self._write(trainer, split, predictions)
        self._predictions = {}

    @rank_zero_only
    def _write(self, trainer: Trainer, split: str, predictions: Tensor) -> None:
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        start = self._official(trainer).submission_name(split)
        lines = "".join(f"{label}\n" for label in predictions.tolist())
        (folder / f"{start}_seed:{self.seed}_epoch:best_pred.csv").write_text(lines)
