"""Steps are stretches of tokens; their texts are slices of the one decoded text."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, word_pieces

from surefoot.reasoning.sequences import Span, split_spans, tokens_for

TOKENIZERS: dict[str, Any] = {"byte level": byte_level(), "word pieces": word_pieces()}


def joined(token_texts: list[str]) -> tuple[list[int], Callable[[Any], str]]:
    """Return token ids, and the function that writes them, for tokens with texts of their own."""
    return list(range(len(token_texts))), lambda ids: "".join(token_texts[i] for i in ids)


def split(token_texts: list[str], separator: str = "\n") -> list[tuple[int, int]]:
    return [tuple(s) for s in split_spans(*joined(token_texts), separator)[0]]  # type: ignore[misc]


def test_spans_cover_a_completion_without_gaps() -> None:
    assert split(["a", "b", "\n", "c", "\n", "\n", "d"]) == [(0, 3), (3, 6), (6, 7)]
    assert split(["a\nb", "c\n"]) == [(0, 1), (1, 2)]
    assert split(["\n", "a", "\n"]) == [(0, 3)]
    assert split([]) == []
    assert split(["x", ".", ".", "y"], "..") == [(0, 3), (3, 4)]
    assert split(["a\nb\nc", "d"]) == [(0, 1), (1, 2)], "one token may end two steps"
    assert split(["a", "\n", ""]) == [(0, 3)], "a token without text belongs to the step before"


@given(st.lists(st.sampled_from(["a", "\n", "b\n", "\nc", ""]), max_size=15))
def test_spans_are_contiguous(token_texts: list[str]) -> None:
    spans, texts = split_spans(*joined(token_texts))
    edges = [0, *(s.end for s in spans)]
    assert [s.start for s in spans] == edges[:-1]
    assert edges[-1] == len(token_texts)
    assert all(s.end > s.start for s in spans)
    assert "".join(texts) == "".join(token_texts)
    assert len(texts) == len(spans)
    for text, span in zip(texts[:-1], spans[:-1], strict=True):
        assert text == "".join(token_texts[span.start : span.end])


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    ("steps", "separator"),
    [
        (["Tom buys 3 apples\n", "the answer is 3 ÷ 4\n", "\u4e09\u500b\U0001f34e"], "\n"),
        (["Tom hat 3 Äpfel。", " 3 ÷ 4 = 0,75。", "fertig"], "。"),
        (["a step →", " another →", " then the last"], " →"),
        (["über\u2028", "das\u2028", "Ende"], "\u2028"),
    ],
)
def test_texts_of_steps_are_not_damaged(name: str, steps: list[str], separator: str) -> None:
    tokenizer = TOKENIZERS[name]
    written = "".join(steps)
    ids = [*tokenizer(written)["input_ids"], tokenizer.eos_token_id]

    def decode(tokens: Any) -> str:
        text: str = tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    assert decode(ids) == written
    spans, texts = split_spans(ids, decode, separator)
    assert texts == steps
    assert spans[-1].end == len(ids), "the end of sequence belongs to the last step"
    for k, span in enumerate(spans):
        assert decode(ids[: span.end]).startswith("".join(steps[: k + 1]))
        if k + 1 < len(spans):
            assert not decode(ids[: span.end - 1]).startswith("".join(steps[: k + 1]))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_for_is_the_least_number_that_writes_a_text(name: str) -> None:
    tokenizer, draw = TOKENIZERS[name], random.Random(0)
    for _ in range(30):
        text = "".join(draw.choice("ab 3÷\u4e09\U0001f34e\n") for _ in range(20)).strip()
        ids = tokenizer(text)["input_ids"]
        end = draw.randint(0, len(text))
        n = tokens_for(ids, tokenizer.decode, text[:end])
        enough = [m for m in range(len(ids) + 1) if tokenizer.decode(ids[:m])[:end] == text[:end]]
        assert n == enough[0]


def test_what_follows_the_text_belongs_to_the_last_step() -> None:
    ids, decode = joined(["a\n", "b", "\n", "\nQ", ": next\n", "c"])
    assert split_spans(ids, decode, "\n", "a\nb\n") == ([Span(0, 1), Span(1, 6)], ["a\n", "b\n"])
