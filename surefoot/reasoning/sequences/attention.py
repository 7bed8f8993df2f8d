"""Attention within a pack, as an attention implementation of transformers.

The model makes its masks itself, by its own rule (causal, sliding window, chunks, per layer); where a pack is under way
the rule comes back as a `PackMask`, which travels to the layers as any mask does and applies the rule to the positions
within each sequence. The keys and values of a pack's first segments may be given (`KeysAndValues`): these segments are
seen and not computed. On a CPU (and wherever the varlen kernel is missing) each segment is one call of torch's scaled
dot-product attention on the keys of its own chain: no mask over the whole pack, no work between sequences. On CUDA in
half precision all segments go through torch's varlen flash attention in one call where the rule is causal or a sliding
window.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ConfigError
from surefoot.reasoning.sequences.packing import Segment

__all__ = (
    "PACKED_ATTENTION",
    "KeysAndValues",
    "PackLayout",
    "PackMask",
    "attend_by_segment",
    "packed_attention",
    "packed_forward",
    "register_packed_attention",
)

#: The name under which transformers knows this implementation.
PACKED_ATTENTION = "surefoot_packed"

#: Arguments of attention that change no number: the mask holds windows, the rest is about caches and outputs.
_WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "is_causal",
        "layer_idx",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "sliding_window",
        "use_cache",
    }
)


class KeysAndValues:
    """Keys and values of a pack's first segments, from earlier forward passes, and those that this pass computes.

    Attention is called in the same order in every pass, so its calls are numbered, not named.
    """

    def __init__(self, kept: Sequence[Sequence[tuple[Tensor, Tensor]]], n_new: Sequence[int]) -> None:
        """Initialize with what is known.

        Args:
            kept: For each of the pack's first segments and each call of attention, keys and values
                ``(1, heads, tokens, width)``.
            n_new: Tokens of each of the other segments.
        """
        self._kept, self._n_new, self._n_calls = kept, list(n_new), 0
        #: For each of the other segments and each call of attention so far, copies of keys and values.
        self.new: list[list[tuple[Tensor, Tensor]]] = [[] for _ in n_new]

    @property
    def n_kept(self) -> int:
        """Segments that are known."""
        return len(self._kept)

    def complete(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the whole pack, for one call of attention, from those of the other segments."""
        copies: Any = torch.split_with_sizes_copy  # annotated as if it returned nothing
        parts = (copies(x, self._n_new, 2) for x in (key, value))
        for own, k, v in zip(self.new, *parts, strict=True):
            own.append((k, v))
        known = [segment[self._n_calls] for segment in self._kept]
        self._n_calls += 1
        return torch.cat([*(k for k, _ in known), key], 2), torch.cat([*(v for _, v in known), value], 2)


