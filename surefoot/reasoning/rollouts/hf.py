"""The reference engine: the model itself, on whatever device it is; no second copy of the weights."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.check import trial_of
from surefoot.reasoning.language_models.forward import score_pack
from surefoot.reasoning.rollouts.engine import (
    Completion,
    RolloutEngine,
    Sampling,
)
from surefoot.reasoning.sequences import PromptCompletion, TokenScores
from surefoot.training.distributed import is_sharded
from surefoot.training.modes import evaluation_mode
from surefoot.training.seeds import derive_seed

__all__ = ("CachedDecoding", "HFEngine", "sampling_distribution")

#: Nats that a log-probability with a cache may differ from one without, in float32.
_TOLERANCE = 1e-3


class HFEngine(RolloutEngine):
    """Samples with the training model's own weights through transformers' forward pass.

    Each prompt is encoded once, however many completions it gets. Finished sequences leave the batch. Randomness is one
    stream of uniform numbers per completion, so that a completion does not depend on its neighbours. Where a family's
    forward pass with a cache differs from that without, or its positions depend on the longest sequence, there is no
    cache.
    """

    def __init__(self, max_sequences: int = 256) -> None:
        """Initialize the engine.

        Args:
            max_sequences: Completions that are sampled at once.
        """
        self.max_sequences = max_sequences
        self._model: LanguageModel | None = None

    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Sample from this very model from now on.

        Raises:
            ConfigError: If its weights are sharded over ranks.
        """
        if is_sharded(model):
            raise ConfigError(
                "HFEngine samples with the training model itself, whose weights are sharded here: use VLLMEngine or"
                " VLLMServerEngine with FSDP."
            )
        self._model = model
        self._cached = model.path.packed
        if self._cached and model.checked and (reason := _difference_by_cache(model)):
            self._cached = False
            warnings.warn(
                f"{model.base.config.model_type} is sampled without a cache, which is right but slower: {reason}.",
                stacklevel=2,
            )
        self.begin(model, version)

    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Sample completions, those together whose samplings are alike."""
        assert self._model is not None
        results: list[list[Completion]] = [[] for _ in prompts]
        with evaluation_mode(self._model):
            for chosen in self._batches(prompts, samplings):
                batch = [prompts[i] for i in chosen]
                limits = [samplings[i].max_tokens for i in chosen]
                sampled = self._batch(self._model, batch, samplings[chosen[0]], limits, [seeds[i] for i in chosen])
                for i, completions in zip(chosen, sampled, strict=True):
                    results[i] = completions
        return results

    def _batches(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Iterator[list[int]]:
        """Yield the positions of prompts that are sampled together: alike but for their budgets of tokens."""
        alike: dict[Sampling, list[int]] = {}
        for i, sampling in enumerate(samplings):
            alike.setdefault(replace(sampling, max_tokens=1), []).append(i)
        for sampling, members in alike.items():
            # Prompts of like length go together, so that little is padded.
            order = sorted(members, key=lambda i: len(prompts[i]))
            per_batch = max(1, self.max_sequences // sampling.n)
            yield from (order[start : start + per_batch] for start in range(0, len(order), per_batch))

    @torch.no_grad()
    def _batch(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        limits: Sequence[int],
        seeds: Sequence[int],
    ) -> list[list[Completion]]:
        """Sample completions of prompts that have one sampling but for their budgets, ``limits``, in tokens."""
        device, n = model.device, sampling.n
        rope_limit, lengths = model.path.rope_limit, [len(p) for p in prompts]
        longest = max(a + b for a, b in zip(lengths, limits, strict=True))
        alike = rope_limit is None or longest <= rope_limit or min(lengths) > rope_limit
        decode = CachedDecoding if self._cached and alike else _PlainDecoding
        decoding = decode(model.base, prompts, n, device)
        budgets = [limit for limit in limits for _ in range(n)]
        uniforms = torch.zeros(len(budgets), max(limits), dtype=torch.float64)
        for i, budget in enumerate(budgets):
            generator = torch.Generator().manual_seed(derive_seed(seeds[i // n], i % n))
            uniforms[i, :budget] = torch.rand(budget, dtype=torch.float64, generator=generator)
        stops = set(sampling.stop_token_ids)
        sampled: list[list[int]] = [[] for _ in range(len(prompts) * n)]
        scores: list[list[float]] = [[] for _ in sampled]
        reasons: list[Literal["stop", "length"]] = ["length"] * len(sampled)
        alive = list(range(len(sampled)))
        while alive:
            step = len(sampled[alive[0]])
            chosen, logprobs = _choose(decoding.logits, sampling, uniforms[alive, step].to(device))
            going: list[int] = []
            for row, (i, token, logprob) in enumerate(zip(alive, chosen.tolist(), logprobs.tolist(), strict=True)):
                sampled[i].append(token)
                scores[i].append(logprob)
                if token in stops or _ends_with_stop(model, sampled[i], sampling.stop):
                    reasons[i] = "stop"
                elif step + 1 < budgets[i]:
                    going.append(row)
            alive = [alive[row] for row in going]
            if alive:
                decoding.append(going, chosen[torch.tensor(going, device=device)])
        completions = [Completion(t, s, r, self.version) for t, s, r in zip(sampled, scores, reasons, strict=True)]
        return [completions[i : i + n] for i in range(0, len(completions), n)]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights in that are not the model's own already; with adapters they always are."""
        assert self._model is not None
        if self._model.lora is not None:
            return
        own = dict(self._model.base.state_dict(keep_vars=True))
        with torch.no_grad():
            for name, tensor in weights:
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)

    def close(self) -> None:
        """Let go of the model."""
        self._model, self.started = None, False


