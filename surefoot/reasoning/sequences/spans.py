"""Steps and episodes of a completion as stretches of its tokens; text is never tokenised again."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

__all__ = ("Span", "split_spans", "tokens_for")

#: Most bytes, and so tokens, of a character.
_BYTES = 4

Decode = Callable[[Sequence[int]], str]


class Span(NamedTuple):
    """Tokens ``start`` to ``end`` (exclusive) of a completion."""

    start: int
    end: int


def tokens_for(ids: Sequence[int], decode: Decode, text: str, at_least: int = 0) -> int:
    """Return how many of the first tokens it takes to write a text that the whole of them begins with.

    Tokens are never decoded one by one: a character may take several of them, and spaces may depend on the neighbour.

    Args:
        ids: Token ids.
        decode: Returns the text of token ids.
        text: Beginning of the tokens' text.
        at_least: Tokens that are known not to be enough, or just so.
    """

    def write_it(n: int) -> bool:
        return decode(ids[:n])[: len(text)] == text

    least = bisect_left(range(len(ids)), True, at_least, key=write_it)
    # Where single bytes are tokens, a run of them that ends within a character may write none of its characters.
    for n in range(least - 1, at_least - 1, -1):
        if write_it(n):
            least = n
        elif least - n > _BYTES:
            break
    return least


def split_spans(
    ids: Sequence[int], decode: Decode, separator: str = "\n", text: str | None = None
) -> tuple[list[Span], list[str]]:
    """Cut a completion after every token that completes a separator.

    Args:
        ids: The completion's token ids.
        decode: Returns the text of token ids.
        separator: What ends a step; runs of it end one step, not several, and at the beginning they end none.
        text: Beginning of the completion's text that is cut; all of it by default. What follows belongs to the last
            step.

    Returns:
        Spans that cover the completion without gaps, none for an empty one; and each span's text, which together are
        the text.
    """
    if not ids:
        return [], []
    text = decode(ids) if text is None else text
    runs = re.finditer(f"(?:{re.escape(separator)})+", text)
    cuts = [m.end() for m in runs if m.start() > 0 and m.end() < len(text)]
    ends = _ends(ids, decode, text) if cuts else None
    spans: list[Span] = []
    texts: list[str] = []
    start, done = 0, 0
    for cut in cuts:
        if ends is not None:
            end = bisect_left(ends, cut) + 1
            written = ends[end - 1]
        else:
            end = tokens_for(ids, decode, text[:cut], start)
            shown, written = decode(ids[:end]), cut
            while written < len(shown) and shown[: written + 1] == text[: written + 1]:
                written += 1
        if start < end < len(ids) and written < len(text):
            spans.append(Span(start, end))
            texts.append(text[done:written])
            start, done = end, written
    return [*spans, Span(start, len(ids))], [*texts, text[done:]]


def _ends(ids: Sequence[int], decode: Decode, text: str) -> list[int] | None:
    """Return where each token's text ends, if each token decodes by itself; None where some need their neighbours."""
    first = decode(ids[:1])
    own = {i: decode([ids[0], i])[len(first) :] for i in set(ids)}
    token_texts = [first, *(own[i] for i in ids[1:])]
    return list(accumulate(map(len, token_texts))) if "".join(token_texts).startswith(text) else None
