"""Token sequences: packing without padding, attention within packs, log-probabilities in chunks, step spans."""

from surefoot.reasoning.sequences.attention import PACKED_ATTENTION, KeysAndValues, register_packed_attention
from surefoot.reasoning.sequences.logprobs import (
    TokenScores,
    module_token_scores,
    token_scores,
    weighted_logprob_sum,
)
from surefoot.reasoning.sequences.packing import (
    Pack,
    PromptCompletion,
    Segment,
    empty_pack,
    pack_sequences,
    unscored_pack,
)
from surefoot.reasoning.sequences.spans import Span, split_spans, tokens_for

__all__ = (
    "PACKED_ATTENTION",
    "KeysAndValues",
    "Pack",
    "PromptCompletion",
    "Segment",
    "Span",
    "TokenScores",
    "empty_pack",
    "module_token_scores",
    "pack_sequences",
    "register_packed_attention",
    "split_spans",
    "token_scores",
    "tokens_for",
    "unscored_pack",
    "weighted_logprob_sum",
)
