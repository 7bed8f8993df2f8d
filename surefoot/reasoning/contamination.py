"""Which evaluation problems are in the training set, by shared word n-grams."""

import re
from collections.abc import Sequence

__all__ = ("find_contaminated",)

_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"\w+|[^\w\s.,;:!?'\"]")  # words, and what is no punctuation of prose


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    """Return a text's n-grams of lower-cased words; a shorter text is one gram, signs between its words included."""
    words = _WORD.findall(text.lower())
    if len(words) < n:  # 6+6= and 6-6= have the same words
        return {tuple(_SIGN.findall(text.lower()))} if words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def find_contaminated(train: Sequence[str], evaluation: Sequence[str], n: int = 13) -> list[int]:
    """Return the positions of evaluation texts that share an n-gram of words with a training text.

    Numbers count as words: templated problems with other numbers are not contaminated unless ``n`` words in a row
    agree.

    Args:
        train: Training questions.
        evaluation: Evaluation questions.
        n: Words of an n-gram; a text with fewer words must occur as a whole text.

    Reference: Brown et al., 2020, appendix C (13-grams).
    """
    known: set[tuple[str, ...]] = set()
    for text in train:
        known |= _grams(text, n)
    return [i for i, text in enumerate(evaluation) if not known.isdisjoint(_grams(text, n))]
