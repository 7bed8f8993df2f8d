"""Tokenizers of two real kinds, trained on a few words, and tiny language models with them."""

from typing import Any

from surefoot.reasoning.language_models import LanguageModel

__all__ = ("byte_level", "model_with", "word_pieces")

CORPUS = [
    "Tom buys 3 apples. Question: What is 12 + 30?\n\nAnswer: 42.\n\nQuestion: Then the answer is 7.\n",
    "a step\nanother step\n\nthe last step",
] * 5
SPECIAL = ["<eos>", "<turn>", "<pad>"]


def _wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<turn>"],
        clean_up_tokenization_spaces=False,
    )


def byte_level() -> Any:
    """Return a byte-level BPE tokenizer, as GPT-2's or Llama 3's: an unseen character takes several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _wrapped(tokenizer)


def word_pieces() -> Any:
    """Return a BPE tokenizer as Llama 2's: spaces belong to words, but the first; unseen characters are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *SPECIAL, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([c.replace("\n", " ") for c in CORPUS], trainer)
    return _wrapped(_with_plain_bytes(tokenizer, bytes_))


def _with_plain_bytes(tokenizer: Any, names: list[str]) -> Any:
    """Return the tokenizer with its byte tokens as ordinary ones; training takes fixed tokens only as special ones."""
    import json

    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in names]
    return Tokenizer.from_str(json.dumps(state))


def model_with(tokenizer: Any, seed: int = 0) -> LanguageModel:
    """Return a Llama of a few thousand random parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    return LanguageModel(LlamaForCausalLM(config), tokenizer)
