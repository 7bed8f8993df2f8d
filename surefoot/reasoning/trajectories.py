"""The record of a completion, from sampling to credit, and the row that stores it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from surefoot.reasoning.answers import Grade
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import PromptCompletion, Span

__all__ = ("REQUIRED_COLUMNS", "Trajectory")

#: What every stored row has. Those that an earlier version wrote have no more.
REQUIRED_COLUMNS = (
    "problem_id",
    "problem_index",
    "sample",
    "question",
    "reference",
    "prompt_ids",
    "completion_ids",
    "target_ids",
    "logprobs",
    "text",
    "finish_reason",
    "status",
    "answer",
)


@dataclass
class Trajectory:
    """One completion of one problem and all that became known of it.

    A sampler makes it; grader, value estimator, reward functions and credit assigner fill in their part, each its own.
    A completion may begin with tokens that were given to the policy: they belong to its text, its spans and its steps,
    and are outside the loss unless a mask says otherwise.
    """

    problem: Problem
    group: int  # trajectories with equal numbers are compared with each other, within one rollout
    prompt: Sequence[int]  # token ids
    completion: Sequence[int]  # token ids as given and sampled, end of sequence included
    behaviour_logprobs: Sequence[float]  # of each token under the policy that sampled it, nats; NaN where it was given
    finish_reason: Literal["stop", "length", "step"]  # "step": it goes on; in a search only
    policy_version: int  # of the weights that sampled it
    n_given: int = 0  # first tokens of the completion that were given, not sampled
    temperature: float = 1.0  # that it was sampled at
    sample: int = 0  # its number among those of its group that were sampled together
    policy: str = ""  # settings of what sampled it, as JSON; empty where nothing has recorded them
    text: str = ""  # up to what stopped it
    target: Sequence[int] = ()  # to fine-tune on: the completion, a stop text in it replaced by the end of the turn
    grade: Grade | None = None
    mask: Sequence[bool] | None = None  # tokens that count in the loss; by default those that were sampled
    spans: Sequence[Span] = ()  # steps or episodes; one span over everything where nothing cut it
    steps: Sequence[str] = ()  # the text of each span
    values: Sequence[float] = ()  # of the prompt, then after each span; empty where nothing estimated them
    value_counts: Sequence[int] = ()  # completions behind each value, where it was sampled; 0 where it is known exactly
    prover: str = ""  # settings of what the values were sampled with, as JSON; empty where nothing has recorded them
    rewards: Sequence[float] = ()  # one per span; an outcome reward stands on the last
    reward_parts: dict[str, float] = field(default_factory=dict)  # by reward function, unweighted

    @property
    def is_correct(self) -> bool:
        """Whether its answer was graded, and as correct."""
        return self.grade is not None and self.grade.correct

    @property
    def total_reward(self) -> float:
        """The sum of the rewards of what the policy did; spans that were given to it do not count."""
        return self.learned_sum(self.rewards)

    def learned_sum(self, per_span: Sequence[float]) -> float:
        """Return the sum over the spans that are the policy's doing.

        Args:
            per_span: A number for each of `token_spans`.
        """
        if self.n_given == 0:
            return float(sum(per_span))
        return float(sum(r for r, span in zip(per_span, self.token_spans(), strict=True) if self.is_learned(span)))

    @property
    def n_sampled(self) -> int:
        """Number of tokens that were sampled."""
        return len(self.completion) - self.n_given

    @property
    def loss_mask(self) -> Sequence[bool] | None:
        """Which of the completion's tokens count in the loss; None where all do."""
        if self.mask is not None or self.n_given == 0:
            return self.mask
        return [False] * self.n_given + [True] * self.n_sampled

    @property
    def n_in_loss(self) -> int:
        """Number of tokens that count in the loss."""
        mask = self.loss_mask
        return len(self.completion) if mask is None else sum(mask)

    @property
    def sequence(self) -> PromptCompletion:
        """Prompt and completion as they are packed."""
        return PromptCompletion(self.prompt, self.completion, self.loss_mask)

    @property
    def target_sequence(self) -> PromptCompletion:
        """Prompt and target as they are packed: what was given counts to the prompt."""
        return PromptCompletion([*self.prompt, *self.target[: self.n_given]], self.target[self.n_given :])

    def token_spans(self) -> Sequence[Span]:
        """Return the spans, or one over the whole completion."""
        return self.spans or (Span(0, len(self.completion)),)

    def is_learned(self, span: Span) -> bool:
        """Return whether a span is the policy's doing: some of it was sampled, or the mask has it count in the loss."""
        if self.n_given == 0 or span.end > self.n_given:
            return True
        return self.mask is not None and any(self.mask[span.start : span.end])

    def as_shown(self) -> dict[str, object]:
        """Return what a reader of samples wants to know, under the names of tables of samples and of predictions."""
        reference = self.problem.answer or None
        return {
            "problem": self.problem.id,
            "question": self.problem.question,
            "completion": self.text,
            "answer": self.grade.answer if self.grade else None,
            "reference": reference,
            "grade": self.grade.status if self.grade and reference else None,
            "finish_reason": self.finish_reason,
            "tokens": len(self.completion),
        }

    def as_row(self) -> dict[str, object]:
        """Return everything in plain types, a column each: the one schema of stored completions."""
        return {
            "problem_id": self.problem.id,
            "problem_index": self.group,
            "sample": self.sample,
            "question": self.problem.question,
            "reference": self.problem.answer,
            "prompt_ids": list(self.prompt),
            "completion_ids": list(self.completion),
            "target_ids": list(self.target),
            "logprobs": list(self.behaviour_logprobs),
            "text": self.text,
            "finish_reason": self.finish_reason,
            "status": self.grade.status if self.grade else None,
            "answer": self.grade.answer if self.grade else None,
            "solution": self.problem.solution,
            "details": json.dumps(dict(self.problem.details), ensure_ascii=False),
            "policy_version": self.policy_version,
            "temperature": self.temperature,
            "policy": self.policy,
            "n_given": self.n_given,
            "mask": None if self.mask is None else list(self.mask),
            "span_starts": [s.start for s in self.spans],
            "span_ends": [s.end for s in self.spans],
            "steps": list(self.steps),
            "values": list(self.values),
            "value_counts": list(self.value_counts),
            "prover": self.prover,
            "rewards": list(self.rewards),
            "reward_parts": json.dumps(self.reward_parts),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Trajectory":
        """Return what `as_row` described; of the columns beyond `REQUIRED_COLUMNS` any may be missing.

        Raises:
            ValueError: If columns that count the same tokens, or the same spans, differ in length, or the spans do not
                cut the completion.
        """
        details = json.loads(row.get("details") or "{}")
        n = len(row["completion_ids"])
        spans = _spans(row.get("span_starts") or (), row.get("span_ends") or (), n)
        if (row.get("n_given") or 0) > n:
            raise ValueError(f"{row['n_given']} of {n} tokens were given")
        for name in ("logprobs", "mask"):
            if row.get(name) is not None and len(row[name]) != n:
                raise ValueError(f"{name} has {len(row[name])} values for {n} tokens")
        return cls(
            problem=Problem(row["problem_id"], row["question"], row["reference"], row.get("solution") or "", details),
            group=row["problem_index"],
            prompt=row["prompt_ids"],
            completion=row["completion_ids"],
            behaviour_logprobs=row["logprobs"],
            finish_reason=row["finish_reason"],
            policy_version=row.get("policy_version") or 0,
            n_given=row.get("n_given") or 0,
            temperature=1.0 if row.get("temperature") is None else row["temperature"],
            sample=row["sample"],
            policy=row.get("policy") or "",
            text=row["text"],
            target=row["target_ids"],
            grade=None if row["status"] is None else Grade(row["status"], row["answer"]),
            mask=row.get("mask"),
            spans=spans,
            steps=row.get("steps") or (),
            values=row.get("values") or (),
            value_counts=row.get("value_counts") or (),
            prover=row.get("prover") or "",
            rewards=row.get("rewards") or (),
            reward_parts=json.loads(row.get("reward_parts") or "{}"),
        )


def _spans(starts: Sequence[int], ends: Sequence[int], n_tokens: int) -> list[Span]:
    """Return the spans of a row, none where nothing has cut the completion.

    Raises:
        ValueError: If they do not follow one another from the first token to the last.
    """
    if len(starts) != len(ends):
        raise ValueError(f"span_starts has {len(starts)} values, span_ends {len(ends)}")
    bounds = [0, *ends]
    if starts and (list(starts) != bounds[:-1] or ends[-1] != n_tokens or any(a >= b for a, b in pairwise(bounds))):
        raise ValueError(
            f"span_starts {list(starts)} and span_ends {list(ends)} do not cut {n_tokens} tokens into steps that follow"
            " one another"
        )
    return [Span(*s) for s in zip(starts, ends, strict=True)]
