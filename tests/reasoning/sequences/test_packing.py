"""Packed equals unpacked: log-probabilities, entropies and gradients, with and without shared prompts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from surefoot.reasoning.language_models import LanguageModel, TinyLanguageModel
from surefoot.reasoning.sequences import Pack, PromptCompletion, Segment, pack_sequences
from surefoot.reasoning.sequences.attention import KeysAndValues, PackLayout, PackMask, attend_by_segment


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = TinyLanguageModel(width=32, n_heads=4, n_key_value_heads=2, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # large enough that attending to a wrong token would show
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def random_tokens(n: int, seed: int) -> list[int]:
    return torch.randint(4, 80, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


P1, P2 = random_tokens(9, 1), random_tokens(5, 2)
SEQUENCES = [
    PromptCompletion(P1, random_tokens(7, 3)),
    PromptCompletion(P1, random_tokens(3, 4), [True, False, True]),
    PromptCompletion(P2, random_tokens(6, 5)),
    PromptCompletion(P1, random_tokens(1, 6)),
    PromptCompletion(P2, random_tokens(4, 7), [False] * 4),
    PromptCompletion(P1, random_tokens(5, 8), [False, True, True, False, False]),
]


def unpacked(model: LanguageModel, sequences: list[PromptCompletion]) -> Tensor:
    """Score each sequence alone through transformers' own forward pass."""
    scored = []
    for s in sequences:
        ids = torch.tensor([[*s.prompt, *s.completion]])
        logprobs = model.base(ids).logits.log_softmax(-1)[0, len(s.prompt) - 1 : -1]
        own = logprobs.gather(1, ids[0, len(s.prompt) :, None])[:, 0]
        scored.append(own if s.mask is None else own[torch.tensor(s.mask)])
    return torch.cat(scored)


def packed(model: LanguageModel, packs: list[Pack]) -> Tensor:
    found = {}
    for pack in packs:
        scores = model.score(pack).logprobs
        for value, i, n in zip(scores, pack.sequences.tolist(), pack.completion_positions.tolist(), strict=True):
            assert (i, n) not in found
            found[i, n] = value
    return torch.stack([found[k] for k in sorted(found)])


def gradient(model: LanguageModel, scores: Tensor) -> Tensor:
    model.zero_grad()
    (scores * torch.linspace(-1, 1, len(scores))).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("share_prompts", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 20, 100])
def test_packed_equals_unpacked(model: LanguageModel, max_tokens: int, share_prompts: bool) -> None:
    expected = unpacked(model, SEQUENCES)
    found = packed(model, pack_sequences(SEQUENCES, max_tokens, share_prompts))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    a, b = gradient(model, found), gradient(model, unpacked(model, SEQUENCES))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_shared_prompt_and_unneeded_tokens_are_not_put_through_the_model() -> None:
    """P1 once with completions of 7, 3, 1, 5 tokens of which 6, 2, 0, 2 come before a scored one; P2 with 5 of 6."""
    (pack,) = pack_sequences(SEQUENCES, 1000)
    assert len(pack.tokens) == 9 + 6 + 2 + 0 + 2 + 5 + 5
    assert sum(len(p.tokens) for p in pack_sequences(SEQUENCES, 1000, share_prompts=False)) == (
        4 * 9 + 6 + 2 + 0 + 2 + 5 + 5
    )


