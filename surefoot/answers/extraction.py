r"""Rules that find the final answer in a completion; every one takes time linear in the text.

``strict``       what follows the last ``####`` on its line (GSM8K's own format)
``boxed``        the argument of the last ``\boxed{}`` whose braces balance (MATH's own format)
``last_number``  the last number of the text
``mixed``        the later of the last box and the last ``####``; else what follows the last "answer is"; else the last number
"""

import re
from collections import deque
from collections.abc import Callable, Mapping

from surefoot.errors import ConfigError

__all__ = ("EXTRACTION_RULES", "MAX_ANSWER_LENGTH", "extract_answer")

#: Longer answers count as unparsable: no reference answer is near it.
MAX_ANSWER_LENGTH = 1000
#: Of a longer text only the end is read, where the answer stands.
_MAX_TEXT_LENGTH = 1_000_000

#: A sign counts where it cannot be an operator: the last number of ``5-3`` is 3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|(?:(?<![\w.)\]}])[-+])?\.\d+"
)
_PHRASE = re.compile(r"answer is:?[ \t]*([^\n]*)", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)[ \t]*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return a pattern's last match."""
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def _strict(text: str) -> tuple[int, str] | None:
    place = text.rfind("####")
    if place < 0:
        return None
    return place, text[place + 4 :].split("\n", 1)[0].strip().rstrip(".").replace("$", "")


def _boxed(text: str) -> tuple[int, str] | None:
    """Match braces in one pass over the whole text: every open box is closed by its own brace or never."""
    boxes = {m.end() - 1: m.start() for m in _BOX.finditer(text)}
    if not boxes:
        return None
    found: tuple[int, str] | None = None
    open_braces: list[int] = []
    for m in _BRACE.finditer(text, min(boxes)):
        if m.group() == "{":
            open_braces.append(m.start())
        elif m.group() == "}" and open_braces:
            start = open_braces.pop()
            if start in boxes:  # of nested boxes the outermost closes last
                found = boxes[start], text[start + 1 : m.start()].strip()
    return found


def _last_number(text: str) -> tuple[int, str] | None:
    last = _last(_NUMBER, text)
    return None if last is None else (last.start(), last.group())


def _phrase(text: str) -> tuple[int, str] | None:
    last = _last(_PHRASE, text)
    if last is None:
        return None
    answer = last.group(1).strip().strip("$.").strip()
    number = _NUMBER.match(answer.lstrip("$"))
    return (last.start(), number.group() if number else answer) if answer else None


def _mixed(text: str) -> tuple[int, str] | None:
    marked = [found for rule in (_boxed, _strict) if (found := rule(text)) is not None]
    if marked:
        return max(marked)
    return _phrase(text) or _last_number(text)


EXTRACTION_RULES: Mapping[str, Callable[[str], tuple[int, str] | None]] = {
    "mixed": _mixed,
    "strict": _strict,
    "boxed": _boxed,
    "last_number": _last_number,
}


def extract_answer(text: str, rule: str = "mixed") -> str | None:
    """Return the final answer as written, none if the rule finds none, an empty one, or one that is too long.

    Args:
        text: A completion.
        rule: One of `EXTRACTION_RULES`.

    Raises:
        ConfigError: If there is no such rule.
    """
    if rule not in EXTRACTION_RULES:
        raise ConfigError(f"no extraction rule {rule!r}; there are {', '.join(EXTRACTION_RULES)}.")
    found = EXTRACTION_RULES[rule](text[-_MAX_TEXT_LENGTH:])
    if found is None or not found[1] or len(found[1]) > MAX_ANSWER_LENGTH:
        return None
    return found[1].replace("\0", "")
