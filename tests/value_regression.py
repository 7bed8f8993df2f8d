"""A method of a user's own on `LanguageModelModule`: a value after every token, learned from soft labels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import LanguageModelModule
from surefoot.reasoning.language_models import ValueHead
from surefoot.reasoning.sequences import Pack, PromptCompletion, pack_sequences
from surefoot.training.distributed import sum_over_ranks

__all__ = ("ValueRegression",)


class ValueRegression(LanguageModelModule):
    """Cross-entropy on a label at every token of a reference solution: whether the token is a digit.

    Only the hidden state of a token itself says so, that of the last token included.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Initialize the method.

        Args:
            kwargs: Arguments of `LanguageModelModule`.
        """
        super().__init__(**kwargs)
        self.language_model.freeze_output_head()
        self.value_head = ValueHead(self.language_model.width)

    def values(self, pack: Pack) -> Tensor:
        """Return the logit of each scored token's value, ``(scored,)``."""
        return self.value_head(pack.at_scored(self.language_model.hidden_states(pack)))

    def examples(self, batch: dict[str, Any]) -> tuple[list[Pack], list[Tensor]]:
        """Return a batch's packs and the labels of its sequences' tokens."""
        model = self.language_model
        texts = [(p.question, f"{p.solution}\n{p.answer}") for p in batch["problem"]]
        sequences = [PromptCompletion(model.encode(q), model.encode(s)) for q, s in texts]
        labels = [torch.tensor([float(model.decode([i]).isdigit()) for i in s.completion]) for s in sequences]
        return pack_sequences(sequences, self.max_tokens_per_pack, keep_last=True), labels

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take one step on a batch."""
        packs, labels = self.examples(batch)
        n_tokens = sum_over_ranks(torch.tensor(float(sum(len(y) for y in labels)), device=self.device))

        def loss(pack: Pack) -> Tensor:
            values = self.values(pack)
            return F.binary_cross_entropy_with_logits(values, pack.gather(labels), reduction="sum") / n_tokens

        self.log("train/loss", self.update(packs, loss), batch_size=1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss per token."""
        packs, labels = self.examples(batch)
        for pack in self.equalise_packs(packs):
            values = self.values(pack.to(self.device))
            loss = F.binary_cross_entropy_with_logits(values, pack.gather(labels).to(self.device))
            self.log("val/loss", loss, batch_size=len(values))