def test_beginnings_that_are_not_scored_are_there_once_as_a_tree(model: LanguageModel) -> None:
    """Continuations of two prefixes, of which one goes on from the other, beside completions of the prompt alone."""
    short = random_tokens(4, 21)
    long = [*short, *random_tokens(3, 22)]
    ends = [random_tokens(n, 30 + n) for n in (3, 4, 5, 2, 6)]
    sequences = [
        PromptCompletion(P1, ends[0]),
        PromptCompletion(P1, [*long, *ends[1]], [False] * 7 + [True] * 4),
        PromptCompletion(P1, [*short, *ends[2]], [False] * 4 + [True, False, True, False, True]),
        PromptCompletion(P1, [*long, *ends[3]], [False] * 7 + [True] * 2),
        PromptCompletion(P1, [*long, *ends[4]], [False] * 7 + [True] + [False] * 5),
        PromptCompletion(P2, [*long, *ends[0]], [False] * 7 + [True] * 3),
    ]
    packs = pack_sequences(sequences, 1000)
    torch.testing.assert_close(packed(model, packs), unpacked(model, sequences), rtol=1e-4, atol=1e-5)
    whole = sum(len(s.prompt) + len(s.completion) for s in sequences)
    assert sum(len(p.tokens) for p in packs) == 9 + 2 + 4 + 3 + 3 + 1 + 4 + (5 + 7 + 2) < whole / 2
    gradients = []
    for chosen in (packs, pack_sequences(sequences, 1000, share_prompts=False), pack_sequences(sequences, 20)):
        model.zero_grad()
        sum(model.score(p).logprobs.square().sum() for p in chosen).backward()  # type: ignore[union-attr]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-4)
    kept = pack_sequences(sequences, 1000, keep_last=True)
    torch.testing.assert_close(packed(model, kept), unpacked(model, sequences), rtol=1e-4, atol=1e-5)
    for pack in kept:
        assert torch.equal(pack.tokens[pack.scored], pack.targets)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 25), st.integers(0, 6)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 80),
    st.booleans(),
    st.booleans(),
)
def test_every_scored_token_is_packed_once_and_predicted_by_the_one_before(
    shapes: list[tuple[int, int, int, int]], max_tokens: int, share: bool, keep_last: bool
) -> None:
    prompts = {k: random_tokens(n, k) for k, n, *_ in shapes}
    begun = random_tokens(6, 50)  # completions begin with some of these, unscored
    sequences = [
        PromptCompletion(prompts[k], [*begun[:b], *random_tokens(n, 100 + i)], [False] * b + [True] * n if b else None)
        for i, (k, _, n, b) in enumerate(shapes)
    ]
    packs = pack_sequences(sequences, max_tokens, share, keep_last=keep_last)
    seen = set()
    for pack in packs:
        alone = len(set(pack.sequences.tolist())) == 1
        assert len(pack.tokens) <= max_tokens or alone
        assert sum(s.length for s in pack.segments) == len(pack.tokens)
        rows = zip(
            *(x.tolist() for x in (pack.predictors, pack.targets, pack.sequences, pack.completion_positions)),
            strict=True,
        )
        for predictor, target, i, n in rows:
            whole = [*sequences[i].prompt, *sequences[i].completion]
            at = len(sequences[i].prompt) + n
            assert whole[at] == target
            assert pack.tokens[predictor] == whole[at - 1]
            assert pack.positions[predictor] == at - 1
            seen.add((i, n))
        if keep_last:
            assert pack.at_scored(pack.tokens).equal(pack.targets)
            assert pack.at_scored(pack.positions).equal(pack.at_predictors(pack.positions) + 1)
    assert seen == {(i, b + j) for i, (_, _, n, b) in enumerate(shapes) for j in range(n)}


def test_kept_last_tokens_change_no_score_and_show_what_the_model_holds_after_them(model: LanguageModel) -> None:
    """The last scored token of each of five sequences is one token more: hidden states are those of the whole text."""
    plain, kept = (pack_sequences(SEQUENCES, 1000, keep_last=k)[0] for k in (False, True))
    assert len(kept.tokens) == len(plain.tokens) + 5
    torch.testing.assert_close(packed(model, [kept]), packed(model, [plain]), rtol=1e-5, atol=1e-5)
    hidden = kept.at_scored(model.hidden_states(kept))
    assert hidden.shape == (len(kept.targets), model.width)
    for i, at, found in zip(kept.sequences.tolist(), kept.completion_positions.tolist(), hidden, strict=True):
        s = SEQUENCES[i]
        ids = torch.tensor([[*s.prompt, *s.completion[: at + 1]]])
        own = model.base(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="keep_last=True"):
        plain.at_scored(plain.tokens)


def test_pairs_stay_together() -> None:
    sequences = [PromptCompletion(P1, random_tokens(6, i)) for i in range(6)]
    packs = pack_sequences(sequences, 21, together=[0, 0, 1, 1, 2, 2])
    assert [sorted(set(p.sequences.tolist())) for p in packs] == [[0, 1], [2, 3], [4, 5]]


def test_what_a_pair_begins_with_is_there_once(model: LanguageModel) -> None:
    """Scored in both, with the same gradients: two pairs of a prompt that begin alike, in one of which the rejected
    continuation is all that the chosen one begins with; a pair that has only the prompt in common.
    """
    begun, more = random_tokens(5, 60), random_tokens(4, 61)
    sequences = [
        PromptCompletion(P1, [*begun, *more, *random_tokens(3, 62)]),
        PromptCompletion(P1, [*begun, *random_tokens(2, 63)]),
        PromptCompletion(P1, [*begun, *more, *random_tokens(2, 64)]),
        PromptCompletion(P1, [*begun, *more]),
        PromptCompletion(P2, [*begun, *more]),
        PromptCompletion(P2, more),
    ]
    together = [0, 0, 1, 1, 2, 2]
    packs = pack_sequences(sequences, 1000, together=together)
    # last tokens are only predicted: begun 5, then 4 + 2 and 1 of the first pair; 3, then 2 and 0 of the second
    assert sum(len(p.tokens) for p in packs) == 9 + 5 + (6 + 1) + (3 + 2 + 0) + 5 + (8 + 3)
    apart = pack_sequences(sequences, 1000, share_prompts=False)
    found = packed(model, packs)
    torch.testing.assert_close(found, unpacked(model, sequences), rtol=1e-4, atol=1e-5)
    a, b = gradient(model, found), gradient(model, packed(model, apart))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_gather_lines_values_up() -> None:
    values = [torch.arange(len(s.completion)) + 100.0 * i for i, s in enumerate(SEQUENCES)]
    for pack in pack_sequences(SEQUENCES, 20):
        assert pack.gather(values).equal(100.0 * pack.sequences + pack.completion_positions)


