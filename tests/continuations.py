"""A sampler, a value estimator and a credit assigner of a user's own, which go on from prefixes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from surefoot.reasoning.credit import CreditAssigner
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf
from surefoot.reasoning.samplers import TrajectorySampler
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator

__all__ = ("ContinuationSampler", "ContinuationValues", "ProgressAdvantage")


class ContinuationSampler(TrajectorySampler):
    """Whole completions of a problem and continuations of its solution's first line, half as long, in one group."""

    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return the graded trajectories of all problems."""
        starts, samplings, seeds = list[Start](), list[Sampling](), list[int]()
        half = Sampling(n=sampling.n, max_tokens=max(1, sampling.max_tokens // 2))
        for group, problem in enumerate(problems):
            line = policy.model.encode(problem.solution.split("\n")[0] + "\n")
            starts += [Start(problem, group=group), Start(problem, line, group)]
            samplings += [sampling, half]
            seeds += [seed_of(problem.id), seed_of(problem.id, "continued")]
        return policy.complete(starts, samplings, seeds)


class ContinuationValues(ValueEstimator):
    """The share of completions that end right, sampled from the prompt and from the end of every span."""

    def __init__(self, n: int = 2, max_tokens: int = 8) -> None:
        """Initialize the estimator.

        Args:
            n: Completions of each prefix.
            max_tokens: Longest completion, tokens.
        """
        self.sampling = Sampling(n=n, max_tokens=max_tokens)

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in values; a completion's own outcome is the last one."""
        ends = [[0, *(s.end for s in t.token_spans())][:-1] for t in trajectories]
        prefixes = [(i, end) for i, own in enumerate(ends) for end in own]
        starts = [
            Start(trajectories[i].problem, trajectories[i].completion[:end], number, trajectories[i].prompt)
            for number, (i, end) in enumerate(prefixes)
        ]
        n_right = [0] * len(prefixes)
        seeds = [seed_of(trajectories[i].problem.id, trajectories[i].sample, end) for i, end in prefixes]
        for t in policy.complete(starts, self.sampling, seeds):
            n_right[t.group] += t.grade is not None and t.grade.correct
        for i, t in enumerate(trajectories):
            own = [n_right[number] / self.sampling.n for number, (owner, _) in enumerate(prefixes) if owner == i]
            t.values = [*own, float(t.grade is not None and t.grade.correct)]


class ProgressAdvantage(CreditAssigner):
    """What each span adds to the value."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Return advantages per token."""
        advantages = [torch.zeros(len(t.completion)) for t in trajectories]
        for t, own in zip(trajectories, advantages, strict=True):
            for i, span in enumerate(t.token_spans()):
                own[span.start : span.end] = t.values[i + 1] - t.values[i]
        return advantages
