"""Attention within a pack, as an attention implementation of transformers.

On a CPU (and wherever the varlen kernel is missing) each segment is one call of torch's scaled dot-product attention on
the keys of its own chain: no mask over the whole pack, no work between sequences. On CUDA in half precision all segments
go through torch's varlen flash attention in one call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ConfigError
from surefoot.sequences.packing import Segment

__all__ = ("PACKED_ATTENTION", "PackLayout", "register_packed_attention")

#: The name under which transformers knows this implementation.
PACKED_ATTENTION = "surefoot_packed"


class PackLayout:
    """A pack's segments with what attention needs of them, computed once per pack and not per layer."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        """Initialize the layout.

        Args:
            segments: Segments of the pack, prefixes before what continues them.
            device: Where the pack's tensors are.
        """
        self.segments, self.device = tuple(segments), device
        #: For each segment the places of those it sees, itself the last.
        self.chains: list[list[int]] = []
        for i, segment in enumerate(self.segments):
            before = [] if segment.prefix is None else self.chains[segment.prefix]
            self.chains.append([*before, i])
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._varlen: tuple[Tensor, Tensor, Tensor, int, int] | None = None

    def chain_lengths(self) -> list[int]:
        """Return how many tokens each segment's last token sees."""
        return [sum(self.segments[i].length for i in chain) for chain in self.chains]

    def mask(self, n_queries: int, n_keys: int) -> Tensor:
        """Return the causal mask of queries that are the last of the keys, ``(queries, keys)``, True where seen."""
        size = (n_queries, n_keys)
        if size not in self._masks:
            full = torch.ones(size, dtype=torch.bool, device=self.device)
            self._masks[size] = full.tril(n_keys - n_queries)
        return self._masks[size]

    def varlen(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """Return the keys' places, the cumulative lengths of queries and keys, and the longest of each."""
        if self._varlen is None:
            seen = [self.segments[i] for chain in self.chains for i in chain]
            parts = [torch.arange(s.start, s.start + s.length) for s in seen]
            queries = [s.length for s in self.segments]
            keys = self.chain_lengths()
            cumulative = (
                torch.tensor([0, *n], dtype=torch.int32).cumsum(0, dtype=torch.int32)
                for n in (queries, keys)
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


def _by_segment(
    query: Tensor, key: Tensor, value: Tensor, layout: PackLayout, scaling: float | None
) -> Tensor:
    """Attend segment by segment; tensors are ``(1, heads, tokens, width)``.

    Segments follow one another, so one split takes each tensor apart and its backward pass is one concatenation; a slice
    per segment would fill a whole gradient with zeros for each.
    """
    lengths = [s.length for s in layout.segments]
    queries, keys, values = (x.split(lengths, 2) for x in (query, key, value))
    outputs = []
    for q, chain in zip(queries, layout.chains, strict=True):
        if len(chain) == 1:
            k, v, mask = keys[chain[0]], values[chain[0]], None
        else:
            k, v = (torch.cat([x[i] for i in chain], 2) for x in (keys, values))
            mask = layout.mask(q.shape[2], k.shape[2])
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
        )
    return torch.cat(outputs, 2)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: PackLayout, scaling: float | None
) -> Tensor:
    """Attend in one call of torch's varlen kernel; tensors are ``(1, heads, tokens, width)``."""
    from torch.nn.attention.varlen import varlen_attn

    places, ends_q, ends_k, longest_q, longest_k = layout.varlen()
    q, k, v = (x[0].transpose(0, 1) for x in (query, key[:, :, places], value[:, :, places]))
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        ends_q,
        ends_k,
        longest_q,
        longest_k,
        window_size=(-1, 0),
        scale=scaling,
    )
    assert isinstance(out, Tensor)
    return out.transpose(0, 1)[None]


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: PackLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks: packed where a layout is given, else as its SDPA implementation does."""
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    window = getattr(module, "sliding_window", None)
    if window is not None and max(layout.chain_lengths(), default=0) > window:
        raise ConfigError(
            f"packed attention has no sliding window, and a sequence is longer than the model's {window}."
        )
    n_groups = query.shape[1] // key.shape[1]
    if n_groups > 1:
        key, value = (x.repeat_interleave(n_groups, 1) for x in (key, value))
    half = query.dtype in (torch.float16, torch.bfloat16)
    attend = _varlen if query.is_cuda and half and dropout == 0 else _by_segment
    return attend(query, key, value, layout, scaling).transpose(1, 2).contiguous(), None


def register_packed_attention() -> None:
    """Make `PACKED_ATTENTION` known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED_ATTENTION, _packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
