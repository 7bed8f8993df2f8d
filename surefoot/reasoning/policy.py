"""A policy: a language model, how problems are put to it, what samples from it, and who grades its answers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling, decode_trajectories, with_stops
from surefoot.reasoning.sequences import Span, split_spans
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("Policy", "Start")


class Start(NamedTuple):
    """Where completions begin."""

    problem: Problem
    given: Sequence[int] = ()  # first token ids of the completion; the policy goes on from them
    group: int = 0  # completions with equal numbers are compared with each other
    #: Token ids to use in place of the policy's own prompt, such as those of a stored completion that is gone on from.
    prompt: Sequence[int] | None = None


@dataclass
class Policy:
    """A model that answers problems.

    Args:
        model: The language model; the engine follows its weights.
        prompt: How problems become token ids.
        engine: Samples.
        grader: Finds and compares final answers.
    """

    model: LanguageModel
    prompt: Prompt
    engine: RolloutEngine
    grader: Grader
    _version: int | None = field(default=None, init=False, repr=False)

    def ready(self, version: int = 0) -> None:
        """Give the engine the model's present weights, unless it has those of this version; the first time, start it.

        Args:
            version: Stamp of the weights, and of what is sampled with them.
        """
        if self._version is None:
            try:
                self.engine.start(self.model, version)
            except BaseException:
                self.engine.close()
                raise
        elif self._version != version:
            self.engine.update_weights(self.model.named_weights(), version)
        self._version = version

    def complete(
        self, starts: Sequence[Start], sampling: Sampling | Sequence[Sampling], seeds: Sequence[int]
    ) -> list[Trajectory]:
        """Return sampled, decoded and graded completions.

        Args:
            starts: Where completions begin.
            sampling: How they are sampled, from all starts or from each of them; ``max_tokens`` counts what is sampled.
            seeds: One per start.

        Returns:
            ``sampling.n`` of each start, start by start.

        Raises:
            RuntimeError: If the policy is not ready.
            ValueError: If there are not as many samplings, or seeds, as starts.
        """
        trajectories = self.sample(starts, sampling, seeds)
        self.grade(trajectories)
        return trajectories

    def sample(
        self, starts: Sequence[Start], sampling: Sampling | Sequence[Sampling], seeds: Sequence[int]
    ) -> list[Trajectory]:
        """Return completions without grades; arguments and errors are those of `complete`."""
        samplings = [sampling] * len(starts) if isinstance(sampling, Sampling) else list(sampling)
        stopping = {s: with_stops(s, self.prompt, self.model) for s in dict.fromkeys(samplings)}
        samplings = [stopping[s] for s in samplings]
        prompts = self._prompts(starts)
        given = [[*prompt, *start.given] for prompt, start in zip(prompts, starts, strict=True)]
        sampled = self.engine.generate(given, samplings, seeds)
        trajectories, used, counts = list[Trajectory](), list[Sampling](), Counter[int]()
        for start, prompt, own, completions in zip(starts, prompts, samplings, sampled, strict=True):
            for c in completions:
                trajectory = Trajectory(
                    start.problem,
                    start.group,
                    prompt,
                    completion=[*start.given, *c.tokens],
                    behaviour_logprobs=[*[math.nan] * len(start.given), *c.logprobs],
                    finish_reason=c.finish_reason,
                    policy_version=c.version,
                    n_given=len(start.given),
                    temperature=own.temperature,
                    sample=counts[start.group],
                )
                counts[start.group] += 1
                trajectories.append(trajectory)
                used.append(own)
        decode_trajectories(trajectories, used, self.model, self.prompt)
        return trajectories

    def _prompts(self, starts: Sequence[Start]) -> list[Sequence[int]]:
        """Return each start's prompt; that of a problem that comes several times is encoded once."""
        known: dict[int, Sequence[int]] = {}
        for start in starts:
            if start.prompt is None and id(start.problem) not in known:
                known[id(start.problem)] = self.prompt.prompt_ids(start.problem, self.model)
        return [known[id(s.problem)] if s.prompt is None else s.prompt for s in starts]

    def grade(self, trajectories: Sequence[Trajectory]) -> None:
        """Fill in the grades of decoded completions."""
        grades = self.grader([t.text for t in trajectories], [t.problem.answer for t in trajectories])
        for t, grade in zip(trajectories, grades, strict=True):
            t.grade = grade

    def cut_into_steps(self, trajectories: Sequence[Trajectory], separator: str) -> None:
        """Fill in the trajectories' spans and steps; the end of sequence, or a stop text, belongs to the last span.

        A step that was given whole stays as it is, whatever follows: more separators belong to the next step.
        """
        for t in trajectories:
            t.spans, t.steps = split_spans(t.completion, self.model.decode, separator, t.text)
            given = self.model.decode(t.completion[: t.n_given])
            if given.endswith(separator) and t.text.startswith(given):
                t.spans, t.steps = _cut_at(t.n_given, len(given), t.spans, t.steps)

    def close(self) -> None:
        """End the engine and the grader's processes; `ready` starts them again."""
        if self._version is not None:
            self.engine.close()
            self._version = None
        self.grader.pool.close()


def _cut_at(
    n_tokens: int, n_characters: int, spans: Sequence[Span], steps: Sequence[str]
) -> tuple[list[Span], list[str]]:
    """Return spans and steps with a cut after so many first tokens and characters; the next step begins there."""
    within = next((i for i, s in enumerate(spans) if s.start < n_tokens < s.end), None)
    if within is None:
        return list(spans), list(steps)
    own = steps[within][: n_characters - sum(map(len, steps[:within]))]
    following = slice(within + 1, within + 2)
    end = spans[min(within + 1, len(spans) - 1)].end
    rest = "".join([steps[within][len(own) :], *steps[following]])
    return (
        [*spans[:within], Span(spans[within].start, n_tokens), Span(n_tokens, end), *spans[within + 2 :]],
        [*steps[:within], own, rest, *steps[within + 2 :]],
    )
