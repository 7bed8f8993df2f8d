"""Process reward models: how likely a completion ends right, after each of its steps."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.aggregation import CatMetric

from lightning_modules.reasoning.language_model import LanguageModelModule
from surefoot.reasoning.language_models import ValueHead
from surefoot.reasoning.metrics.judgements import brier_score, calibration_error, ranking
from surefoot.reasoning.sequences import Pack, pack_sequences
from surefoot.reasoning.values import Judged, judged_sequence, predicted_values, value_logits
from surefoot.training.distributed import sum_over_ranks

__all__ = ("ProcessReward",)

#: Steps whose metrics are logged apart; later ones are counted together.
_MOST_STEPS = 5


class ProcessReward(LanguageModelModule):
    """Learns values of prefixes from soft labels, by cross-entropy: all prefixes of a completion in one forward pass.

    What it becomes depends on the labels: of the last step only, an outcome reward model; of every step, a value model,
    from whose differences `surefoot.reasoning.values.LearnedValues` and a credit assigner make process advantages; of
    every token, a model of bi-level returns.

    References: Cobbe et al. 2021, arXiv 2110.14168; Wang et al. 2024, arXiv 2312.08935; Setlur et al. 2024, arXiv
    2410.08146, appendix D.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Initialize the method.

        Args:
            kwargs: Arguments of `LanguageModelModule`.
        """
        super().__init__(**kwargs)
        self.language_model.freeze_output_head()
        self.value_head = ValueHead(self.language_model.width)
        # of every judged prefix of an evaluation
        self.predicted, self.labels, self.steps = CatMetric(), CatMetric(), CatMetric()

    def packs(self, judged: Sequence[Judged]) -> list[Pack]:
        """Return a batch's packs."""
        sequences = [judged_sequence(j.prompt, j.completion, j.n_tokens) for j in judged]
        return pack_sequences(sequences, self.max_tokens_per_pack, keep_last=True)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take one step on a batch."""
        judged: Sequence[Judged] = batch["judged"]
        labels, weights = _by_token(judged, "values"), _by_token(judged, "weights")
        total = sum_over_ranks(torch.tensor(float(sum(sum(j.weights) for j in judged)), device=self.device))

        def loss(pack: Pack) -> Tensor:
            logits = value_logits(self.language_model, self.value_head, pack)
            return F.binary_cross_entropy_with_logits(
                logits, pack.gather(labels), pack.gather(weights), reduction="sum"
            ) / total.clamp(min=1e-12)

        self.log("train/loss", self.update(self.packs(judged), loss), batch_size=1, prog_bar=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep what is predicted of the held-out prefixes."""
        self._predict(batch["judged"])

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep what is predicted of the test prefixes."""
        self._predict(batch["judged"])

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return a row for each completion: its text, the lengths of its prefixes in tokens and their values."""
        judged: Sequence[Judged] = batch["judged"]
        lengths = [j.n_tokens for j in judged]
        found = predicted_values(self.language_model, self.value_head, self.equalise_packs(self.packs(judged)), lengths)
        return [
            {"index": int(i), "completion": self.language_model.decode(j.completion), "n_tokens": list(n), "values": v}
            for i, j, n, v in zip(batch["index"], judged, lengths, found, strict=True)
        ]

    def on_validation_epoch_end(self) -> None:
        """Log how good the predictions are."""
        self._conclude("val")

    def on_test_epoch_end(self) -> None:
        """Log how good the predictions are."""
        self._conclude("test")

    def _predict(self, judged: Sequence[Judged]) -> None:
        labels = _by_token(judged, "values")
        steps = _by_token(judged, "n_tokens", range(10**6))
        for pack in self.equalise_packs(self.packs(judged)):
            logits = value_logits(self.language_model, self.value_head, pack.to(self.device))
            if len(logits):
                self.predicted.update(logits.sigmoid())
                self.labels.update(pack.gather(labels))
                self.steps.update(pack.gather(steps))

    def _conclude(self, stage: str) -> None:
        metrics = (self.predicted, self.labels, self.steps)
        predicted, labels, steps = (metric.compute().double().cpu().flatten() for metric in metrics)
        for metric in metrics:
            metric.reset()
        loss = F.binary_cross_entropy(predicted, labels)
        found = {"loss": float(loss), "calibration_error": calibration_error(predicted, labels)}
        for name, chosen in {"": steps >= 0, **_by_step(steps)}.items():
            if chosen.any():
                found[f"brier{name}"] = brier_score(predicted[chosen], labels[chosen])
                found[f"auroc{name}"] = ranking(predicted[chosen], labels[chosen])
        self.log_dict({f"{stage}/{n}": value for n, value in found.items() if not math.isnan(value)}, batch_size=1)


def _by_step(steps: Tensor) -> dict[str, Tensor]:
    """Return which prefixes have so many finished steps."""
    names = {f"_after_{n}": steps == n for n in range(_MOST_STEPS)}
    return names | {f"_after_{_MOST_STEPS}_or_more": steps >= _MOST_STEPS}


def _by_token(judged: Sequence[Judged], name: str, of_prefix: Sequence[int] | None = None) -> list[Tensor]:
    """Return a number for the prompt's last token and each of the completion's; 0 where nothing is judged.

    Args:
        judged: Completions.
        name: Field of `Judged` that has the numbers.
        of_prefix: Numbers of the first, second, ... prefix, in place of the field's.
    """
    found = []
    for j in judged:
        numbers = torch.zeros(len(j.completion) + 1)
        given = getattr(j, name) if of_prefix is None else of_prefix[: len(j.n_tokens)]
        numbers[list(j.n_tokens)] = torch.tensor([float(v) for v in given])
        found.append(numbers)
    return found
