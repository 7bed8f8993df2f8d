"""How a pack goes through a model of transformers: at once or one sequence at a time; and what follows its head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError
from surefoot.reasoning.sequences import (
    KeysAndValues,
    Pack,
    TokenScores,
    module_token_scores,
    token_scores,
    weighted_logprob_sum,
)
from surefoot.reasoning.sequences.attention import PackLayout, packed_forward
from surefoot.training.distributed import is_sharded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = (
    "ForwardPath",
    "OutputHead",
    "find_output_head",
    "hidden_states",
    "rope_limit",
    "score_hidden",
    "score_pack",
    "weighted_logprob_sum_of_pack",
)


@dataclass(frozen=True)
class OutputHead:
    """How logits follow from the last hidden states: ``softcap * tanh(scale * head(before * hidden) / softcap)``."""

    #: Name of the part of the model that ends with the last hidden states.
    body: str
    before: float = 1.0
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True)
class ForwardPath:
    """How a model's packs are scored."""

    #: Whether all sequences of a pack pass through the model at once.
    packed: bool
    #: What follows the last hidden states; None where only the model's own logits are right.
    head: OutputHead | None
    #: Tokens beyond which the model's positions depend on the longest sequence beside it.
    rope_limit: int | None = None

    def keeps(self, n_tokens: int) -> bool:
        """Return whether sequences of up to so many tokens pass at once, at positions that nothing beside them changes.

        Tokens then meet in attention only, which may see keys and values that were kept.
        """
        return self.packed and (self.rope_limit is None or n_tokens <= self.rope_limit)


def hidden_states(
    base: "PreTrainedModel", path: ForwardPath, pack: Pack, memory: KeysAndValues | None = None
) -> Tensor:
    """Return the last hidden states of a pack's tokens, ``(tokens, width)``; see `LanguageModel.hidden_states`.

    Raises:
        ConfigError: If the model's logits do not follow from its hidden states, so that none are known to be the last.
    """
    if path.head is None:
        raise ConfigError(f"{base.config.model_type} has no hidden states that its logits are known to follow from.")
    if memory is None:
        return _hidden(base, path, path.head, pack, None)
    if not path.keeps(pack.longest):
        raise ConfigError(f"{base.config.model_type} computes such sequences from their beginning: keep no keys of it.")
    return _packed(base, path.head, pack, memory)


def score_pack(base: "PreTrainedModel", path: ForwardPath, pack: Pack, temperature: float = 1.0) -> TokenScores:
    """Score a pack's tokens; see `LanguageModel.score`."""
    if path.head is None:
        return module_token_scores(_logits(base, pack), lambda x: x, pack.targets, temperature)
    return score_hidden(base, path, _hidden(base, path, path.head, pack, pack.predictors), pack, temperature)


def score_hidden(
    base: "PreTrainedModel", path: ForwardPath, hidden: Tensor, pack: Pack, temperature: float = 1.0
) -> TokenScores:
    """Score a pack's tokens from the last hidden states of their predictors; see `LanguageModel.score_hidden`."""
    if path.head is None:
        raise ConfigError(f"{base.config.model_type} has no hidden states that its logits are known to follow from.")
    head: Any = base.get_output_embeddings()
    hidden = hidden if path.head.before == 1.0 else hidden * path.head.before
    softcap, scale = path.head.softcap, path.head.scale
    if _is_matrix(head):
        return token_scores(hidden, head.weight, pack.targets, temperature, softcap, scale=scale)
    return module_token_scores(hidden, head, pack.targets, temperature, softcap, scale=scale)


def weighted_logprob_sum_of_pack(
    base: "PreTrainedModel", path: ForwardPath, pack: Pack, token_weights: Tensor
) -> Tensor:
    """Return a weighted sum of a pack's log-probabilities; see `LanguageModel.weighted_logprob_sum`."""
    head: Any = base.get_output_embeddings()
    if path.head is None or not _is_matrix(head):
        return (token_weights * score_pack(base, path, pack).logprobs).sum()
    hidden, softcap, scale = _head_input(base, path, path.head, pack), path.head.softcap, path.head.scale
    return weighted_logprob_sum(hidden, head.weight, pack.targets, token_weights, softcap, scale=scale)