def test_bad_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence 0 has an empty prompt"):
        pack_sequences([PromptCompletion([], [1])], 10)
    with pytest.raises(ValueError, match="2 completion tokens but 1 mask"):
        pack_sequences([PromptCompletion([1], [1, 2], [True])], 10)
    assert pack_sequences([PromptCompletion([1], [])], 10) == []


#: What a model's own mask function says, with the window or chunk that it states, and the same in numbers.
RULES: dict[str, tuple[Any, int | None, Callable[[Tensor, Tensor], Tensor]]] = {
    "causal": (causal_mask_function, None, lambda q, k: k <= q),
    "window": (sliding_window_causal_mask_function(3), 3, lambda q, k: (k <= q) & (k > q - 3)),
    "chunks": (
        chunked_causal_mask_function(3, torch.zeros(1, dtype=torch.long)),
        3,
        lambda q, k: (k <= q) & (k // 3 == q // 3),
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_attention_follows_chains_of_prefixes(rule: str, softcap: float | None, with_sinks: bool) -> None:
    """A tree three deep, against one mask over the whole pack."""
    segments = (
        Segment(0, 3, None),
        Segment(3, 2, 0),
        Segment(5, 4, 1),
        Segment(9, 2, 1),
        Segment(11, 3, None),
    )
    n, function, size, sees = 14, *RULES[rule]
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, n, 8, generator=generator, dtype=torch.float64)
    sinks = torch.randn(2, generator=generator, dtype=torch.float64) if with_sinks else None
    position = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 0, 1, 2])
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i, s in enumerate(segments):
        own = torch.arange(s.start, s.start + s.length)
        before: int | None = i
        while before is not None:
            b = segments[before]
            keys = torch.arange(b.start, b.start + b.length)
            seen[own[:, None], keys] = sees(position[own][:, None], position[keys])
            before = b.prefix
    scores = q @ k.transpose(-1, -2) / 8**0.5
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    weights = scores.masked_fill(~seen, -torch.inf).exp()
    rest = 0 if sinks is None else sinks.exp()[None, :, None, None]
    expected = weights / (weights.sum(-1, keepdim=True) + rest) @ v
    layout = PackLayout(segments, torch.device("cpu"))
    mask = PackMask(layout, size, mask_function=function, allow_is_causal_skip=True)
    found = attend_by_segment(q, k, v, mask, None, 0.0, softcap, sinks)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_kernel_gets_a_window_only_where_the_rule_is_one() -> None:
    segments = (Segment(0, 3, None), Segment(3, 9, 0))
    layout = PackLayout(segments, torch.device("cpu"))
    windows = {
        name: PackMask(layout, size, mask_function=function, allow_is_causal_skip=True).window()
        for name, (function, size, _) in RULES.items()
    }
    assert windows == {"causal": -1, "window": 3, "chunks": None}


def test_masks_are_made_only_where_needed() -> None:
    """Causal segments and those within the window need no mask; longer ones, and continued ones, do."""
    layout = PackLayout((Segment(0, 3, None),), torch.device("cpu"))
    causal, window = (
        PackMask(layout, size, mask_function=function, allow_is_causal_skip=True)
        for function, size, _ in (RULES["causal"], RULES["window"])
    )
    assert causal.of(9, 9) is causal.of(1, 9) is window.of(2, 2) is window.of(1, 2) is None
    for mask, size in ((causal, (2, 9)), (window, (9, 9)), (window, (1, 9))):
        assert (made := mask.of(*size)) is not None
        assert made.shape == (1, 1, *size)


def test_varlen_arguments_describe_the_same_chains() -> None:
    """What the CUDA kernel is given: keys of each segment's chain in order, queries at their end."""
    segments = (Segment(0, 3, None), Segment(3, 2, 0), Segment(5, 1, 0), Segment(6, 2, None))
    keys, ends_q, ends_k, longest_q, longest_k = PackLayout(segments, torch.device("cpu")).varlen()
    assert keys.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7]
    assert ends_q.tolist() == [0, 3, 5, 6, 8]
    assert ends_k.tolist() == [0, 3, 8, 12, 14]
    assert (longest_q, longest_k) == (3, 5)


def test_keys_that_are_known_have_no_queries() -> None:
    """Of the same segments the first two are known: the kernel gets their keys, and queries of the others."""
    segments = (Segment(0, 3, None), Segment(3, 2, 0), Segment(5, 1, 1), Segment(6, 2, None))
    known = [[(torch.full((1, 2, n, 4), float(n)), torch.full((1, 2, n, 4), -float(n)))] for n in (3, 2)]
    memory = KeysAndValues(known, [1, 2])
    keys, ends_q, ends_k, longest_q, longest_k = PackLayout(segments, torch.device("cpu"), memory).varlen()
    assert keys.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert ends_q.tolist() == [0, 1, 3]
    assert ends_k.tolist() == [0, 6, 8]
    assert (longest_q, longest_k) == (2, 6)
    new = torch.randn(1, 2, 3, 4)
    key, value = memory.complete(new, -new)
    assert key.equal(torch.cat([known[0][0][0], known[1][0][0], new], 2))
    assert value.equal(-key)
    assert memory.new[0][0][0].equal(new[:, :, :1])
    assert memory.new[1][0][1].equal(-new[:, :, 1:])
