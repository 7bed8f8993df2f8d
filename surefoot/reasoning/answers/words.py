"""Answers in words: texts, letters of multiple choice, spelled numbers."""

import re

from surefoot.reasoning.answers.nodes import Words

__all__ = ("spelled_number", "words_of")

_CHOICE = re.compile(
    r"^(?:\\text ?\{ ?)?\(? ?([A-Ja-j]) ?(?:\)|(?=[.:]\s)|\} ?|(?=\\text)|$)[).:}]*(?P<rest>|[ \\].*)$"
)
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
            " seventeen eighteen nineteen twenty",
        )
    )
}
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBER_WORDS |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6}


def words_of(text: str) -> Words | None:
    """Return a text as words, none where it is a formula."""
    if text[:1] in ("-", "+") or len(text) == 1:
        return None
    if re.search(r"\d", text) and not _CHOICE.match(text):
        return None
    letter = None
    if (m := _CHOICE.match(text)) and not re.match(r"^[A-Za-z](?![).:}])[^)]", text):
        rest = m["rest"].strip()
        bracketed = not re.match(r"^[A-Za-z]$", text)
        if not rest or (re.match(r"^.*[).:}] ?\S", text) and not re.match(r"^[*/^+=_-]", rest)):
            letter = m[1].upper() if bracketed else m[1]
    if re.search(r"\d", text) and letter is None:
        return None
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_=<>+*/|{}()]", plain) and letter is None:
        return None
    words = _WORD.findall(plain)
    if letter is None and r"\text" not in text and not any(len(w) > 2 for w in words):
        return None
    shown = re.sub(r"[^a-z0-9 ]+", " ", plain.lower())
    shown = re.sub(r"^(?:the|an|a) ", "", " ".join(shown.split()))
    return Words(shown, letter)


def spelled_number(text: str) -> int | None:
    """Return the number that words spell: twenty one, three hundred and five."""
    total, part, before = 0, 0, 10**9
    words = [w for w in text.split() if w != "and"]
    for word in words:
        if word in _MULTIPLES and part:
            scale = _MULTIPLES[word]
            part, before = part * scale, scale
            if scale > 100:
                total, part = total + part, 0
        elif word in _NUMBER_WORDS and (before >= 100 or (before >= 20 and _NUMBER_WORDS[word] < 10)):
            part, before = part + _NUMBER_WORDS[word], _NUMBER_WORDS[word]
        else:
            return None
    return total + part if words else None
