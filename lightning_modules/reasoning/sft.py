"""SFT: supervised fine-tuning on reference solutions or chosen completions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.reasoning.base import ReasoningModule
from surefoot.contracts import RecordBatch
from surefoot.errors import DataError
from surefoot.reasoning.sequences import Pack, PromptCompletion, pack_sequences
from surefoot.training.distributed import sum_over_ranks

__all__ = ("SFT",)


class SFT(ReasoningModule):
    """Maximises the log-probability of completions given their prompts, per token over the whole batch on all ranks.

    Dropout is as the model's configuration and the adapters have it.
    """

    trains_with_dropout = True

    #: Why no step had a sequence to learn from.
    nothing_to_learn_from = "every example has more tokens than max_sequence_tokens: raise it"

    def __init__(self, max_sequence_tokens: int | None = None, **kwargs: Any) -> None:
        """Initialize the method.

        Args:
            max_sequence_tokens: Examples with more tokens are left out, not cut; all are kept by default.
            kwargs: Arguments of `ReasoningModule`.
        """
        super().__init__(**kwargs)
        self.max_sequence_tokens = max_sequence_tokens
        self._n_fine_tuned = 0  # sequences of all steps and ranks

    def sequences(self, batch: RecordBatch) -> list[PromptCompletion]:
        """Return a batch's prompts and targets as token ids.

        Raises:
            DataError: If a problem has no reference solution.
        """
        if "completion" in batch:
            pairs = zip(batch["prompt"], batch["completion"], strict=True)
            return [PromptCompletion(p, c) for p, c in pairs]
        sequences = []
        for problem in batch["problem"]:
            if not problem.solution:
                raise DataError(f"the problem {problem.id} has no reference solution: SFT needs one for each.")
            model = self.language_model
            sequences.append(
                PromptCompletion(self.prompt.prompt_ids(problem, model), self.prompt.target_ids(problem, model))
            )
        return sequences

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Take one step on a batch."""
        sequences = self.sequences(batch)
        self.fine_tune([s for s in sequences if self.is_kept(s)], len(sequences))

    def is_kept(self, sequence: PromptCompletion) -> bool:
        """Return whether a sequence is short enough to be trained on."""
        limit = self.max_sequence_tokens
        return limit is None or len(sequence.prompt) + len(sequence.completion) <= limit

    def fine_tune(
        self, sequences: list[PromptCompletion], n_before: int, token_weights: Sequence[Tensor] | None = None
    ) -> None:
        """Take one step on sequences.

        Args:
            sequences: This rank's sequences, possibly none.
            n_before: How many there were before some were left out.
            token_weights: Of each sequence, what the log-probabilities of its completion's tokens are multiplied with
                before the mean over tokens is taken, ``(completion,)``; 1 by default.
        """
        packs = pack_sequences(sequences, self.max_tokens_per_pack)
        n_local = torch.tensor(
            [sum(len(p.targets) for p in packs), len(sequences), n_before],
            dtype=torch.float64,
            device=self.device,
        )
        n_tokens, n_kept, n_all = (float(n) for n in sum_over_ranks(n_local))
        self._n_fine_tuned += int(n_kept)

        def loss(pack: Pack) -> Tensor:
            weights = torch.full((len(pack.targets),), -1 / max(1.0, n_tokens), device=self.device)
            if token_weights:  # none where this rank has no sequence
                weights = weights * pack.gather(token_weights)
            return self.language_model.weighted_logprob_sum(pack, weights)

        self.log("train/loss", self.update(packs, loss), batch_size=1, prog_bar=True)
        self.log("train/tokens", n_tokens, batch_size=1)
        self.log("train/share_kept", n_kept / max(1.0, n_all), batch_size=1)

    def unfinished(self) -> str | None:
        """Return what is missing until the model was fine-tuned on something."""
        missing = super().unfinished()
        return self.nothing_to_learn_from if missing is None and not self._n_fine_tuned else missing

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the number of sequences that the model was fine-tuned on."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["n_fine_tuned"] = self._n_fine_tuned

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of sequences."""
        super().on_load_checkpoint(checkpoint)
        self._n_fine_tuned = checkpoint.get("n_fine_tuned", 0)

    def validation_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss on reference solutions, if any, and evaluate by sampling where there is an engine."""
        self._log_loss(batch, "val")
        self.evaluate_problems(batch, "val")

    def test_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do the same on the test split."""
        self._log_loss(batch, "test")
        self.evaluate_problems(batch, "test")

    def _log_loss(self, batch: RecordBatch, stage: str) -> None:
        if "problem" in batch and not all(p.solution for p in batch["problem"]):
            return
        packs = self.equalise_packs(pack_sequences(self.sequences(batch), self.max_tokens_per_pack))
        n_tokens = sum(len(p.targets) for p in packs)
        total = sum(-self.language_model.score(p.to(self.device)).logprobs.sum() for p in packs)
        loss = total / n_tokens
        self.log(f"{stage}/loss", loss, batch_size=n_tokens, sync_dist=True, add_dataloader_idx=False)
