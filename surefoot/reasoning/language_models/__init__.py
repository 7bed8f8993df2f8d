"""Causal language models with their tokenizers: pretrained ones, the bundled SmolLM2, and tiny ones from a config."""

from surefoot.reasoning.language_models.base import LanguageModel, LoRA
from surefoot.reasoning.language_models.pretrained import PretrainedLanguageModel, load_tokenizer, text_reader
from surefoot.reasoning.language_models.scoring import completion_logprobs, perplexities
from surefoot.reasoning.language_models.tiny import TinyLanguageModel
from surefoot.reasoning.language_models.value_head import ValueHead

__all__ = (
    "LanguageModel",
    "LoRA",
    "PretrainedLanguageModel",
    "TinyLanguageModel",
    "ValueHead",
    "completion_logprobs",
    "load_tokenizer",
    "perplexities",
    "text_reader",
)
