"""Evaluation of scorers that others have trained, on solutions whose steps somebody has judged."""

from typing import Any

import torch
from lightning.pytorch import LightningModule

from lightning_modules.reasoning.judgements import JudgementMetrics
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.values import JudgedText, StepScorer, StepTexts

__all__ = ("StepScorerEvaluation",)


class StepScorerEvaluation(LightningModule):
    """Measures a public scorer of steps by the numbers of `ProcessReward`: it is tested, not trained.

    Reference: Zheng et al. 2024, arXiv 2412.06559 (ProcessBench).
    """

    def __init__(self, scorer: StepScorer) -> None:
        """Initialize the evaluation.

        Args:
            scorer: What is measured, such as StepClassifierValues.
        """
        super().__init__()
        self.scorer, self.metrics = scorer, JudgementMetrics()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the scores of held-out steps."""
        self._score(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the scores of the test's steps."""
        self._score(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return a row for each solution: its steps and their values."""
        given, values = self._values(batch)
        return [
            {"index": int(i), "steps": list(j.steps), "values": v}
            for i, j, v in zip(batch["index"], given, values, strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log how good the scores are."""
        self._conclude("val")

    def on_test_epoch_end(self) -> None:
        """Log how good the scores are."""
        self._conclude("test")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Refuse.

        Raises:
            ConfigError: In any case.
        """
        raise ConfigError("StepScorerEvaluation is not trained: use surefoot test, validate or predict.")

    def teardown(self, stage: str) -> None:
        """Free what the scorer holds beside this process."""
        self.scorer.close()

    def configure_optimizers(self) -> None:
        """Return none: there is nothing to train."""

    def _values(self, batch: dict[str, Any]) -> tuple[list[JudgedText], list[list[float]]]:
        """Return a batch's solutions, and the value after each of their steps."""
        given = list(batch["judged"])
        if not all(isinstance(j, JudgedText) for j in given):
            raise DataError(
                "a public scorer reads texts, and these completions are a policy's tokens: use ProcessBenchDataModule"
                " or another one of judged texts."
            )
        self.scorer.to(self.device)
        return given, self.scorer.judge([StepTexts(j.problem.question, j.steps, j.problem.id) for j in given])

    def _score(self, batch: dict[str, Any]) -> None:
        given, values = self._values(batch)
        rows = [
            (value, label, n, int(index), weight > 0, -1.0 if j.outcome is None else j.outcome)
            for index, j, own in zip(batch["index"], given, values, strict=True)
            for n, (value, label, weight) in enumerate(zip(own, j.values, j.weights, strict=True), 1)
            if label is not None
        ]
        if rows:
            self.metrics.update(
                *(torch.tensor(column, device=self.device).float() for column in zip(*rows, strict=True))
            )

    def _conclude(self, stage: str) -> None:
        found = self.metrics.conclude()
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()}, batch_size=1)
