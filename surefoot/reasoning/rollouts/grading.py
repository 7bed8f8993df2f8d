"""From sampled trajectories to graded ones."""

from collections.abc import Sequence
from dataclasses import replace

from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.stops import special_tokens
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts.engine import Sampling
from surefoot.reasoning.sequences import tokens_for
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("grade_trajectories", "with_stops")


def with_stops(sampling: Sampling, prompt: Prompt, model: LanguageModel) -> Sampling:
    """Return the sampling with what ends the answer to a prompt: its stop texts, and the end of its turn."""
    texts = dict.fromkeys((*sampling.stop, *prompt.stop))
    tokens = dict.fromkeys((*sampling.stop_token_ids, prompt.end_ids(model)[-1]))
    return replace(sampling, stop=tuple(texts), stop_token_ids=tuple(tokens))


def grade_trajectories(
    trajectories: Sequence[Trajectory],
    model: LanguageModel,
    grader: Grader,
    prompt: Prompt,
    sampling: Sampling,
    prefix: str = "",
) -> None:
    """Fill in the trajectories' texts, targets and grades.

    A text ends before what stopped it, so that the beginning of a next question is not graded.

    Args:
        trajectories: Sampled ones.
        model: Whose tokenizer decodes them.
        grader: Finds and compares final answers.
        prompt: How the problems were put.
        sampling: How they were sampled, with the prompt's stops.
        prefix: Text of the answer that stood in the prompt already.
    """
    end = prompt.end_ids(model)
    stops = {*sampling.stop_token_ids, *special_tokens(model.tokenizer)}
    stops -= {*model.stop_token_ids, end[-1]}
    for t in trajectories:
        ids = list(t.completion)
        stopped = t.finish_reason == "stop" and ids[-1] in stops
        text = model.decode(ids[:-1] if stopped else ids)
        places = [text.find(s) for s in sampling.stop if s in text]
        if stopped or places:
            text = text[: min(places, default=len(text))]
            ids = [*_tokens_of(text.rstrip(), ids, model), *end]
        t.text, t.target = prefix + text, ids
    grades = grader([t.text for t in trajectories], [t.problem.answer for t in trajectories])
    for t, grade in zip(trajectories, grades, strict=True):
        t.grade = grade


def _tokens_of(text: str, ids: list[int], model: LanguageModel) -> list[int]:
    """Return the tokens of a beginning of their text; a last one that goes beyond it is encoded again."""
    n = tokens_for(ids, model.decode, text)
    if model.decode(ids[:n]) != text:
        n -= 1
        while not text.startswith(model.decode(ids[:n])):  # it ends within a character
            n -= 1
    return [*ids[:n], *model.encode(text.removeprefix(model.decode(ids[:n])))]
