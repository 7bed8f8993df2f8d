"""Text that others have written, for a tokenizer: whatever it says, it is read as text, never as a control token."""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from surefoot.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("EncodedText", "MixedText", "Reader", "encode_plain")

#: Private characters, one for each control token, that stand for it in a text in which others may have written it.
_FIRST_MARK = 0xF0000


class MixedText(NamedTuple):
    """A text of our own with parts that others have written."""

    text: str
    written: Sequence[tuple[int, int]]  # where those parts begin and end


class EncodedText(NamedTuple):
    """A text in tokens."""

    tokens: list[int]  # ids
    spans: list[tuple[int, int]]  # where each begins and ends; nowhere for those that the tokenizer adds itself


class Reader(NamedTuple):
    """Who reads a text."""

    tokenizer: "PreTrainedTokenizerBase"  # a fast one
    token: int  # id of a token that is a control token of the reader's, if it is an added one
    add_special_tokens: bool  # whether the tokenizer puts tokens of its own around a text


class _Control(NamedTuple):
    token: int
    start: int
    stop: int


class _Marked(NamedTuple):
    tokenizer: Any  # knows control tokens by their marks only
    marks: dict[int, str]  # of control tokens' ids
    controls: dict[int, int]  # control tokens' ids, by those of their marks


def encode_plain(mixed: MixedText, reader: Reader, whose: str) -> EncodedText:
    """Return the tokens of a text in which no control token comes from the written parts.

    Control tokens are the added ones, flagged special or not. Those of one character or of white space that are not
    flagged are ordinary text, as DeepSeek's ö. Where nobody has written one, the tokens are the tokenizer's own.

    Args:
        mixed: The text.
        reader: Its tokenizer.
        whose: Whose text it is, for the error.

    Raises:
        DataError: If the tokenizer has no other tokens for what is written.
    """
    encoded: Any = reader.tokenizer(
        mixed.text, add_special_tokens=reader.add_special_tokens, return_offsets_mapping=True
    )
    found = EncodedText(list(encoded["input_ids"]), list(encoded["offset_mapping"]))
    controls = _controls_in(found, mixed.text, reader)
    written = bytearray(len(mixed.text))
    for start, stop in mixed.written:
        written[start:stop] = b"\1" * (stop - start)
    own = [c for c in controls if not any(written[c.start : c.stop])]
    if len(own) == len(controls):
        return found
    found = _read_again(mixed.text, own, reader)
    if [c.token for c in _controls_in(found, mixed.text, reader)] != [c.token for c in own]:
        injected = next(c for c in controls if c not in own)
        raise DataError(
            f"{whose}: {mixed.text[injected.start : injected.stop]!r} in its text is a control token of"
            f" {reader.tokenizer.name_or_path}, which cannot be read as plain text: leave it out."
        )
    return found


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: "PreTrainedTokenizerBase", token: int) -> dict[int, str]:
    """Return the texts of all control tokens by their ids."""
    added = tokenizer.added_tokens_decoder
    return {i: t.content for i, t in added.items() if t.special or i == token or len(t.content.strip()) > 1}


def _controls_in(encoded: EncodedText, text: str, reader: Reader) -> list[_Control]:
    """Return the control tokens of a text, each without the white space that it takes in; unknown characters aside."""
    texts, found = _control_tokens(reader.tokenizer, reader.token), []
    for token, (start, stop) in zip(encoded.tokens, encoded.spans, strict=True):
        if token in texts:
            taken = text[start:stop]
            core = taken.strip()
            if core == texts[token] or token != reader.tokenizer.unk_token_id:
                start += len(taken) - len(taken.lstrip())
                found.append(_Control(token, start, start + len(core)))
    return found


@lru_cache(maxsize=2)
def _marked(tokenizer: "PreTrainedTokenizerBase", token: int) -> _Marked:
    """Return a copy of a tokenizer that reads marks in place of control tokens, and these as plain text."""
    from tokenizers import AddedToken

    reading = copy.deepcopy(tokenizer.backend_tokenizer)
    reading.no_truncation()
    reading.no_padding()
    texts = _control_tokens(tokenizer, token)
    added = {i: t for i, t in tokenizer.added_tokens_decoder.items() if i in texts}
    marks = {i: chr(_FIRST_MARK + n) for n, i in enumerate(added)}
    alike = ("single_word", "lstrip", "rstrip", "normalized")
    reading.add_special_tokens(list(added.values()))  # only tokens that are flagged special are split
    reading.encode_special_tokens = True
    reading.add_tokens([AddedToken(marks[i], **{name: getattr(t, name) for name in alike}) for i, t in added.items()])
    return _Marked(reading, marks, {reading.token_to_id(mark): i for i, mark in marks.items()})


def _read_again(text: str, own: Sequence[_Control], reader: Reader) -> EncodedText:
    """Return the tokens of a text with these control tokens and no others."""
    marked = _marked(reader.tokenizer, reader.token)
    parts, origins, last = [], [], 0
    for c in own:
        if c.stop > c.start:
            parts += [text[last : c.start], marked.marks[c.token]]
            origins += [*range(last, c.start), c.start]
            last = c.stop
    origins += range(last, len(text) + 1)
    encoding = marked.tokenizer.encode("".join(parts) + text[last:], add_special_tokens=reader.add_special_tokens)
    tokens = [marked.controls.get(i, i) for i in encoding.ids]
    return EncodedText(tokens, [(origins[a], origins[b]) for a, b in encoding.offsets])
