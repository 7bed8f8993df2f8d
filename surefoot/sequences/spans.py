"""Steps and episodes of a completion as stretches of its tokens; text is never tokenised again."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ("Span", "split_spans")


class Span(NamedTuple):
    """Tokens ``start`` to ``end`` (exclusive) of a completion."""

    start: int
    end: int


def split_spans(pieces: Sequence[str], separator: str = "\n") -> list[Span]:
    """Cut a completion after every token that completes a separator.

    Args:
        pieces: The text of each token.
        separator: What ends a step; runs of it end one step, not several.

    Returns:
        Spans that cover the completion without gaps; none for an empty one.
    """
    spans: list[Span] = []
    start, text = 0, ""
    for i, piece in enumerate(pieces):
        text += piece
        complete = separator in text
        more_follows = i + 1 < len(pieces) and pieces[i + 1].startswith(separator)
        if complete and not more_follows:
            if text.strip(separator):
                spans.append(Span(start, i + 1))
            elif spans:  # separators alone belong to the step before
                spans[-1] = Span(spans[-1].start, i + 1)
            else:
                continue
            start, text = i + 1, ""
    if start < len(pieces):
        spans.append(Span(start, len(pieces)))
    return spans
