r"""Where a tidy text can be cut: outside of all brackets, LaTeX's included."""

import re
from collections.abc import Iterator

__all__ = ("dense", "enclosed", "split_outside")

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)


def _depths(text: str) -> Iterator[tuple[str, int, int]]:
    r"""Yield tokens, where they start, and how many brackets are open around them; ``(0, 1]`` counts as closed."""
    depth = 0
    for m in _TOKEN.finditer(text):
        token = m.group()
        if token in (")", "]", "}", r"\}", r"\rangle", r"\end"):
            depth -= 1
        yield token, m.start(), depth
        if token in ("(", "[", "{", r"\{", r"\langle", r"\begin"):
            depth += 1


def split_outside(text: str, separators: set[str]) -> tuple[list[str], list[str]]:
    """Return the parts between separators outside of all brackets, and the separators."""
    parts, found, start = [], [], 0
    for token, position, depth in _depths(text):
        if token in separators and depth == 0:
            parts.append(text[start:position].strip())
            found.append(token)
            start = position + len(token)
    return [*parts, text[start:].strip()], found


def enclosed(text: str) -> tuple[str, str, str] | None:
    """Return the brackets around the whole text and what they hold, none where there are none."""
    opening = next((b for b in (r"\{", r"\langle", "(", "[", "{") if text.startswith(b)), None)
    closing = next((b for b in (r"\}", r"\rangle", ")", "]", "}") if text.endswith(b)), None)
    if opening is None or closing is None or len(text) < len(opening) + len(closing):
        return None
    if (opening == r"\{") != (closing == r"\}") or (opening == "{") != (closing == "}"):
        return None
    last = len(text) - len(closing)
    for token, position, depth in _depths(text):
        if (depth == 0 and token == closing and position != last) or depth < 0:
            return None
        if depth == 0 and position > 0 and position < last:
            return None
    return opening, text[len(opening) : last].strip(), closing


def dense(text: str) -> str:
    """Return a text without the spaces that separate neither two words nor two numbers."""
    return re.sub(r"(?<![a-zA-Z\d]) +| +(?![a-zA-Z\d])|(?<=[a-zA-Z]) +(?=\d)|(?<=\d) +(?=[a-zA-Z])", "", text)
