"""A tokenizer with one token per character, for tiny models of arithmetic."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ("ALPHABET", "digit_tokenizer")

#: Digits, operators, and what steps, answers and retries are written with.
ALPHABET = "0123456789+-*=()%;:,.?# \nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def digit_tokenizer() -> "PreTrainedTokenizerFast":
    """Return a tokenizer of single characters that transformers and vLLM save and load.

    Special tokens: ``<pad>``, ``<bos>``, ``<eos>``, ``<unk>``. Nothing is added to a text; encoding and decoding are
    inverse on `ALPHABET`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    arguments: dict[str, object] = {
        "pad_token": "<pad>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **arguments)
