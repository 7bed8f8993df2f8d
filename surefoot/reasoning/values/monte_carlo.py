"""Values by sampling: the share of correct answers among completions that a prover samples from each prefix."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling, SeedOf
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.base import ValueEstimator
from surefoot.reasoning.values.step_texts import steps_of
from surefoot.statistics import wilson_interval
from surefoot.training.seeds import derive_seed

__all__ = ("MonteCarloValues", "Prefix", "prefixes_of")


@dataclass(frozen=True)
class Prefix:
    """What completions are sampled from: a problem's prompt and the first tokens of an answer to it."""

    problem: str  # its id
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass
class _Tally:
    """What is known of a prefix."""

    n: int = 0  # completions sampled
    n_correct: int = 0

    @property
    def value(self) -> float:
        return self.n_correct / self.n

    def is_settled(self, half_width: float) -> bool:
        interval = wilson_interval(self.n_correct, self.n)
        return (interval.high - interval.low) / 2 <= half_width


def prefixes_of(trajectory: Trajectory) -> list[Prefix]:
    """Return the prompt's prefix and that of each span; of the last only where the completion has not ended with it."""
    prompt, completion = tuple(trajectory.prompt), tuple(trajectory.completion)
    spans = trajectory.token_spans()
    going = spans if trajectory.finish_reason == "step" else spans[:-1]
    ends = [0, *(span.end for span in going)]
    return [Prefix(trajectory.problem.id, prompt, completion[:end]) for end in ends]


