"""Process reward models: how likely a completion ends right, after each of its steps."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.reasoning.judgements import JudgementMetrics
from lightning_modules.reasoning.language_model import LanguageModelModule
from surefoot.contracts import RecordBatch, datamodule_of, offers
from surefoot.errors import DataError
from surefoot.reasoning.language_models import ValueHead
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.sequences import Pack, pack_sequences
from surefoot.reasoning.values import (
    Judged,
    JudgedText,
    LabelSource,
    judged_sequence,
    predicted_values,
    prompt_template,
    tokenised,
    value_logits,
)
from surefoot.training.distributed import sum_over_ranks

__all__ = ("ProcessReward",)


class _LabelledData(Protocol):
    """A datamodule of judged completions."""

    def judged(self, split: str) -> Sequence[Judged | JudgedText]:
        """Return those of a split."""
        ...

    def prover(self) -> str:
        """Return the settings of what the labels were sampled with, as JSON; empty where they are not a prover's."""
        ...


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
        self.metrics = JudgementMetrics()

    def judged(self, batch: RecordBatch) -> list[Judged]:
        """Return a batch's completions, texts among them as the model's tokens.

        Raises:
            DataError: If the completions are a policy's with another tokenizer.
        """
        given = batch["judged"]
        model, prompt = self.language_model, self.prompt
        for j in given:
            if isinstance(j, Judged) and not (written := model.decode(j.completion)).startswith(j.text):
                raise DataError(
                    f"the labels are of a policy with another tokenizer: the model reads {written[:40]!r} from a"
                    f" completion that is {j.text[:40]!r}; train a model with the policy's tokenizer."
                )
        return [tokenised(j, model, prompt) if isinstance(j, JudgedText) else j for j in given]

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
        labels, steps, weights = (_by_token(judged, name) for name in ("values", "n_steps", "weights"))
        outcomes = torch.tensor([-1.0 if j.outcome is None else j.outcome for j in judged], device=self.device)
        for pack in self.equalise_packs(self.packs(judged)):
            logits = value_logits(self.language_model, self.value_head, pack.to(self.device))
            indices, ends = (of.to(pack.sequences.device)[pack.sequences] for of in (batch["index"], outcomes))
            given = pack.gather(labels), pack.gather(steps), indices
            self.metrics.update(logits.sigmoid(), *given, pack.gather(weights) > 0, ends)

    def label_source(self) -> LabelSource:
        """Return whose labels the model learns from: the prompt of the training completions, and what labelled them."""
        data = datamodule_of(self.trainer)
        if not offers(data, _LabelledData):
            return LabelSource()
        model, train = self.language_model, data.judged("train")
        prompts = [
            (j.problem.question, model.decode(self.prompt.prompt_ids(j.problem, model)))
            if isinstance(j, JudgedText)
            else (j.question, model.decode(j.prompt))
            for j in train[:: max(1, len(train) // 100)]
        ]
        template = prompt_template(prompts)
        if template is None and all(question.strip() and question.strip() in text for question, text in prompts):
            rank_zero_warn(
                "the training completions were sampled after several prompts: LearnedValues will judge completions"
                " after any."
            )
        return LabelSource(template, data.prover())

    def _conclude(self, stage: str) -> None:
        found = self.metrics.conclude()
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()}, batch_size=1)


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
