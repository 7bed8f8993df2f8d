"""Small language models whose outputs vary, and prompts for them: for engines, and for processes that are killed."""

import torch

from surefoot.reasoning.language_models import LanguageModel, TinyLanguageModel

__all__ = ("CONFIGURED", "prompts", "sharp_model")

#: One of the tokens that end a completion of the models below.
CONFIGURED = "z"


def sharp_model(seed: int, **arguments: object) -> LanguageModel:
    """Return a small model with weights so large that its outputs vary."""
    model = TinyLanguageModel(width=128, n_layers=2, n_heads=4, max_length=256, **arguments)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1 and p.requires_grad:
                p.copy_(0.25 * torch.randn(p.shape, generator=generator))
    # As of a chat model: turns end with another token than the tokenizer's end of sequence, and the config names a
    # third.
    model.base.generation_config.eos_token_id = [model.eos_token_id, *model.encode(CONFIGURED)]
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<bos>{% endfor %}"
    return model


def prompts(model: LanguageModel) -> list[list[int]]:
    return [model.encode(q) for q in ("12+3=", "7*8-2+1%10=", "1=", "7*8-2+1%10=abc", "9-9-9")]
