"""The record that flows through reinforcement learning: sampled, graded, cut into spans, rewarded, credited."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from surefoot.reasoning.answers import Grade
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import PromptCompletion, Span

__all__ = ("Trajectory",)


@dataclass
class Trajectory:
    """One completion of one problem and all that became known of it.

    A sampler makes it; grader, reward functions and credit assigner fill in their part, each its own.
    """

    problem: Problem
    group: int  # trajectories with equal numbers are compared with each other, within one rollout
    prompt: Sequence[int]  # token ids
    completion: Sequence[int]  # token ids as sampled, end of sequence included
    behaviour_logprobs: Sequence[float]  # of the policy that sampled, nats per token
    finish_reason: Literal["stop", "length"]
    policy_version: int  # of the weights that sampled it
    text: str = ""  # up to what stopped it
    target: Sequence[int] = ()  # to fine-tune on: the completion, a stop text in it replaced by the end of the turn
    grade: Grade | None = None
    mask: Sequence[bool] | None = None  # tokens that count in the loss; all by default
    spans: Sequence[Span] = ()  # steps or episodes; one span over everything where nothing cut it
    steps: Sequence[str] = ()  # the text of each span
    rewards: Sequence[float] = ()  # one per span; an outcome reward stands on the last
    reward_parts: dict[str, float] = field(default_factory=dict)  # by reward function, unweighted

    @property
    def total_reward(self) -> float:
        """The sum of the spans' rewards."""
        return float(sum(self.rewards))

    @property
    def sequence(self) -> PromptCompletion:
        """Prompt and completion as they are packed."""
        return PromptCompletion(self.prompt, self.completion, self.mask)

    def token_spans(self) -> Sequence[Span]:
        """Return the spans, or one over the whole completion."""
        return self.spans or (Span(0, len(self.completion)),)
