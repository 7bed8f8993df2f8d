"""DPO: direct preference optimisation, the reference's log-probabilities computed once."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightning_modules.reasoning.base import ReasoningModule
from surefoot.contracts import PairSource, RecordBatch, datamodule_as
from surefoot.errors import ConfigError
from surefoot.losses.preference import PreferenceKind, PreferenceLoss, check_preference, dpo_loss
from surefoot.reasoning.completions import PreferencePair, TextPair
from surefoot.reasoning.policy import Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Pack, PromptCompletion, pack_sequences
from surefoot.training.distributed import sum_over_ranks

__all__ = ("DPO",)


class DPO(ReasoningModule):
    """Prefers chosen over rejected continuations of a prompt, relative to the policy that training starts from.

    The two continuations of a pair share their prompt in a pack. The reference's log-probabilities of all pairs are
    computed before the first step and kept in the checkpoint; no second model is held.

    References: Rafailov et al., NeurIPS 2023; Azar et al. 2023, arXiv 2310.12036 (IPO).
    """

    reference_logprobs: Tensor
    val_reference_logprobs: Tensor

    def __init__(
        self, beta: float = 0.1, label_smoothing: float = 0.0, loss: PreferenceKind = "sigmoid", **kwargs: Any
    ) -> None:
        """Initialize the method.

        Args:
            beta: Strength of the implied KL penalty.
            label_smoothing: Assumed probability that a preference is the wrong way round; of the sigmoid loss only.
            loss: sigmoid (DPO), or ipo, which asks for a margin of 1 / (2 beta) nats and so does not drive a pair apart
                without end.
            kwargs: Arguments of `ReasoningModule`.

        Raises:
            ConfigError: If an argument is out of range.
        """
        check_preference(beta, label_smoothing, loss)
        super().__init__(**kwargs)
        self.beta, self.label_smoothing, self.kind = beta, label_smoothing, loss

    def setup(self, stage: str) -> None:
        """Allocate the reference's log-probabilities of every pair."""
        if stage != "fit":
            return
        source = datamodule_as(self.trainer, PairSource, "DPO")
        for split, name in (("train", "reference_logprobs"), ("val", "val_reference_logprobs")):
            self.register_buffer(name, torch.full((len(source.pairs(split)), 2), torch.nan))

    def on_train_start(self) -> None:
        """Compute the reference's log-probabilities, unless a checkpoint brought them."""
        super().on_train_start()
        if bool(self.reference_logprobs.isnan().any()):
            self._cache_reference()
        if self.global_step == 0:
            self._log_pairs()

    def _log_pairs(self) -> None:
        """Log how many pairs are trained on, and the mean step of their pits, where they have any."""
        pairs = datamodule_as(self.trainer, PairSource, "DPO").pairs("train")
        records = [pair.record for pair in pairs if isinstance(pair, PreferencePair)]
        steps = [record.pit.step for record in records if record is not None and record.pit is not None]
        values = {"train/pairs": float(len(pairs))} | ({"train/pit_step": fmean(steps)} if steps else {})
        for logger in self.loggers:
            logger.log_metrics(values, self.global_step)

    @torch.no_grad()
    def _cache_reference(self) -> None:
        source = datamodule_as(self.trainer, PairSource, "DPO")
        targets = {"train": self.reference_logprobs, "val": self.val_reference_logprobs}
        for split, target in targets.items():
            pairs = source.pairs(split)
            mine = range(self.global_rank, len(pairs), self.n_ranks)
            values = torch.zeros_like(target)
            for start in range(0, -(-len(pairs) // self.n_ranks), 64):  # as often on every rank
                chosen = list(mine[start : start + 64])
                for pack in self.equalise_packs(self._packs([pairs[i] for i in chosen])):
                    numbers, sums = self._pair_logprobs(pack.to(self.device))
                    values[[chosen[i] for i in numbers]] = sums.to(values)
            target.copy_(sum_over_ranks(values))

    def _packs(self, pairs: Sequence[PreferencePair | TextPair]) -> list[Pack]:
        """Return packs in which sequences 2i and 2i + 1 are pair i's chosen and rejected continuation."""
        sequences = [
            PromptCompletion(pair.prompt, side)
            for pair in map(self._tokens, pairs)
            for side in (pair.chosen, pair.rejected)
        ]
        return pack_sequences(sequences, self.max_tokens_per_pack, together=[i // 2 for i in range(len(sequences))])

    def _tokens(self, pair: PreferencePair | TextPair) -> PreferencePair:
        """Return a pair as token ids; texts become prompts and targets, token ids stay as they are."""
        if isinstance(pair, PreferencePair):
            return pair
        model, prompt = self.language_model, pair.prompt
        chosen, rejected = (
            self.prompt.target_ids(Problem("", prompt, "", text), model) for text in (pair.chosen, pair.rejected)
        )
        return PreferencePair(self.prompt.prompt_ids(Problem("", prompt, ""), model), chosen, rejected)

    def _pair_logprobs(self, pack: Pack) -> tuple[list[int], Tensor]:
        """Return the numbers of a pack's pairs and both continuations' summed log-probabilities, ``(pairs, 2)``."""
        logprobs = self.language_model.score(pack).logprobs
        numbers, rows = torch.unique(pack.sequences // 2, return_inverse=True)
        sums = logprobs.new_zeros(2 * len(numbers))
        sums = sums.index_add(0, 2 * rows + pack.sequences % 2, logprobs)
        return numbers.tolist(), sums.view(-1, 2)

    def _loss(self, logprobs: Tensor, reference: Tensor, label_smoothing: float = 0.0) -> PreferenceLoss:
        """Return the losses of pairs; arguments are ``(pairs, 2)``."""
        (chosen, rejected), (base_chosen, base_rejected) = logprobs.unbind(1), reference.unbind(1)
        return dpo_loss(chosen, rejected, base_chosen, base_rejected, self.beta, label_smoothing, self.kind)

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Take one step on a batch of pairs."""
        n_pairs = float(sum_over_ranks(torch.tensor(float(len(batch["pair"])))))
        watched = torch.zeros(8, device=self.device)

        def loss(pack: Pack) -> Tensor:
            nonlocal watched
            numbers, logprobs = self._pair_logprobs(pack)
            reference = self.reference_logprobs[batch["index"][numbers].to(self.device)]
            result = self._loss(logprobs, reference, self.label_smoothing)
            watched = watched + _watch(result, logprobs, reference, pack)
            return result.losses.sum() / n_pairs

        self.log("train/loss", self.update(self._packs(batch["pair"]), loss), batch_size=1, prog_bar=True)
        watched = sum_over_ranks(watched)
        sides = ("chosen", "rejected")
        names = ["reward_accuracy", "reward_margin"]
        names += [f"{side}_{of}" for of in ("logprob", "log_ratio", "tokens") for side in sides]
        for name, value in zip(names, watched / n_pairs, strict=True):
            self.log(f"train/{name}", value, batch_size=1)
        for side, ratio in zip(sides, watched[4:6] / watched[6:], strict=True):
            self.log(f"train/{side}_log_ratio_per_token", ratio, batch_size=1)

    def validation_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss and the share of pairs that are preferred rightly; evaluate problems by sampling."""
        self._evaluate(batch, "val")

    def test_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do the same on the test split; of pairs, on those held out."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: RecordBatch, stage: str) -> None:
        if "problem" in batch and self.engine is None:
            raise ConfigError("DPO evaluates problems by sampling: set model.init_args.engine, such as HFEngine.")
        self.evaluate_problems(batch, stage)
        if "pair" not in batch or bool(self.val_reference_logprobs.isnan().any()):
            return  # the sanity check comes before the reference is known
        if int(batch["index"].max()) >= len(self.val_reference_logprobs):
            raise ConfigError(
                f"the reference's log-probabilities of {len(self.val_reference_logprobs)} held-out pairs are known, and"
                " the data have more: evaluate on the pairs that the run held out (n_val, seed)."
            )
        for pack in self.equalise_packs(self._packs(batch["pair"])):
            numbers, logprobs = self._pair_logprobs(pack.to(self.device))
            reference = self.val_reference_logprobs[batch["index"][numbers].to(self.device)]
            result = self._loss(logprobs, reference)
            if (n := len(numbers)) == 0:
                continue
            right = (result.chosen_rewards > result.rejected_rewards).float().mean()
            for name, value in (("loss", result.losses.mean()), ("reward_accuracy", right)):
                self.log(f"{stage}/{name}", value, batch_size=n, sync_dist=True, add_dataloader_idx=False)

    def starts(self, batch: RecordBatch) -> list[Start]:
        """Return where answers begin: of pairs after their prompts, as problems without an answer."""
        if "pair" not in batch:
            return super().starts(batch)
        starts = []
        for group, (pair, index) in enumerate(zip(batch["pair"], batch["index"].tolist(), strict=True)):
            prompt = list(self._tokens(pair).prompt)
            text = pair.prompt if isinstance(pair, TextPair) else self.language_model.decode(prompt)
            starts.append(Start(Problem(f"pair-{index}", text, ""), group=group, prompt=prompt))
        return starts


def _watch(result: PreferenceLoss, logprobs: Tensor, reference: Tensor, pack: Pack) -> Tensor:
    """Return sums over a pack's pairs, ``(8,)``.

    They are of those preferred rightly and of margins, then of chosen and of rejected ones the log-probabilities, the
    log-ratios to the reference, and the tokens.
    """
    margins, logprobs = result.chosen_rewards - result.rejected_rewards, logprobs.detach()
    n_rejected = (pack.sequences % 2).sum()
    tokens = torch.stack([len(pack.sequences) - n_rejected, n_rejected])
    ratios = (logprobs - reference).sum(0)
    return torch.cat([torch.stack([(margins > 0).sum(), margins.sum()]), logprobs.sum(0), ratios, tokens])
