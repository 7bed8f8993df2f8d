"""Tiny folders of public scorers of steps: classifiers in every layout that is read, and one that writes + or -."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tiny_tokenizers import byte_level
from torch import nn

__all__ = ("CHAT", "Layout", "chat_tokenizer", "classifier_folder", "sign_folder")

Layout = Literal["published", "token", "sequence"]
CHAT = "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<eos>\n{% endfor %}"


def chat_tokenizer() -> Any:
    """A byte-level tokenizer with a step token and a chat template."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "<extra_0>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def _config(tokenizer: Any, **changes: Any) -> Any:
    from transformers import Qwen2Config

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    settings = {"vocab_size": len(tokenizer), **sizes, **heads, **ends, "tie_word_embeddings": False} | changes
    return Qwen2Config(**settings)


def _grown(model: nn.Module, seed: int) -> None:
    """Give weights so large that scores vary, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean = float(p.dim() == 1 and "norm" in name)
            p.copy_(mean + torch.randn(p.shape, generator=generator) * (0.25 if p.dim() > 1 else 0.1))


def classifier_folder(folder: Path, layout: Layout = "published", n_labels: int = 2, **config: Any) -> Path:
    """Write a classifier of steps; ``published`` has the keys and the config of Qwen2.5-Math-PRM."""
    from safetensors.torch import save_file
    from transformers import Qwen2ForSequenceClassification, Qwen2ForTokenClassification, Qwen2Model

    tokenizer = chat_tokenizer()
    settings = _config(tokenizer, **config)
    tokenizer.save_pretrained(folder)
    if layout == "published":
        width = settings.hidden_size
        model = nn.ModuleDict(
            {
                "model": Qwen2Model(settings),
                "score": nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_labels)),
            }
        )
        _grown(model, 1)
        weights = {n: w.contiguous() for n, w in model.state_dict().items()}
        weights["lm_head.weight"] = torch.randn(settings.vocab_size, width)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        written = settings.to_dict() | {
            "architectures": ["Qwen2ForProcessRewardModel"],
            "auto_map": {
                "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
                "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
            },
        }
        (folder / "config.json").write_text(json.dumps(written))
        return folder
    settings.num_labels = n_labels
    kind: Any = Qwen2ForTokenClassification if layout == "token" else Qwen2ForSequenceClassification
    model = kind(settings)
    _grown(model, 1)
    model.save_pretrained(folder)
    return folder


def sign_folder(folder: Path) -> Path:
    """Write a language model that says + or - at a tag, in the manner of Math-Shepherd's."""
    from transformers import Qwen2ForCausalLM

    tokenizer = byte_level()
    tokenizer.add_tokens(["ки"])
    model = Qwen2ForCausalLM(_config(tokenizer))
    _grown(model, 2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
