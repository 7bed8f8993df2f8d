"""Sequences that grow: values of a naive forward pass, each token once, bounded memory, all of it freed."""

import copy
import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from surefoot.reasoning.language_models import TinyLanguageModel, ValueHead
from surefoot.reasoning.values.growing import GrowingValues

UNBOUNDED = 2.0**40


def tiny() -> tuple[TinyLanguageModel, ValueHead]:
    """A model whose queries share keys, with weights so large that every token matters."""
    torch.manual_seed(0)
    model = TinyLanguageModel(width=32, n_layers=2, n_heads=4, n_key_value_heads=2, initializer_range=0.3)
    head = ValueHead(model.width)
    torch.nn.init.normal_(head.linear.weight, std=0.3)
    return model, head


MODEL, HEAD = tiny()


def naive(sequence: Sequence[int], model: TinyLanguageModel = MODEL) -> Tensor:
    """All tokens in one pass of transformers."""
    with torch.no_grad():
        hidden = model.model.model(torch.tensor([list(sequence)]), use_cache=False).last_hidden_state[0]
        return HEAD(hidden).sigmoid()


def n_distinct(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of the tree of sequences: each beginning counts once."""
    return len({tuple(s[: i + 1]) for s in sequences for i in range(len(s))})


def random_tokens(n: int, seed: int) -> list[int]:
    return torch.randint(3, 15, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


PROMPTS = [random_tokens(9, 1), random_tokens(5, 2)]
FIRST = [[*p, *random_tokens(4, 10 * i + j)] for i, p in enumerate(PROMPTS) for j in range(3)]
#: Of each prompt one beginning goes on, in two ways.
SECOND = [[*FIRST[i], *random_tokens(6, 100 + 10 * i + j)] for i in (1, 4) for j in range(2)]
N_BYTES = 2 * 2 * 2 * 8 * 4  # a token's: layers, keys and values, heads, width, bytes of a number


@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_each_token_goes_through_the_model_once(max_tokens: int) -> None:
    growing = GrowingValues(MODEL, HEAD, max_tokens, UNBOUNDED)
    done: list[list[int]] = []
    for step in (FIRST, SECOND, SECOND[:1]):
        found = growing(step)
        done += step
        for sequence, values in zip(step, found, strict=True):
            torch.testing.assert_close(values, naive(sequence), rtol=1e-5, atol=1e-5)
        assert growing.n_tokens == n_distinct(done)
        assert growing.n_bytes == N_BYTES * n_distinct(done)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.lists(st.lists(st.integers(3, 4), min_size=1, max_size=9), max_size=6), max_size=4),
    max_tokens=st.sampled_from([1, 7, 1000]),
    n_kept=st.sampled_from([0.1, 6, 15, UNBOUNDED]),
)
def test_any_tree(steps: list[list[list[int]]], max_tokens: int, n_kept: float) -> None:
    """Branches within a step and in what is kept, sequences that begin others, copies; memory that is too small."""
    growing = GrowingValues(MODEL, HEAD, max_tokens, n_kept * N_BYTES)
    for step in steps:
        for sequence, values in zip(step, growing(step), strict=True):
            torch.testing.assert_close(values, naive(sequence), rtol=1e-5, atol=1e-5)
        assert growing.n_bytes <= n_kept * N_BYTES
    least = n_distinct([s for step in steps for s in step])
    assert growing.n_tokens >= least
    if n_kept == UNBOUNDED:
        assert growing.n_tokens == least


def test_what_was_used_least_recently_is_dropped() -> None:
    """Room for one of two families: the one that is asked for again stays, the other is computed anew."""
    first, second = [FIRST[:3], FIRST[3:]]
    growing = GrowingValues(MODEL, HEAD, 1000, N_BYTES * n_distinct(first))
    growing(first)
    growing(second)
    n = growing.n_tokens
    growing(second)
    assert growing.n_tokens == n
    growing(first)
    assert growing.n_tokens == n + n_distinct(first)
    growing([*first[:1], PROMPTS[1]])
    growing([PROMPTS[0]])
    assert growing.n_tokens == n + n_distinct(first) + len(PROMPTS[1]), "a beginning goes after what continues it"


def test_other_weights_begin_anew() -> None:
    model = copy.deepcopy(MODEL)
    growing = GrowingValues(model, HEAD, 1000, UNBOUNDED)
    growing(FIRST)
    with torch.inference_mode():
        next(model.parameters()).mul_(1.5)
    (values,) = growing(SECOND[:1])
    torch.testing.assert_close(values, naive(SECOND[0], model), rtol=1e-5, atol=1e-5)
    assert growing.n_tokens == n_distinct(FIRST) + len(SECOND[0])
    model.double()
    (values,) = growing(SECOND[:1])
    torch.testing.assert_close(values, naive(SECOND[0], model), rtol=1e-4, atol=1e-5)
    assert growing.n_tokens == n_distinct(FIRST) + 2 * len(SECOND[0])


def test_all_is_freed_at_once() -> None:
    growing = GrowingValues(MODEL, HEAD, 1000, UNBOUNDED)
    growing(FIRST)
    growing(SECOND)
    kept = [weakref.ref(x) for s in growing.root.all_after() for pair in s.attention for x in pair]
    assert kept
    assert all(x() is not None for x in kept)
    growing.forget()
    assert growing.n_bytes == 0
    assert all(x() is None for x in kept)


def test_a_sequence_beyond_the_context_leaves_the_rest_right() -> None:
    from surefoot.errors import DataError

    growing = GrowingValues(MODEL, HEAD, 1000, UNBOUNDED)
    with pytest.raises(DataError, match="does not fit into the model's context of 512"):
        growing([*FIRST, random_tokens(600, 5)])
    (values,) = growing(FIRST[:1])
    torch.testing.assert_close(values, naive(FIRST[0]), rtol=1e-5, atol=1e-5)