class MonteCarloValues(ValueEstimator):
    """Samples completions from every prefix, each prefix once, however many trajectories begin with it.

    The value after the last span is the completion's own outcome. ``max_tokens`` bounds the whole completion, what is
    given of it included, so that a value is the probability to end right within the length that answers may have.

    Prefixes are sampled in the order of their tokens, the longer before the shorter: an engine with a prefix cache
    computes each token of the tree that they make once. Seeds depend on the prefix, not on what else is sampled.

    Reference: Setlur et al. 2024, arXiv 2410.08146, section 4 and appendix D; Wang et al. 2024, arXiv 2312.08935.
    """

    def __init__(
        self,
        sampling: Sampling | None = None,
        prover: Policy | None = None,
        half_width: float | None = None,
        per_round: int | None = None,
        first_pit: float | None = None,
        retokenise: bool = False,
    ) -> None:
        """Initialize the estimator.

        Args:
            sampling: How completions are sampled, ``n`` of each prefix at most; by default 20 at temperature 1.
            prover: What samples them; by default the policy itself.
            half_width: Stop sampling from a prefix when half of its value's 95% interval (Wilson) is not wider; by
                default each gets all n. Values that stop early are further from 1/2 than they should be, and those
                of the best of several attempts, which are made of them, much further.
            per_round: Completions of a prefix between two looks at its value, fewer than n; by default a quarter of n.
            first_pit: After the first round, spend the rest where a wrong completion is lost: on its prefixes up to the
                first from which no completion ended right after one that is worth so much or more. Other prefixes keep
                the estimates of the first round.
            retokenise: Let a prover with another tokenizer go on from the texts of prefixes, encoded by its tokenizer
                after its own prompt; by default it goes on from the tokens, the policy's prompt included, and must
                share the tokenizer.

        Raises:
            ConfigError: If a number is out of range.
        """
        self.sampling = sampling or Sampling(n=20)
        if half_width is not None and not 0 < half_width < 0.5:
            raise ConfigError(f"half_width must be in (0, 0.5), got {half_width}.")
        if first_pit is not None and not 0 < first_pit <= 1:
            raise ConfigError(f"first_pit must be in (0, 1], got {first_pit}.")
        at_once = half_width is None and first_pit is None
        if per_round is not None and at_once:
            raise ConfigError(f"per_round comes with half_width or first_pit, got {per_round} and neither.")
        n = self.sampling.n
        self.per_round = n if at_once else max(1, n // 4) if per_round is None else per_round
        if not at_once and not 1 <= self.per_round < n:
            raise ConfigError(
                f"per_round must be in [1, n - 1], or half_width and first_pit look at values when all is sampled: got"
                f" {self.per_round} of n {n}."
            )
        self.prover, self.half_width, self.first_pit = prover, half_width, first_pit
        self.retokenise, self._told, self._told_of_cuts, self._n_sampled_tokens = retokenise, False, False, 0
        #: Tokens of all prefixes whose values were asked for, prompts included, those that come twice counted twice:
        #: what a model reads that goes on from one after the other.
        self.n_prefix_tokens = 0
        #: Completions of which nobody knows whether they are right: their grading took too long, or failed. They count
        #: as wrong.
        self.n_ungraded = 0

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values`` and ``value_counts``; arguments and errors are those of `extend`."""
        for t in trajectories:
            t.values, t.value_counts = (), ()
        self.extend(policy, trajectories, seed_of)

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in the values that are missing at the end: prefixes whose values are known are not sampled from again.

        With ``first_pit`` a value that is known counts when the pit is looked for, and gets no more completions.

        Args:
            policy: The policy that sampled the trajectories; it is ready, and samples where there is no prover.
            trajectories: Graded ones where they have ended, cut into spans.
            seed_of: From what a draw is for to its seed.

        Raises:
            ConfigError: If the prover reads other texts from the tokens, or does not write retokenised ones back, or a
                prefix leaves it no tokens.
            DataError: If a trajectory has no grade.
        """
        prover = self.prover or policy
        if self.prover is not None:
            prover.ready()
        self._warn_of_cut_completions(trajectories)
        prefixes = [self._prefixes(t, policy, prover) for t in trajectories]
        tallies: dict[Prefix, _Tally] = {}
        for t, own in zip(trajectories, prefixes, strict=True):
            known = _known_tallies(t, own)
            tallies |= known
            self.n_prefix_tokens += sum(len(p.prompt) + len(p.tokens) for p in own[len(known) :])
        problems = {p: t.problem for t, own in zip(trajectories, prefixes, strict=True) for p in own}
        self.check_lengths([len(p.tokens) for p in problems if p not in tallies])
        wrong = [own for t, own in zip(trajectories, prefixes, strict=True) if t.grade and not t.grade.correct]
        self._sample(prover, problems, tallies, wrong, seed_of)
        for t, own in zip(trajectories, prefixes, strict=True):
            t.values, t.value_counts = [tallies[p].value for p in own], [tallies[p].n for p in own]
            if t.grade is not None:
                t.values, t.value_counts = [*t.values, float(t.grade.correct)], [*t.value_counts, 0]

    def _warn_of_cut_completions(self, trajectories: Sequence[Trajectory]) -> None:
        """Warn where what is completed had fewer tokens to end in than its completions have."""
        longest = max((len(t.completion) for t in trajectories if t.finish_reason == "length"), default=None)
        if longest is not None and longest < self.sampling.max_tokens and not self._told_of_cuts:
            warnings.warn(
                f"completions were cut off at {longest} tokens, and their beginnings are completed with up to"
                f" {self.sampling.max_tokens}: their last steps look worse than they are. Give the prover max_tokens"
                f" {longest}.",
                stacklevel=3,
            )
            self._told_of_cuts = True

    def _prefixes(self, trajectory: Trajectory, policy: Policy, prover: Policy) -> list[Prefix]:
        """Return a completion's prefixes in the prover's tokens."""
        _check_graded(trajectory)
        if not self.retokenise:
            _check_tokens(trajectory, prover)
            return prefixes_of(trajectory)
        if not self._told:
            warnings.warn(
                "prefixes of completions are retokenised: the prover goes on from their texts, by"
                f" {prover.model.tokenizer.name_or_path or 'its own tokenizer'}.",
                stacklevel=3,
            )
            self._told = True
        return _retokenised(trajectory, policy, prover)

    def close(self) -> None:
        """Close the prover, where it is not the policy."""
        if self.prover is not None:
            self.prover.close()

    @property
    def n_scored_tokens(self) -> int:
        """Tokens that were sampled so far."""
        return self._n_sampled_tokens

    def _sample(
        self,
        prover: Policy,
        problems: dict[Prefix, Problem],
        found: dict[Prefix, _Tally],
        wrong: Sequence[Sequence[Prefix]],
        seed_of: SeedOf,
    ) -> None:
        """Find out how many of the completions of each prefix are correct.

        Args:
            prover: What samples.
            problems: The problem of each prefix.
            found: What is known of prefixes, to which the others are added.
            wrong: The prefixes of each wrong completion.
            seed_of: From what a draw is for to its seed.
        """
        new = [p for p in problems if p not in found]
        order = sorted(new, key=lambda p: (p.prompt, p.tokens, p.problem), reverse=True)
        found |= {prefix: _Tally() for prefix in order}
        samplings = {p: replace(self.sampling, max_tokens=self.sampling.max_tokens - len(p.tokens)) for p in order}
        going, done = order, 0
        while going and done < self.sampling.n:
            n = min(self.per_round, self.sampling.n - done)
            starts = [Start(problems[p], p.tokens, group, p.prompt) for group, p in enumerate(going)]
            seeds = [seed_of(p.problem, "prefix", derive_seed(*p.tokens), done) for p in going]
            for t in prover.complete(starts, [replace(samplings[p], n=n) for p in going], seeds):
                assert t.grade is not None
                tally = found[going[t.group]]
                tally.n, tally.n_correct = tally.n + 1, tally.n_correct + t.grade.correct
                self.n_ungraded += t.grade.status in ("timeout", "error")
                self._n_sampled_tokens += t.n_sampled
            if self.first_pit is not None and done == 0:
                chosen = {p for own in wrong for p in _until_the_pit(own, found, self.first_pit)}
                going = [p for p in going if p in chosen]
            done += n
            if self.half_width is not None:
                half_width = self.half_width
                going = [p for p in going if not found[p].is_settled(half_width)]

    def check_lengths(self, n_tokens: Sequence[int]) -> None:
        """Refuse prefixes of so many tokens after which a completion could have none.

        Raises:
            ConfigError: If one is too long.
        """
        if (longest := max(n_tokens, default=0)) >= self.sampling.max_tokens:
            hint = "its tokenizer may need more than the policy's, give it more" if self.retokenise else "give it more"
            raise ConfigError(
                f"a prefix of {longest} tokens leaves the prover nothing of max_tokens {self.sampling.max_tokens}:"
                f" {hint}, as many as completions may have."
            )


def _known_tallies(trajectory: Trajectory, prefixes: Sequence[Prefix]) -> dict[Prefix, _Tally]:
    """Return what a trajectory's values say of its first prefixes; nothing where they were not sampled."""
    values, counts = trajectory.values, trajectory.value_counts
    known = list(zip(prefixes, values, counts, strict=False))
    if len(values) != len(counts) or any(n == 0 for _, _, n in known):
        return {}
    return {prefix: _Tally(n, round(value * n)) for prefix, value, n in known}


def _until_the_pit(prefixes: Sequence[Prefix], found: dict[Prefix, _Tally], threshold: float) -> Sequence[Prefix]:
    """Return a wrong completion's prefixes up to the first of value 0 after one that is worth the threshold.

    None where no prefix is; all where none after it has the value 0: the last step, which is not sampled from, is the
    pit then.
    """
    values = [found[p].value for p in prefixes]
    high = next((i for i, value in enumerate(values) if value >= threshold), None)
    if high is None:
        return []
    pit = next((i for i in range(high, len(values)) if values[i] == 0), len(values))
    return prefixes[: pit + 1]


def _retokenised(trajectory: Trajectory, policy: Policy, prover: Policy) -> list[Prefix]:
    """Return the prefixes that `prefixes_of` returns, with the prover's prompt and the tokens of its tokenizer."""
    model, problem = prover.model, trajectory.problem
    texts = [*accumulate(steps_of(trajectory, policy.model.decode), initial="")]
    prompt = tuple(prover.prompt.prompt_ids(problem, model))
    prefixes = []
    for text in texts[: len(prefixes_of(trajectory))]:
        tokens = tuple(model.encode(text)) if text else ()
        written = model.decode(tokens)
        if written.lstrip(" ") != text.lstrip(" "):  # some tokenizers put a space before a text, or drop it
            raise ConfigError(
                f"the prover's tokenizer writes {written[-40:]!r} back for {text[-40:]!r}, a prefix of a completion of"
                f" problem {problem.id}: choose a prover that knows the text."
            )
        prefixes.append(Prefix(problem.id, prompt, tokens))
    return prefixes


def _check_graded(trajectory: Trajectory) -> None:
    """Refuse what has no outcome."""
    ended = trajectory.finish_reason != "step"
    if (ended and trajectory.grade is None) or not trajectory.problem.answer:
        raise DataError(
            f"a completion of problem {trajectory.problem.id} has no grade: values need problems with answers."
        )


def _check_tokens(trajectory: Trajectory, prover: Policy) -> None:
    """Refuse what the prover reads another text from."""
    written = prover.model.decode(trajectory.completion)
    if not written.startswith(trajectory.text):
        raise ConfigError(
            f"the prover's tokenizer reads {written[:40]!r} from a completion of problem {trajectory.problem.id}, which"
            f" is {trajectory.text[:40]!r}: the tokens are another tokenizer's, choose a prover that shares it, or"
            " retokenise (surefoot label: --tokenizer with the completions' own; MonteCarloValues: retokenise)."
        )