class PackLayout:
    """A pack's segments with what attention needs of them, computed once per pack and not per layer."""

    def __init__(self, segments: Sequence[Segment], device: torch.device, memory: KeysAndValues | None = None) -> None:
        """Initialize the layout.

        Args:
            segments: Segments of the pack, prefixes before what continues them.
            device: Where the pack's tensors are.
            memory: Keys and values of the first segments, where these are not put through the model.
        """
        self.segments, self.device, self.memory = tuple(segments), device, memory
        #: First segments that are seen only.
        self.n_kept = 0 if memory is None else memory.n_kept
        #: For each segment the numbers of those it sees, itself the last.
        self.chains: list[list[int]] = []
        for i, segment in enumerate(self.segments):
            before = [] if segment.prefix is None else self.chains[segment.prefix]
            self.chains.append([*before, i])
        self._varlen: tuple[Tensor, Tensor, Tensor, int, int] | None = None

    def chain_lengths(self) -> list[int]:
        """Return how many tokens each segment's last token sees."""
        return [sum(self.segments[i].length for i in chain) for chain in self.chains]

    def varlen(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """Return the keys' numbers in the pack, the cumulative lengths of queries and keys, and the longest of each."""
        if self._varlen is None:
            seen = [self.segments[i] for chain in self.chains[self.n_kept :] for i in chain]
            parts = [torch.arange(s.start, s.start + s.length) for s in seen]
            queries = [s.length for s in self.segments[self.n_kept :]]
            keys = self.chain_lengths()[self.n_kept :]
            cumulative = (
                torch.tensor([0, *n], dtype=torch.int32).cumsum(0, dtype=torch.int32) for n in (queries, keys)
            )
            ends_q, ends_k = (c.to(self.device) for c in cumulative)
            self._varlen = (
                torch.cat(parts).to(self.device),
                ends_q,
                ends_k,
                max(queries),
                max(keys),
            )
        return self._varlen


#: The pack whose forward pass is under way.
_CURRENT: ContextVar[PackLayout | None] = ContextVar("surefoot_pack", default=None)


@contextlib.contextmanager
def packed_forward(layout: PackLayout) -> Iterator[None]:
    """Let the masks that a model makes within this context be those of a pack."""
    token = _CURRENT.set(layout)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class PackMask:
    """A model's rule of which token sees which, applied to the positions within each of a pack's sequences."""

    def __init__(self, layout: PackLayout, local_size: int | None = None, **arguments: Any) -> None:
        """Initialize the mask.

        Args:
            layout: The pack's.
            local_size: Size of the window or chunk; none for the rule that sees everything before.
            arguments: What transformers makes a mask from: its ``mask_function`` and how that is called.
        """
        self.layout, self.local_size = layout, local_size
        self._arguments = arguments
        self._made: dict[tuple[int, int], Tensor | None] = {}
        self._window: int | None = None

    def of(self, n_queries: int, n_keys: int) -> Tensor | None:
        """Return the mask of queries that are the last of a sequence's first keys.

        Args:
            n_queries: Number of queries.
            n_keys: Number of keys.

        Returns:
            ``(1, 1, queries, keys)``, True where seen; None where one query sees all keys, or as many queries as keys
            see all before them.
        """
        from transformers.masking_utils import sdpa_mask

        size = (n_queries, n_keys)
        if size not in self._made:
            whole = n_queries in (1, n_keys) and self._arguments["allow_is_causal_skip"]
            self._made[size] = sdpa_mask(
                batch_size=1,
                q_length=n_queries,
                kv_length=n_keys,
                q_offset=n_keys - n_queries,
                local_size=self.local_size,
                device=self.layout.device,
                **self._arguments | {"allow_is_causal_skip": whole},
            )
        return self._made[size]

    def window(self) -> int | None:
        """Return how many tokens a token sees, itself included, where the rule is just that; -1 for all, None else."""
        if self._window is None:
            from transformers.masking_utils import causal_mask_function

            if self._arguments["mask_function"] is causal_mask_function:
                self._window = -1
            else:
                self._window = self._measured_window()
        return None if self._window == 0 else self._window

    def _measured_window(self) -> int:
        """Compare the rule with a window of the local size, for 64 queries and all keys; 0 where they differ."""
        size, n = self.local_size, max(self.layout.chain_lengths())
        if size is None or self._arguments.get("use_vmap", False):
            return 0
        device = self.layout.device
        queries = torch.linspace(0, n - 1, min(n, 64), device=device).long()[:, None]
        keys = torch.arange(n, device=device)[None]
        zero = torch.zeros((), dtype=torch.long, device=device)
        rule = self._arguments["mask_function"](zero, zero, queries, keys)
        same = rule == (keys <= queries) & (keys > queries - size)
        return size if bool(same.all()) else 0


def _pack_or_sdpa_mask(**arguments: Any) -> object:
    """Make a mask as transformers asks; during a pack's forward pass a `PackMask`."""
    from transformers.masking_utils import sdpa_mask

    layout = _CURRENT.get()
    if layout is None:
        return sdpa_mask(**arguments)
    if arguments.get("allow_is_bidirectional_skip", False):
        raise ConfigError("packed attention is causal, and the model asks for a mask of both directions.")
    names = ("mask_function", "allow_is_causal_skip", "use_vmap", "local_size")
    return PackMask(layout, **{n: arguments[n] for n in names if n in arguments})


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend with one mask; tensors are ``(batch, heads, tokens, width)``; without a mask attention is causal."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if softcap is None and sinks is None:
        causal = mask is None and n_queries > 1
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale=scaling)
    scores = query @ key.transpose(2, 3)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        mask = seen.tril(n_keys - n_queries)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:  # a column that takes probability and gives nothing
        column = sinks.reshape(1, -1, 1, 1).expand(len(scores), -1, n_queries, 1)
        scores = torch.cat([scores, column.to(scores.dtype)], 3)
    probabilities = scores.softmax(3, dtype=torch.promote_types(scores.dtype, torch.float32))
    probabilities = probabilities[..., :n_keys].to(value.dtype)
    return F.dropout(probabilities, dropout) @ value


