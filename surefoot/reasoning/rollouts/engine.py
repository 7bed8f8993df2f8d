"""What an engine is: prompts as token ids in, completions with log-probabilities out, weights that can be replaced."""

import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.stops import special_tokens

__all__ = (
    "Completion",
    "EngineStatistics",
    "RolloutEngine",
    "Sampling",
    "SeedOf",
    "check_lengths",
    "fresh_seeds",
)


#: From what a draw is for to its seed.
SeedOf = Callable[..., int]


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Args:
        n: Completions of each prompt.
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Sample from the smallest set of tokens with this probability.
        top_k: Sample from so many most probable tokens; 0 for all.
        max_tokens: Longest completion, tokens.
        stop: Texts that end a completion, beside those of the prompt. Their tokens stay in it, its text ends before
            them. A special token is given as its text, alone.
        stop_token_ids: Tokens that end a completion, beside the model's own; they stay in it, its text ends before
            them.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: If one is out of range.
        """
        if isinstance(self.stop, str):
            raise ConfigError(f"stop is {self.stop!r}: expected a list of texts.")
        for name in ("stop", "stop_token_ids"):  # a list would have no hash
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.n < 1 or self.max_tokens < 1:
            raise ConfigError(f"n and max_tokens must be positive, got {self.n}, {self.max_tokens}.")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                "expected a finite temperature >= 0, top_p in (0, 1] and top_k >= 0, got"
                f" {self.temperature}, {self.top_p} and {self.top_k}."
            )
        if not all(self.stop):
            raise ConfigError(f"a stop text must not be empty, got {list(self.stop)}.")


class Completion(NamedTuple):
    """One sampled completion."""

    tokens: list[int]  # the stop token included
    logprobs: list[float]  # under the distribution that was sampled from, nats
    finish_reason: Literal["stop", "length"]
    version: int  # of the weights


@dataclass
class EngineStatistics:
    """Counts since the engine was started."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    prefix_queries: int = 0  # tokens looked up in the prefix cache
    prefix_hits: int = 0  # tokens found there
    n_updates: int = 0
    update_seconds: float = 0.0

    def since(self, earlier: "EngineStatistics") -> "EngineStatistics":
        """Return the counts since an earlier copy."""
        return EngineStatistics(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of generating."""
        return self.generated_tokens / self.seconds if self.seconds else 0.0

    @property
    def prefill_computed(self) -> int:
        """Prompt tokens that were put through the model: those that were not in the prefix cache, all without one."""
        # a cache is asked once for each completion, and prompts are counted once for all of theirs
        return self.prefix_queries - self.prefix_hits if self.prefix_queries else self.prompt_tokens

    @property
    def prefix_hit_rate(self) -> float:
        """Share of looked-up tokens that were in the prefix cache."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0


class RolloutEngine(ABC):
    """Samples completions of a language model.

    The constructor only keeps settings. `start` may take long; `close` frees everything. Completions depend on the
    weights, the prompt, the sampling and the prompt's seed, not on what else is in the batch (up to rounding).

    An engine defines `start`, which ends with `begin`, `sample`, `load_weights` and `close`, which sets `started` to
    false.
    """

    #: Whether it can sample.
    started = False
    #: Stamp of the weights, and of what is sampled with them.
    version = 0
    _counts = EngineStatistics()

    @property
    def sampling_engine(self) -> "RolloutEngine":
        """The engine that samples: this one, unless it hands prompts on to others."""
        return self

    def begin(self, model: LanguageModel, version: int) -> None:
        """Store what ends completions and the model's limits, and count from 0; `start` ends with it.

        Args:
            model: The model that is sampled from.
            version: Stamp of its weights.
        """
        self._tokenizer, self._stop_token_ids = model.tokenizer, model.stop_token_ids
        self._context, self._rope_limit = model.context, model.path.rope_limit
        self._counts, self.version, self.started = EngineStatistics(), version, True

    def stops(self, sampling: Sampling) -> Sampling:
        """Return the sampling with all tokens that end a completion: the model's and special stop texts.

        Raises:
            ConfigError: If a stop text holds a special token beside other text, or cannot be written by the tokenizer.
        """
        special = special_tokens(self._tokenizer)
        tokens, texts = {*self._stop_token_ids, *sampling.stop_token_ids}, []
        for text in sampling.stop:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if special.isdisjoint(ids):
                texts.append(text)
            elif len(ids) == 1 and self._tokenizer.decode(ids) == text:
                tokens.add(ids[0])
            else:
                raise ConfigError(
                    f"the stop text {text!r} holds a special token beside other text, or something that the tokenizer"
                    " cannot write: expected one special token alone, or text without any."
                )
        return replace(sampling, stop=tuple(texts), stop_token_ids=tuple(sorted(tokens)))

    @abstractmethod
    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Make the engine ready to sample from a model's present weights.

        Args:
            model: The model; engines other than `HFEngine` copy its weights.
            version: Stamp of the completions until the weights are replaced.
        """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling],
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """Sample completions.

        Args:
            prompts: Token ids, at least one each.
            sampling: How, for all prompts or for each of them.
            seeds: One per prompt; equal seeds give equal completions. Without them, completions differ between calls.

        Returns:
            As many completions per prompt as its sampling's ``n``.

        Raises:
            RuntimeError: If the engine has not been started.
            ValueError: If there are not as many samplings, or seeds, as prompts.
            ConfigError: If a stop text holds a special token beside other text, or a completion could grow out of the
                model's context, or to where its rotary positions become others.
        """
        if not self.started:
            raise RuntimeError("the engine has not been started.")
        given = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        seeds = fresh_seeds(len(prompts)) if seeds is None else seeds
        if not len(given) == len(seeds) == len(prompts):
            raise ValueError(f"{len(prompts)} prompts, {len(given)} samplings and {len(seeds)} seeds.")
        with_stops = {s: self.stops(s) for s in dict.fromkeys(given)}
        samplings = [with_stops[s] for s in given]
        self._check_lengths(prompts, samplings)
        began = time.perf_counter()
        results = self.sample(prompts, samplings, seeds)
        self._counts.seconds += time.perf_counter() - began
        self._counts.prompt_tokens += sum(len(p) for p in prompts)
        self._counts.generated_tokens += sum(len(c.tokens) for r in results for c in r)
        return results

    def _check_lengths(self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> None:
        """Raise a `ConfigError` for a completion that could outgrow the context or its kind of rotary positions."""
        if self._context is not None:
            check_lengths(
                prompts,
                samplings,
                self._context,
                "the model's context of",
                "lower max_tokens, or leave long problems out",
            )
        limit = self._rope_limit
        for prompt, sampling in zip(prompts, samplings, strict=True):
            if limit is not None and len(prompt) <= limit < len(prompt) + sampling.max_tokens:
                raise ConfigError(
                    f"the model's rotary positions are others beyond {limit} tokens, and a completion that grows beyond"
                    " them would be scored otherwise than it was sampled: a prompt and max_tokens"
                    f" {sampling.max_tokens} must fit into {limit}, or the prompt be longer."
                )

    def update_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the weights; no cached prefix of the old ones is used afterwards.

        Args:
            weights: All tensors under transformers' names, tied ones once.
            version: Stamp of the completions from now on.

        Raises:
            RuntimeError: If the engine has not been started.
        """
        if not self.started:
            raise RuntimeError("the engine has not been started.")
        began = time.perf_counter()
        self.load_weights(weights)
        self.version = version
        self._counts.n_updates += 1
        self._counts.update_seconds += time.perf_counter() - began

    def count_cached(self, queries: int, hits: int) -> None:
        """Add tokens that were looked up in other engines' prefix caches, and those found; `sample` may call it."""
        self._counts.prefix_queries += queries
        self._counts.prefix_hits += hits

    def statistics(self) -> EngineStatistics:
        """Return the counts since the start; the prefix cache's are 0 for engines that have or report none."""
        return replace(self._counts)

    @abstractmethod
    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Return completions of version ``self.version``; `generate` checks what it is asked for, and calls it.

        Args:
            prompts: Token ids, at least one each.
            samplings: How, for each of them, with all tokens that end a completion.
            seeds: One per prompt.
        """

    @abstractmethod
    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights and forget cached prefixes; `update_weights` calls it.

        Args:
            weights: All tensors under transformers' names, tied ones once.
        """

    @abstractmethod
    def close(self) -> None:
        """Free memory and processes; a closed engine can be started again."""


def check_lengths(
    prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], limit: int, name: str, remedy: str
) -> None:
    """Raise a `ConfigError` if a prompt and its longest completion do not fit into a limit, in tokens."""
    totals = [len(p) + s.max_tokens for p, s in zip(prompts, samplings, strict=True)]
    if max(totals, default=0) > limit:
        longest = totals.index(max(totals))
        raise ConfigError(
            f"a prompt of {len(prompts[longest])} tokens and max_tokens {samplings[longest].max_tokens} do not fit into"
            f" {name} {limit}: {remedy}."
        )


def fresh_seeds(n: int) -> list[int]:
    """Return seeds that never come again; no generator of the process is drawn on."""
    return [secrets.randbits(56) for _ in range(n)]
