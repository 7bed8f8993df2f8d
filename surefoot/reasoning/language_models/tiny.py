"""Llamas of a few hundred thousand parameters, built from numbers."""

import math
from typing import Any, Literal

import torch

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models.base import DTYPES, LanguageModel, LoRA
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer

__all__ = ("TinyLanguageModel",)


class TinyLanguageModel(LanguageModel):
    """A small Llama with random weights and one token per character."""

    def __init__(
        self,
        width: int = 128,
        n_layers: int = 2,
        n_heads: int = 4,
        n_key_value_heads: int | None = None,
        max_length: int = 512,
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: LoRA | None = None,
        seed: int | None = None,
        initializer_range: float = 0.02,
    ) -> None:
        """Initialize the language model.

        Args:
            width: Width of the hidden states; inside the MLPs it is three times as large.
            n_layers: Number of layers.
            n_heads: Attention heads per layer.
            n_key_value_heads: Heads of keys and values; as many as attention heads by default.
            max_length: Most tokens of a sequence.
            dtype: Precision of the weights.
            lora: Train low-rank adapters instead of all weights.
            seed: Seed of the random weights; the run's ``seed_everything`` by default, 0 outside the command line.
            initializer_range: Standard deviation of the random weights; 0.02 is that of large Llamas.

        Raises:
            ConfigError: If the standard deviation is negative or not finite.
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        if not 0 <= initializer_range < math.inf:
            raise ConfigError(f"initializer_range must be at least 0 and finite, got {initializer_range}.")

        tokenizer = digit_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_key_value_heads=n_key_value_heads or n_heads,
            max_position_embeddings=max_length,
            tie_word_embeddings=True,
            initializer_range=initializer_range,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            model: Any = LlamaForCausalLM(config)
        model.to(DTYPES[dtype])
        super().__init__(model, tokenizer, lora)
