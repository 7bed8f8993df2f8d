"""Process reward models: how likely a completion ends right, after each of its steps."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.aggregation import CatMetric

from lightning_modules.reasoning.language_model import LanguageModelModule
from surefoot.contracts import RecordBatch
from surefoot.reasoning.language_models import ValueHead
from surefoot.reasoning.metrics.judgements import (
    brier_score,
    calibration_error,
    first_error,
    first_errors,
    ranking,
)
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.sequences import Pack, pack_sequences
from surefoot.reasoning.values import (
    Judged,
    JudgedText,
    judged_sequence,
    predicted_values,
    tokenised,
    value_logits,
)
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

    def __init__(self, prompt: Prompt | None = None, **kwargs: Any) -> None:
        """Initialize the method.

        Args:
            prompt: How problems are put before solutions that come as text; by default PlainPrompt. Stored completions
                have their own prompts.
            kwargs: Arguments of `LanguageModelModule`.
        """
        super().__init__(**kwargs)
        self.prompt = prompt or PlainPrompt()
        self.language_model.freeze_output_head()
        self.value_head = ValueHead(self.language_model.width)
        # of every judged prefix of an evaluation
        self.predicted, self.labels, self.steps = CatMetric(), CatMetric(), CatMetric()
        self.completions = CatMetric()  # the index of each prefix's completion

    def judged(self, batch: RecordBatch) -> list[Judged]:
        """Return a batch's completions, texts among them as the model's tokens."""
        model, prompt = self.language_model, self.prompt
        return [tokenised(j, model, prompt) if isinstance(j, JudgedText) else j for j in batch["judged"]]

    def packs(self, judged: Sequence[Judged]) -> list[Pack]:
        """Return a batch's packs."""
        sequences = [judged_sequence(j.prompt, j.completion, j.n_tokens) for j in judged]
        return pack_sequences(sequences, self.max_tokens_per_pack, keep_last=True)

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Take one step on a batch."""
        judged = self.judged(batch)
        labels, weights = _by_token(judged, "values"), _by_token(judged, "weights")
        total = sum_over_ranks(torch.tensor(float(sum(sum(j.weights) for j in judged)), device=self.device))

        def loss(pack: Pack) -> Tensor:
            logits = value_logits(self.language_model, self.value_head, pack)
            return F.binary_cross_entropy_with_logits(
                logits, pack.gather(labels), pack.gather(weights), reduction="sum"
            ) / total.clamp(min=1e-12)

        self.log("train/loss", self.update(self.packs(judged), loss), batch_size=1, prog_bar=True)

    def validation_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Keep what is predicted of the held-out prefixes."""
        self._predict(batch)

    def test_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Keep what is predicted of the test prefixes."""
        self._predict(batch)

    def predict_step(self, batch: RecordBatch, batch_idx: int) -> list[dict[str, object]]:
        """Return a row for each completion: its text, the lengths of its prefixes in tokens and their values."""
        judged = self.judged(batch)
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

    def _predict(self, batch: RecordBatch) -> None:
        judged = self.judged(batch)
        labels, steps = _by_token(judged, "values"), _by_token(judged, "n_steps")
        for pack in self.equalise_packs(self.packs(judged)):
            logits = value_logits(self.language_model, self.value_head, pack.to(self.device))
            if len(logits):
                self.predicted.update(logits.sigmoid())
                self.labels.update(pack.gather(labels))
                self.steps.update(pack.gather(steps))
                self.completions.update(batch["index"].to(pack.sequences.device)[pack.sequences])

    def _conclude(self, stage: str) -> None:
        metrics = (self.predicted, self.labels, self.steps, self.completions)
        predicted, labels, steps, completions = (metric.compute().double().cpu().flatten() for metric in metrics)
        for metric in metrics:
            metric.reset()
        loss = F.binary_cross_entropy(predicted, labels)
        found = {"loss": float(loss), "calibration_error": calibration_error(predicted, labels)}
        for name, chosen in {"": steps >= 0, **_by_step(steps)}.items():
            if chosen.any():
                found[f"brier{name}"] = brier_score(predicted[chosen], labels[chosen])
                found[f"auroc{name}"] = ranking(predicted[chosen], labels[chosen])
        found |= _first_errors(predicted, labels, steps, completions)
        self.log_dict({f"{stage}/{n}": value for n, value in found.items() if not math.isnan(value)}, batch_size=1)


def _first_errors(predicted: Tensor, labels: Tensor, steps: Tensor, completions: Tensor) -> dict[str, float]:
    """Return how often the first step that is worth less than 1/2 is the one that is predicted to be.

    Nothing where no completion has such a step, or all have, or completions are judged once.
    """
    owners, owner = completions.unique(return_inverse=True)
    order = steps.argsort()
    order = order[owner[order].argsort(stable=True)]  # completion by completion, step by step
    order = order[steps[order] > 0]
    sizes = owner[order].bincount(minlength=len(owners)).tolist()
    found = [first_error(own.tolist(), 0.5) for own in predicted[order].split(sizes)]
    truth = [first_error(own.tolist(), 0.5) for own in labels[order].split(sizes)]
    wrong = sum(t >= 0 for t in truth)
    if wrong in (0, len(truth)) or len(labels) < 2 * len(truth):
        return {}
    scores = first_errors(torch.tensor(found), torch.tensor(truth))
    return {f"first_error_{name}": value for name, value in scores._asdict().items()}


def _by_step(steps: Tensor) -> dict[str, Tensor]:
    """Return which prefixes have so many finished steps."""
    names = {f"_after_{n}": steps == n for n in range(_MOST_STEPS)}
    return names | {f"_after_{_MOST_STEPS}_or_more": steps >= _MOST_STEPS}


def _by_token(judged: Sequence[Judged], name: Literal["values", "weights", "n_steps"]) -> list[Tensor]:
    """Return a number for the prompt's last token and each of the completion's; 0 where nothing is judged.

    Args:
        judged: Completions.
        name: Field of `Judged` that has the numbers.
    """
    found = []
    for j in judged:
        numbers = torch.zeros(len(j.completion) + 1)
        numbers[list(j.n_tokens)] = torch.tensor([float(v) for v in getattr(j, name)])
        found.append(numbers)
    return found
