"""Whose labels a value model learns from: what sampled them, and how its problems were put."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from surefoot.errors import DataError
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.contents import differing_contents
from surefoot.storage.json_files import read_json, write_json

__all__ = ("LabelSource", "LabelledTraining", "have_other_models", "prompt_template", "single_prover")

#: File of a run folder that holds it.
_FILE = "labels.json"
_QUESTION = "{question}"


@dataclass(frozen=True)
class LabelSource:
    """Whose labels a value model has learned from.

    Args:
        prompt: The prompt as text, special tokens left out, with {question} in it; none where prompts have no more in
            common, or nothing has recorded them.
        prover: Settings of what the labels were sampled with, as JSON; empty where nothing has recorded them.
    """

    prompt: str | None = None
    prover: str = ""

    def write(self, run: Path) -> None:
        """Write it into a run folder, as ``labels.json``."""
        write_json(run / _FILE, asdict(self))

    @classmethod
    def read(cls, run: Path) -> "LabelSource":
        """Return what a run folder says; nothing is known where it says nothing, as older ones do.

        Raises:
            DataError: If the file is no such record.
        """
        path = run / _FILE
        if not path.is_file():
            return cls()
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise DataError(f"{path} does not say whose labels the model has learned from: {error}.") from error

    def check_prompts(self, trajectories: Sequence[Trajectory], decode: Callable[[Sequence[int]], str]) -> None:
        """Refuse completions that were sampled after another prompt than the labelled ones.

        Args:
            trajectories: What is to be judged.
            decode: Returns the text of token ids.

        Raises:
            DataError: If one was.
        """
        if self.prompt is None:
            return
        for question, prompt in {(t.problem.question, tuple(t.prompt)) for t in trajectories}:
            written, expected = decode(prompt), _fill(self.prompt, question)
            if not _is_filled(self.prompt, question, written):
                equal = next(
                    (i for i, (a, b) in enumerate(zip(expected, written, strict=False)) if a != b),
                    min(len(expected), len(written)),
                )
                theirs, own = (text[max(0, equal - 20) :][:50] for text in (expected, written))
                raise DataError(
                    f"the value model has learned from completions after another prompt, {theirs!r} where the policy's"
                    f" is {own!r}: give the policy its prompt, or train a value model with the policy's."
                )


@runtime_checkable
class LabelledTraining(Protocol):
    """A module that learns from labels, and knows whose."""

    def label_source(self) -> LabelSource:
        """Return whose labels it learns from."""


def prompt_template(prompts: Iterable[tuple[str, str]]) -> str | None:
    """Return the text that questions are put in, with {question} in their place; none where there is no common one.

    A question may stand in it several times, once, or by chance within what stands around it too.

    Args:
        prompts: Questions, and the text of the prompt of each.
    """
    given = list(dict.fromkeys(prompts))
    if not given or not given[0][0].strip():
        return None
    question, text = given[0]
    for own in (question, question.strip()):
        before, _, after = text.rpartition(own)
        first, _, rest = text.partition(own)
        found = (text.replace(own, _QUESTION), f"{before}{_QUESTION}{after}", f"{first}{_QUESTION}{rest}")
        for template in found if own in text else ():
            if all(t in (_fill(template, q), _fill(template, q.strip())) for q, t in given):
                return template
    return None


def _is_filled(template: str, question: str, text: str) -> bool:
    """Return whether a text is a template with a question in it.

    A question that its tokens do not write back may be anything there.
    """
    own = question.strip()
    if own and own in text:
        return text in (_fill(template, question), _fill(template, own))
    return text.startswith(template.split(_QUESTION)[0]) and text.endswith(template.split(_QUESTION)[-1])


def _fill(template: str, question: str) -> str:
    return template.replace(_QUESTION, question)


def single_prover(described: Iterable[str], where: object) -> str:
    """Return the settings of what labels were sampled with, as JSON; empty where nothing has recorded them.

    Labels of other numbers of samples, or of another engine, are of the same prover.

    Args:
        described: The settings of each label.
        where: What has the labels, for errors.

    Raises:
        DataError: If they are of several provers.
    """
    known = [text for text in dict.fromkeys(described) if text]
    for first, second in combinations(map(_prover, known), 2):
        if differing := _differing(first, second):
            raise DataError(
                f"{where} has labels of several provers, of another {' and '.join(differing)}: values of different"
                " policies are not learned or compared together, keep them in folders of their own."
            )
    return next(iter(known), "")


def have_other_models(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two policies have different models, by what their paths hold; by settings where that is not known.

    Args:
        one: Settings of what samples, with ``model`` and, where they were recorded, ``contents`` of its paths.
        other: The same of the other.
    """
    held, held_too = one.get("contents") or {}, other.get("contents") or {}
    if held.keys() & held_too.keys():
        return bool(differing_contents(held, held_too))
    return bool(one.get("model") != other.get("model"))


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the settings in which two provers differ."""
    others = {*first, *second} - {"model", "contents"}
    differing = {name for name in others if first.get(name) != second.get(name)}
    return sorted(differing | ({"model"} if have_other_models(first, second) else set()))


def _prover(described: str) -> dict[str, Any]:
    """Return the settings that make a prover another one."""
    try:
        settings = dict(json.loads(described))
    except (TypeError, ValueError):
        return {"description": described}
    sampling = {n: v for n, v in dict(settings.get("sampling") or {}).items() if n != "n"}
    return {n: v for n, v in settings.items() if n != "engine"} | {"sampling": sampling}
