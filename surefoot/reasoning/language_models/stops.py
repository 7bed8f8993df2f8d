"""Which tokens end a completion, as generation config, tokenizer and chat template say."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

__all__ = ("configured_stops", "end_of_turn", "rendering_errors", "special_tokens")

#: An answer that no template writes by itself.
_ANSWER = "surefoot answers 7"


def configured_stops(generation_config: "GenerationConfig | None") -> list[int]:
    """Return the end-of-sequence tokens of a generation config, which has none, one or a list of them."""
    ids = getattr(generation_config, "eos_token_id", None)
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the ids of the tokens that decoding leaves out."""
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", chat_template: str | None = None) -> list[int]:
    """Return what a chat template writes after an assistant's answer, up to the first added token.

    Args:
        tokenizer: The tokenizer.
        chat_template: Jinja template in place of the tokenizer's.

    Returns:
        Token ids; none where there is no template, or it ends a turn with plain text or not at all.
    """
    template = chat_template or tokenizer.chat_template
    if isinstance(template, dict):  # several by name
        template = template.get("default")
    return list(_end_of_turn(tokenizer, template)) if isinstance(template, str) else []


def rendering_errors() -> tuple[type[Exception], ...]:
    """Return what a chat template, which is a program, raises where it cannot render a conversation."""
    from jinja2 import TemplateError

    return TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError


@lru_cache(maxsize=8)
def _end_of_turn(tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> tuple[int, ...]:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=chat_template)
    except rendering_errors():  # a template of another kind of conversation
        return ()
    _, found, after = str(text).rpartition(_ANSWER)
    if not found:
        return ()
    ids: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    added = {*special_tokens(tokenizer), *tokenizer.added_tokens_decoder} - {tokenizer.unk_token_id}
    ends = [i for i, token in enumerate(ids) if token in added]
    return tuple(ids[: ends[0] + 1]) if ends else ()
