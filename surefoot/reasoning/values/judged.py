"""Completions with labels or estimates of how they end, at some of their prefixes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from surefoot.errors import DataError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.sequences import Pack, PromptCompletion
from surefoot.reasoning.trajectories import Trajectory

__all__ = (
    "Judged",
    "judged_sequence",
    "predicted_values",
    "prefix_lengths",
    "value_logits",
)


class Judged(NamedTuple):
    """A completion and the values of some of its prefixes."""

    prompt: Sequence[int]  # token ids, at least two
    completion: Sequence[int]  # token ids
    n_tokens: Sequence[int]  # of the completion that each prefix has, rising; 0 is the prompt alone
    values: Sequence[float]  # probability of a right end from each prefix, in [0, 1]
    weights: Sequence[float]  # of each prefix in the loss
    n_steps: Sequence[int]  # that each prefix has, finished ones
    text: str = ""  # that the completion's tokens begin with, where it is known
    question: str = ""  # of the problem, where it is known
    outcome: float | None = None  # 1 where the whole completion ends right, else 0; none where nobody knows


def prefix_lengths(trajectory: Trajectory) -> list[int]:
    """Return how many tokens of a completion its prefixes have: none, then up to the end of each span."""
    return [0, *(span.end for span in trajectory.token_spans())]


def judged_sequence(prompt: Sequence[int], completion: Sequence[int], n_tokens: Sequence[int]) -> PromptCompletion:
    """Return the sequence whose scored tokens are the last ones of each prefix, to be packed with ``keep_last``.

    One forward pass of it has a hidden state for every prefix.

    Args:
        prompt: Token ids, at least two.
        completion: Token ids.
        n_tokens: Tokens of the completion that each prefix has, in [0, completion].

    Raises:
        DataError: If the prompt is shorter.
    """
    if len(prompt) < 2:
        raise DataError(f"a prompt of {len(prompt)} tokens cannot be judged: expected two or more.")
    judged = set(n_tokens)
    return PromptCompletion(prompt[:-1], [prompt[-1], *completion], [n in judged for n in range(len(completion) + 1)])


def value_logits(model: LanguageModel, head: nn.Module, pack: Pack) -> Tensor:
    """Return the logit of each judged prefix's value, ``(scored,)``, in the order of the pack's scored tokens."""
    logits: Tensor = head(pack.at_scored(model.hidden_states(pack)))
    return logits


def predicted_values(
    model: LanguageModel, head: nn.Module, packs: Sequence[Pack], n_tokens: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Return the predicted value of each prefix of each completion, in [0, 1].

    Args:
        model: Model of the prefixes.
        head: From its hidden states to the logit of a value, such as `ValueHead`.
        packs: Packs of all completions' `judged_sequence`, in their order.
        n_tokens: Lengths of each completion's prefixes.
    """
    found = [torch.zeros(n[-1] + 1) for n in n_tokens]
    for pack in packs:
        values = value_logits(model, head, pack.to(model.device)).sigmoid().float().cpu()
        for i in pack.sequences.unique().tolist():
            own = pack.sequences == i
            found[i][pack.completion_positions[own]] = values[own]
    return [values[list(n)].tolist() for values, n in zip(found, n_tokens, strict=True)]