class CachedDecoding:
    """Sequences that grow together: prompts padded on the left, keys and values kept."""

    def __init__(self, base: Any, prompts: Sequence[Sequence[int]], n: int, device: torch.device) -> None:
        """Encode the prompts.

        Args:
            base: A causal language model of transformers.
            prompts: Token ids of each prompt.
            n: Sequences that begin with each.
            device: Where the model is.
        """
        longest = max(len(p) for p in prompts)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        mask = mask.to(device)
        output = base(
            input_ids=tokens.to(device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        self.base, self.cache = base, output.past_key_values
        #: Of the next tokens, ``(sequences, vocabulary)``; each prompt's n sequences follow one another.
        self.logits: Tensor = output.logits[:, -1].repeat_interleave(n, 0)
        #: Of the next tokens, ``(sequences,)``.
        self.positions = mask.sum(1).repeat_interleave(n, 0)
        self._mask = mask.repeat_interleave(n, 0)
        if n > 1:
            self.cache.batch_repeat_interleave(n)

    def append(self, rows: Sequence[int], tokens: Tensor) -> None:
        """Go on with some of the sequences and a token for each of them."""
        if len(rows) < len(self._mask):
            chosen = torch.tensor(rows, device=tokens.device)
            self.cache.batch_select_indices(chosen)
            self._mask, self.positions = self._mask[chosen], self.positions[chosen]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], 1)
        self.logits = self.base(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.positions = self.positions + 1


class _PlainDecoding:
    """The same one sequence at a time, without padding and cache: for models that keep more than keys and values."""

    def __init__(self, base: Any, prompts: Sequence[Sequence[int]], n: int, device: torch.device) -> None:
        self.base, self._device = base, device
        self._sequences = [list(p) for p in prompts]
        self.logits = self._next().repeat_interleave(n, 0)
        self._sequences = [list(p) for p in prompts for _ in range(n)]

    def _next(self) -> Tensor:
        rows = (torch.tensor([s], device=self._device) for s in self._sequences)
        return torch.stack([self.base(input_ids=r, use_cache=False).logits[0, -1] for r in rows])

    def append(self, rows: Sequence[int], tokens: Tensor) -> None:
        """Go on with some of the sequences and a token for each of them."""
        pairs = zip(rows, tokens.tolist(), strict=True)
        self._sequences = [[*self._sequences[row], token] for row, token in pairs]
        self.logits = self._next()


def _difference_by_cache(model: LanguageModel) -> str | None:
    """Return how sampling with a cache differs from the trainer's log-probabilities; None where it does not."""
    with trial_of(model.base) as (trial, examples), torch.no_grad():
        sequences = [s for s in examples.sequences for _ in range(2)]
        try:
            found = _cached_scores(trial, examples.sequences, sequences)
        except Exception as error:  # noqa: BLE001  whatever a cache of any family raises
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        expected = score_pack(trial, model.path, examples.pack)
        assert isinstance(expected, TokenScores)
        both = (examples.pack.gather(found[j::2]) for j in range(2))
        worst = max(float((own - expected.logprobs).abs().max()) for own in both)
    return None if worst <= _TOLERANCE else f"a log-probability differs by {worst:.2g} nats"


def _cached_scores(
    base: Any, prompted: Sequence[PromptCompletion], sequences: Sequence[PromptCompletion]
) -> list[Tensor]:
    """Return the log-probabilities of given completions with a cache, as if they were sampled; two of each prompt."""
    decoding = CachedDecoding(base, [s.prompt for s in prompted], 2, base.device)
    scores: list[list[Tensor]] = [[] for _ in sequences]
    alive = list(range(len(sequences)))
    for step in range(max(len(s.completion) for s in sequences)):
        logprobs = decoding.logits.float().log_softmax(1)
        tokens = [sequences[i].completion[step] for i in alive]
        for row, i in enumerate(alive):
            scores[i].append(logprobs[row, tokens[row]])
        going = [row for row, i in enumerate(alive) if step + 1 < len(sequences[i].completion)]
        if going:
            alive = [alive[row] for row in going]
            decoding.append(going, torch.tensor([tokens[r] for r in going], device=base.device))
    return [torch.stack(own) for own in scores]


def _ends_with_stop(model: LanguageModel, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    """Return whether the last token completed a stop text; only as many tokens as that can take are decoded."""
    if not stop:
        return False
    n = 4 * max(len(s) for s in stop) + 4  # a character takes up to four tokens
    tail, before = model.decode(tokens[-n:]), model.decode(tokens[-n:-1])
    return any(s in tail and tail.count(s) > before.count(s) for s in stop)


def sampling_distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return log-probabilities that are sampled from, ``(batch, vocabulary)``; -inf where cut off.

    Args:
        logits: ``(batch, vocabulary)``.
        sampling: Temperature, then top-k, then top-p are applied.
    """
    logits = logits.float()
    if sampling.temperature not in (0.0, 1.0):
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k, 1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(1, descending=True)
        probabilities = ordered.softmax(1)
        # A token stays while the more probable ones together have not reached top_p.
        cut = probabilities.cumsum(1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(cut.gather(1, order.argsort(1)), -torch.inf)
    return logits.log_softmax(1)


def _choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens and their log-probabilities, ``(batch,)`` each, by the inverse of the cumulative distribution."""
    logprobs = sampling_distribution(logits, sampling)
    if sampling.temperature == 0:
        chosen = logprobs.argmax(1)
    else:
        cumulative = logprobs.double().exp().cumsum(1)
        targets = uniforms[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, targets, right=True)[:, 0]
        chosen = chosen.clamp(max=logits.shape[1] - 1)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]