def attend_by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: PackMask,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend segment by segment; tensors are ``(1, heads, tokens, width)``; the first segments may have no queries.

    Segments follow one another, so one split gives each tensor's parts and its backward pass is one concatenation; a
    slice per segment would fill a whole gradient with zeros for each.
    """
    layout = mask.layout
    lengths = [s.length for s in layout.segments]
    queries = query.split(lengths[layout.n_kept :], 2)
    keys, values = (x.split(lengths, 2) for x in (key, value))
    outputs = []
    for q, chain in zip(queries, layout.chains[layout.n_kept :], strict=True):
        if len(chain) == 1:
            k, v = keys[chain[0]], values[chain[0]]
        else:
            k, v = (torch.cat([x[i] for i in chain], 2) for x in (keys, values))
        outputs.append(_attend(q, k, v, mask.of(q.shape[2], k.shape[2]), scaling, dropout, softcap, sinks))
    return torch.cat(outputs, 2)


def _varlen(query: Tensor, key: Tensor, value: Tensor, mask: PackMask, scaling: float | None, window: int) -> Tensor:
    """Attend in one call of torch's varlen kernel; tensors are ``(1, heads, tokens, width)``."""
    from torch.nn.attention.varlen import varlen_attn

    seen, ends_q, ends_k, longest_q, longest_k = mask.layout.varlen()
    q, k, v = (x[0].transpose(0, 1) for x in (query, key[:, :, seen], value[:, :, seen]))
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        ends_q,
        ends_k,
        longest_q,
        longest_k,
        window_size=(-1 if window == -1 else window - 1, 0),
        scale=scaling,
    )
    assert isinstance(out, Tensor)
    return out.transpose(0, 1)[None]


def _check_known(arguments: Mapping[str, object], known: frozenset[str]) -> None:
    """Raise a `ConfigError` if an argument that is not known has a value."""
    unknown = sorted(k for k, v in arguments.items() if v is not None and k not in known)
    if unknown:
        raise ConfigError(f"packed attention does not know the argument {', '.join(unknown)}.")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | PackMask | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks: packed where the mask is a pack's, else as its SDPA implementation does.

    Raises:
        ConfigError: If the model hands attention an argument that is not known here, or no mask in a pack's forward
            pass.
    """
    pack_mask = attention_mask if isinstance(attention_mask, PackMask) else None
    plain_mask = None if isinstance(attention_mask, PackMask) else attention_mask
    special = softcap is not None or s_aux is not None
    delegated = pack_mask is None and not special
    _check_known(kwargs, _WITHOUT_EFFECT | {"position_bias", "cache"} if delegated else _WITHOUT_EFFECT)
    if pack_mask is None and _CURRENT.get() is not None:
        raise ConfigError("the pack's mask does not reach attention.")
    if delegated:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, plain_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    if pack_mask is not None and pack_mask.layout.memory is not None:
        key, value = pack_mask.layout.memory.complete(key, value)
    n_groups = query.shape[1] // key.shape[1]
    if n_groups > 1:
        key, value = (x.repeat_interleave(n_groups, 1) for x in (key, value))
    flash = (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1]
        and dropout == 0
        and not special
    )
    if pack_mask is None:
        out = _attend(query, key, value, plain_mask, scaling, dropout, softcap, s_aux)
    elif flash and (window := pack_mask.window()) is not None:
        out = _varlen(query, key, value, pack_mask, scaling, window)
    else:
        out = attend_by_segment(query, key, value, pack_mask, scaling, dropout, softcap, s_aux)
    return out.transpose(1, 2).contiguous(), None


def register_packed_attention() -> None:
    """Make `PACKED_ATTENTION` known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    mask: Callable[..., object] = _pack_or_sdpa_mask
    AttentionMaskInterface.register(PACKED_ATTENTION, mask)