def _is_matrix(head: nn.Module) -> bool:
    """Return whether a head is a matrix and no more: without a bias, adapters or quantisation."""
    return type(head) is nn.Linear and head.bias is None


def _head_input(base: "PreTrainedModel", path: ForwardPath, after: OutputHead, pack: Pack) -> Tensor:
    """Return what the head turns into scores of the pack's tokens, ``(scored, width)``."""
    hidden = _hidden(base, path, after, pack, pack.predictors)
    return hidden if after.before == 1.0 else hidden * after.before


def _logits(base: "PreTrainedModel", pack: Pack) -> Tensor:
    """Return the model's own logits at the predictors, ``(scored, vocabulary)``."""
    return _one_by_one(base, pack, pack.predictors, lambda x: base(input_ids=x, use_cache=False).logits)


def _hidden(base: "PreTrainedModel", path: ForwardPath, head: OutputHead, pack: Pack, wanted: Tensor | None) -> Tensor:
    """Return the last hidden states of the pack's tokens with the numbers ``wanted`` or of all, ``(wanted, width)``."""
    body: Any = base.get_submodule(head.body)
    alike = path.rope_limit is None or pack.longest <= path.rope_limit or len(leaves(pack)) == 1
    if not path.packed or not alike:
        return _one_by_one(base, pack, wanted, lambda x: body(input_ids=x, use_cache=False).last_hidden_state)
    hidden = _packed(base, head, pack)
    return hidden if wanted is None else hidden[wanted]


def _packed(base: "PreTrainedModel", head: OutputHead, pack: Pack, memory: KeysAndValues | None = None) -> Tensor:
    """Return the last hidden states of a pack's tokens whose keys and values are not known, ``(tokens, width)``."""
    body: Any = base.get_submodule(head.body)
    first = 0 if memory is None else sum(s.length for s in pack.segments[: memory.n_kept])
    tokens = pack.tokens[None, first:]
    with packed_forward(PackLayout(pack.segments, tokens.device, memory)):
        output = body(
            input_ids=tokens,
            position_ids=pack.positions[None, first:],
            # Without it transformers would look for sequences in the positions by itself.
            attention_mask=torch.ones_like(tokens),
            use_cache=False,
        )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def leaves(pack: Pack) -> list[int]:
    """Return the segments that no other continues."""
    continued = {s.prefix for s in pack.segments}
    return [i for i in range(len(pack.segments)) if i not in continued]


