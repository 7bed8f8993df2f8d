"""Beam search over steps, guided by a verifier."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Literal, NamedTuple

from surefoot.errors import ConfigError
from surefoot.reasoning.credit import EffectiveReward
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf, decode_trajectories, with_stops
from surefoot.reasoning.search.base import Search
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator, check_values
from surefoot.training.seeds import derive_seed

__all__ = ("BeamSearch",)


class _Beginning(NamedTuple):
    """Of an answer: what a step is added to."""

    problem: int
    subtree: int
    so_far: Trajectory | None = None  # none for the problem alone


class _Grown(NamedTuple):
    """A beginning and its next step."""

    problem: int
    subtree: int
    so_far: Trajectory


class BeamSearch(Search):
    """Keeps, step by step, the N best of what the policy writes next, for all problems at once.

    From every kept beginning of an answer ``n_children`` steps are sampled, ``n_children * N`` from the problem itself.
    All that can be kept stands in one pool, whatever it descends from; answers that have ended stay in it with the
    score of their last step. Beginnings stay token ids throughout, and only a new step is scored; what the verifier
    keeps for that is freed at the end.

    With ``n_subtrees`` the N are divided into groups that never compete: diverse verifier tree search has N of them.

    References: Setlur et al. 2024, arXiv 2410.08146, section 4.1; Beeching et al. 2024, scaling test-time compute
    (diverse verifier tree search).
    """

    verifier: ValueEstimator

    def __init__(
        self,
        verifier: ValueEstimator,
        score: EffectiveReward | None = None,
        n_children: int = 3,
        n_subtrees: int = 1,
        separator: str = "\n",
        deduplicate: bool = True,
    ) -> None:
        """Initialize the search.

        Args:
            verifier: Gives the values of steps.
            score: What a step is worth by them; by default its value.
            n_children: Steps that are sampled from each beginning.
            n_subtrees: Groups of beginnings that do not compete; N is a multiple of it.
            separator: What ends a step, as the policy writes it.
            deduplicate: Of steps that are the same keep one. There may then be fewer than N candidates.

        Raises:
            ConfigError: If a number is out of range, or the separator is empty.
        """
        super().__init__()
        if n_children < 1 or n_subtrees < 1:
            raise ConfigError(f"n_children and n_subtrees must be positive, got {n_children} and {n_subtrees}.")
        if not separator:
            raise ConfigError("separator must not be empty: name the text that ends a step.")
        self.verifier, self.score = verifier, score or EffectiveReward()
        self.n_children, self.n_subtrees = n_children, n_subtrees
        self.separator, self.deduplicate = separator, deduplicate

    def check_width(self, n: int) -> None:
        """Raise a `ConfigError` if n is no multiple of ``n_subtrees``."""
        if n % self.n_subtrees:
            raise ConfigError(
                f"n {n} is no multiple of n_subtrees {self.n_subtrees}: choose n among {self.n_subtrees},"
                f" {2 * self.n_subtrees}, {3 * self.n_subtrees}, ..."
            )

    def __call__(
        self, policy: Policy, problems: Sequence[Problem], sampling: Sampling, seed_of: SeedOf
    ) -> list[Trajectory]:
        """Return up to N graded answers of each problem, best first; arguments are those of `TrajectorySampler`.

        Raises:
            ConfigError: If N is no multiple of ``n_subtrees``.
            DataError: If the verifier gives other values than one per step.
        """
        self.check_width(sampling.n)
        width, before = sampling.n // self.n_subtrees, self.verifier.n_scored_tokens
        pools: dict[tuple[int, int], list[Trajectory]] = {}
        going = [_Beginning(p, subtree) for p in range(len(problems)) for subtree in range(self.n_subtrees)]
        try:
            while going:
                grown = self._grow(policy, problems, going, sampling, seed_of)
                _end([b.so_far for b in grown if b.so_far.finish_reason != "step"], policy, sampling)
                self.verifier.extend(policy, [b.so_far for b in grown], seed_of)
                check_values([b.so_far for b in grown], self.verifier)
                for b in grown:
                    pools.setdefault((b.problem, b.subtree), []).append(b.so_far)
                pools = {pool: sorted(found, key=self._worth, reverse=True)[:width] for pool, found in pools.items()}
                going = [
                    _Beginning(*pool, t) for pool, found in pools.items() for t in found if t.finish_reason == "step"
                ]
                pools = {pool: [t for t in found if t.finish_reason != "step"] for pool, found in pools.items()}
        finally:
            self.verifier.forget()
        self.counts.scored_tokens += self.verifier.n_scored_tokens - before
        return _ranked([t for found in pools.values() for t in found])

    def _worth(self, trajectory: Trajectory) -> float:
        return self.score(trajectory)[-1]

    def _grow(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        beginnings: Sequence[_Beginning],
        sampling: Sampling,
        seed_of: SeedOf,
    ) -> list[_Grown]:
        """Return each beginning with as many next steps as it gets, with the values that are known of it."""
        starts, samplings, origins, seeds = [], [], [], []
        seen: Counter[tuple[int, ...]] = Counter()  # beginnings that are the same go on differently
        for b in beginnings:
            problem = problems[b.problem]
            given, prompt = (b.so_far.completion, b.so_far.prompt) if b.so_far else ((), None)
            starts.append(Start(problem, given, b.problem, prompt))
            n = self.n_children
            if not self._has_begun(policy, b.so_far):
                n *= sampling.n // self.n_subtrees
            stop, left = (*sampling.stop, self.separator), sampling.max_tokens - len(given)
            samplings.append(replace(sampling, n=n, stop=stop, max_tokens=left))
            origins += [b] * n
            same = (b.problem, b.subtree, *given)
            copies = (seen[same],) if seen[same] else ()
            seen[same] += 1
            seeds.append(seed_of(problem.id, "step", b.subtree, derive_seed(*given), *copies))
        sampled = policy.sample(starts, samplings, seeds)
        ends = policy.engine.stops(with_stops(sampling, policy.prompt, policy.model))
        grown = [
            _Grown(b.problem, b.subtree, self._joined(policy, b.so_far, t, ends))
            for b, t in zip(origins, sampled, strict=True)
        ]
        distinct = {(g.problem, g.subtree, *g.so_far.completion): g for g in reversed(grown)}
        self.counts.n_samples += len(sampled)
        self.counts.generated_tokens += sum(t.n_sampled for t in sampled)
        self.counts.n_duplicates += len(grown) - len(distinct)
        return list(reversed(distinct.values())) if self.deduplicate else grown

    def _joined(self, policy: Policy, beginning: Trajectory | None, grown: Trajectory, ends: Sampling) -> Trajectory:
        """Return a sampled step with what it goes on from as one completion that the policy wrote.

        Separators alone are no step of their own, as in `split_spans`: they belong to the one before, whose value is
        asked for again, and at the beginning to the one after.
        """
        new = policy.model.decode(grown.completion[grown.n_given :])
        spans, values, counts, logprobs = list[Span](), list[float](), list[int](), list[float]()
        if beginning is not None:
            spans, values, counts = list(beginning.spans), list(beginning.values), list(beginning.value_counts)
            logprobs = list(beginning.behaviour_logprobs)
        start = grown.n_given
        if spans and (self._is_empty(new) or not self._has_begun(policy, beginning)):
            start, values, counts = spans.pop().start, values[:-1], counts[:-1]
        return replace(
            grown,
            n_given=0,
            behaviour_logprobs=[*logprobs, *grown.behaviour_logprobs[grown.n_given :]],
            finish_reason=self._reason(policy, grown, new, ends),
            spans=[*spans, Span(start, len(grown.completion))],
            values=values,
            value_counts=counts,
        )

    def _has_begun(self, policy: Policy, so_far: Trajectory | None) -> bool:
        """Return whether there is more of an answer than separators, which are of its first step."""
        if so_far is None or len(so_far.spans) > 1:
            return so_far is not None
        return not self._is_empty(policy.model.decode(so_far.completion))

    def _is_empty(self, text: str) -> bool:
        return not text.replace(self.separator, "")

    def _reason(self, policy: Policy, grown: Trajectory, new: str, ends: Sampling) -> Literal["stop", "length", "step"]:
        """Return why a step ended: the answer has, or it cannot go on, or a separator was written."""
        if grown.finish_reason == "length":
            return "length"
        text = policy.model.decode(grown.completion)
        if (
            grown.completion[-1] in ends.stop_token_ids
            or any(s in text for s in ends.stop)
            or self.separator not in new
        ):
            return "stop"
        return "step" if len(grown.completion) < ends.max_tokens else "length"


def _end(answers: Sequence[Trajectory], policy: Policy, sampling: Sampling) -> None:
    """Fill in the text, the steps and the grade of answers that have ended."""
    if not answers:
        return
    used = with_stops(sampling, policy.prompt, policy.model)
    decode_trajectories(answers, [used] * len(answers), policy.model, policy.prompt)
    for t in answers:
        ends = [len(policy.model.decode(t.completion[: span.end])) for span in t.spans[:-1]]
        t.steps = [t.text[a:b] for a, b in pairwise([0, *ends, len(t.text)])]
    policy.grade(answers)


def _ranked(answers: Sequence[Trajectory]) -> list[Trajectory]:
    """Return the answers, those of a problem from the highest value to the lowest, and number them so."""
    ranked = sorted(answers, key=lambda t: (t.group, -t.values[-1]))
    for _, own in groupby(ranked, key=lambda t: t.group):
        for number, t in enumerate(own):
            t.sample = number
    return ranked
