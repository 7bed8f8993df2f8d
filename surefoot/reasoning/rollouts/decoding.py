"""What ends a completion, and its text without that."""

from collections.abc import Sequence
from dataclasses import replace

from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.stops import special_tokens
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts.engine import Sampling
from surefoot.reasoning.sequences import tokens_for
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("decode_trajectories", "with_stops")


def with_stops(sampling: Sampling, prompt: Prompt, model: LanguageModel) -> Sampling:
    """Return the sampling with what ends the answer to a prompt: its stop texts, and the end of its turn."""
    texts = dict.fromkeys((*sampling.stop, *prompt.stop))
    tokens = dict.fromkeys((*sampling.stop_token_ids, prompt.end_ids(model)[-1]))
    return replace(sampling, stop=tuple(texts), stop_token_ids=tuple(tokens))


def decode_trajectories(
    trajectories: Sequence[Trajectory], samplings: Sequence[Sampling], model: LanguageModel, prompt: Prompt
) -> None:
    """Fill in the trajectories' texts and targets.

    A text ends before what stopped it, so that the beginning of a next question is not graded. What was given is part
    of it whatever it holds: only what was sampled can have been stopped.

    Args:
        trajectories: Sampled ones.
        samplings: How each was sampled, with the prompt's stops.
        model: Whose tokenizer decodes them.
        prompt: How the problems were put.
    """
    end = prompt.end_ids(model)
    special = special_tokens(model.tokenizer)
    for t, sampling in zip(trajectories, samplings, strict=True):
        stops = {*sampling.stop_token_ids, *special} - {*model.stop_token_ids, end[-1]}
        ids = list(t.completion)
        stopped = t.finish_reason == "stop" and ids[-1] in stops
        text = model.decode(ids[:-1] if stopped else ids)
        n_given = _n_alike(model.decode(ids[: t.n_given]), text) if t.n_given else 0
        cuts = [at for s in sampling.stop if (at := text.find(s, n_given)) >= 0]
        if stopped or cuts:
            text = text[: min(cuts, default=len(text))]
            ids = [*_tokens_of(text[:n_given] + text[n_given:].rstrip(), ids, model, t.n_given), *end]
        t.text, t.target = text, ids


def _n_alike(a: str, b: str) -> int:
    """Return how many first characters two texts have in common: a prefix may end within a character."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _tokens_of(text: str, ids: list[int], model: LanguageModel, n_given: int) -> list[int]:
    """Return the tokens of a beginning of their text; a last one that goes beyond it is encoded again.

    The first ``n_given`` stay as they are.
    """
    n = max(n_given, tokens_for(ids, model.decode, text, n_given))
    if n > n_given and model.decode(ids[:n]) != text:
        n -= 1
        while n > n_given and not text.startswith(model.decode(ids[:n])):  # it ends within a character
            n -= 1
    return [*ids[:n], *model.encode(text[_n_alike(model.decode(ids[:n]), text) :])]