def _one_by_one(
    base: "PreTrainedModel", pack: Pack, wanted: Tensor | None, forward: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what a forward pass of tokens ``(1, tokens)`` says at those wanted or at all, one sequence at a time.

    Raises:
        ConfigError: If the weights are sharded: ranks have different numbers of sequences, and gather weights together.
    """
    if is_sharded(base):
        raise ConfigError(
            f"{base.config.model_type} takes one sequence at a time, which sharded weights (FSDP) do not allow: use"
            " DDP."
        )
    layout, device = PackLayout(pack.segments, pack.tokens.device), pack.tokens.device
    row = torch.zeros(len(pack.tokens), dtype=torch.long)  # in the outputs laid end to end
    outputs, n_before = [], 0
    for leaf in leaves(pack):
        segments = [pack.segments[i] for i in layout.chains[leaf]]
        tokens = torch.cat([torch.arange(s.start, s.start + s.length) for s in segments])
        row[tokens] = torch.arange(n_before, n_before + len(tokens))
        n_before += len(tokens)
        outputs.append(forward(pack.tokens[tokens.to(device)][None])[0])
    rows = row.to(device)
    return torch.cat(outputs)[rows if wanted is None else rows[wanted]]


def find_output_head(base: "PreTrainedModel", tokens: Tensor) -> OutputHead | None:
    """Find out what a model does between its last hidden states and its logits, by its own forward pass.

    The head's output is replaced by numbers of all sizes: what comes out as logits shows what follows the head.

    Args:
        base: The model; it is not changed.
        tokens: Token ids to put through it, ``(1, tokens)``, at least two.

    Returns:
        What was found; None where it is not a scale and a soft cap, the same for every token.
    """
    from transformers import PreTrainedModel

    head: Any = base.get_output_embeddings()
    hidden: dict[str, Tensor] = {}
    given: list[Tensor] = []
    put: list[Tensor] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(last := getattr(output, "last_hidden_state", None), Tensor):
                hidden[name] = last

        return hook

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        given.append(args[0])
        put.append(_numbers_of_all_sizes(output))
        return put[-1].clone()

    parts = {n: m for n, m in base.named_modules() if n and isinstance(m, PreTrainedModel)}
    hooks = [m.register_forward_hook(keep(n)) for n, m in parts.items()]
    hooks.append(head.register_forward_hook(replace))
    try:
        with torch.no_grad():
            logits = base(input_ids=tokens, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(put) != 1 or logits.shape != put[0].shape:
        return None
    after = _scale_and_softcap(put[0].double().flatten(), logits.double().flatten())
    for name in parts:
        before = _factor(hidden[name], given[0]) if name in hidden else None
        if before is not None and after is not None:
            return OutputHead(name, before, *after)
    return None


def _numbers_of_all_sizes(like: Tensor) -> Tensor:
    """Return numbers of 0.001 to a million, of both signs, and zeros, in the shape of a tensor."""
    sizes = torch.logspace(-3, 6, 37, device=like.device)
    values = torch.cat([sizes, -sizes, sizes.new_zeros(1)])[torch.arange(75) * 7 % 75]
    return values.repeat(-(-like.numel() // 75))[: like.numel()].view(like.shape)


def _factor(x: Tensor, y: Tensor) -> float | None:
    """Return the number that y is of x; None where there is none."""
    if x.shape != y.shape:
        return None
    if x.equal(y):
        return 1.0
    factor = float((y.double() * x.double()).sum() / x.double().square().sum())
    tolerance = 4 * torch.finfo(x.dtype).eps
    return factor if torch.allclose(y, x * factor, rtol=tolerance, atol=tolerance) else None


def _scale_and_softcap(x: Tensor, y: Tensor) -> tuple[float, float | None] | None:
    """Return (s, c) of ``y = c tanh(s x / c)``, c None for ``y = s x``; None where it is neither."""
    nonzero = x != 0
    if not bool(y.isfinite().all()) or not bool(nonzero.any()):
        return None
    smallest, largest = x.abs().where(nonzero, torch.inf).argmin(), x.abs().argmax()
    scale = float(y[largest] / x[largest])
    if torch.allclose(y, scale * x, rtol=1e-6, atol=0):
        return scale, None
    scale = float(y[smallest] / x[smallest])
    softcap = float(y.abs().max())
    capped = softcap * torch.tanh(scale * x / softcap)
    return (scale, softcap) if torch.allclose(y, capped, rtol=1e-5, atol=1e-6) else None


def rope_limit(config: Any) -> int | None:
    """Return the length beyond which rotary positions depend on the longest sequence of a forward pass; None without.

    So it is with the types longrope and dynamic: a sequence beside a longer one would get the longer one's positions.
    """
    limits = []
    for part in (config, config.get_text_config()):
        rope = getattr(part, "rope_parameters", None) or {}
        for kind in (rope, *(r for r in rope.values() if isinstance(r, dict))):
            if "dynamic" in str(kind.get("rope_type")) or kind.get("rope_type") == "longrope":
                own = kind.get("original_max_position_embeddings") or part.max_position_embeddings
                limits.append(int(min(own, part.max_position_embeddings)))
    return min(limits, default=None)
