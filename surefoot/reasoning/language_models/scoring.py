"""What a language model says about given completions, without gradient: log-probabilities and perplexities."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from surefoot.reasoning.language_models.base import LanguageModel
from surefoot.reasoning.sequences import Pack, PromptCompletion, pack_sequences
from surefoot.training.modes import evaluation_mode

__all__ = ("completion_logprobs", "perplexities")


@torch.no_grad()
def completion_logprobs(
    model: LanguageModel,
    sequences: Sequence[PromptCompletion],
    max_tokens_per_pack: int,
    temperature: float = 1.0,
    equalise: Callable[[Sequence[Pack]], Sequence[Pack]] = list,
) -> list[Tensor]:
    """Return the log-probabilities of completions' tokens, packed and with the head in chunks.

    Args:
        model: The model, in whatever mode it is.
        sequences: Prompts and completions; all tokens of the completions are scored, whatever their masks.
        max_tokens_per_pack: Most tokens that are put through the model at once.
        temperature: Divides the logits.
        equalise: Makes the packs equally many on ranks that have to pass through the model together.

    Returns:
        One tensor per sequence, ``(completion,)``, nats, float32 on the CPU.
    """
    scored = [torch.zeros(len(s.completion)) for s in sequences]
    whole = [s._replace(mask=None) for s in sequences]
    for pack in equalise(pack_sequences(whole, max_tokens_per_pack)):
        scores = model.score(pack.to(model.device), temperature)
        values = scores.logprobs.float().cpu()
        for i in pack.sequences.unique().tolist():
            own = pack.sequences == i
            scored[i][pack.completion_positions[own]] = values[own]
    return scored


def perplexities(
    model: LanguageModel,
    sequences: Sequence[PromptCompletion],
    max_tokens_per_pack: int,
    equalise: Callable[[Sequence[Pack]], Sequence[Pack]] = list,
) -> Tensor:
    """Return the perplexity of each completion given its prompt: exp of the mean negative log-probability per token.

    The model is put into evaluation mode and back.

    Args:
        model: The model.
        sequences: Prompts and completions of at least one token.
        max_tokens_per_pack: Most tokens that are put through the model at once.
        equalise: As in `completion_logprobs`.

    Returns:
        ``(sequences,)``, float64.
    """
    with evaluation_mode(model):
        scored = completion_logprobs(model, sequences, max_tokens_per_pack, equalise=equalise)
    means = [-float(s.double().mean()) for s in scored]
    return torch.tensor(means, dtype=torch.float64).exp()
