"""Provers ranked for a policy by the labels of its own completions, before any of it is learned from."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from surefoot.errors import DataError
from surefoot.reasoning.credit.provers import ProverQuality, improvement_terms
from surefoot.reasoning.metrics import best_of_k_covariance, best_of_k_estimate
from surefoot.reasoning.trajectories import Trajectory
from surefoot.statistics import Estimate, bootstrap_interval

__all__ = (
    "RankedProver",
    "Siblings",
    "attempts_behind_values",
    "check_shares",
    "rank_provers",
    "values_of_siblings",
)

Tokens = tuple[int, ...]
State = tuple[str, Tokens]  # a problem's id, and the prompt with the tokens of the steps so far


class RankedProver(NamedTuple):
    """What a prover is worth to a policy, over the states that several completions reach."""

    name: str
    k: int  # attempts that it takes the best of
    quality: ProverQuality  # intervals are over problems
    behind: Estimate  # by how much its improvement is less than that of the first, on the same problems
    n_states: int
    n_steps: int  # sampled from them


class Siblings(NamedTuple):
    """The steps that were sampled from one state, each as often as it was; two or more."""

    steps: list[Tokens]
    values: list[float]  # after each of them
    counts: list[int]  # attempts behind each value; 0 where it is known exactly


def values_of_siblings(trajectories: Sequence[Trajectory]) -> dict[State, Siblings]:
    """Return the values after steps that begin in one state, for the states that two or more completions reach.

    Steps that were given to the policy, or begun for it, are not its samples and are left out.

    Args:
        trajectories: With values and their counts.
    """
    found: dict[State, Siblings] = defaultdict(lambda: Siblings([], [], []))
    for t in trajectories:
        for span, value, n in zip(t.token_spans(), t.values[1:], t.value_counts[1:], strict=True):
            if span.start >= t.n_given:
                own = found[t.problem.id, (*t.prompt, *t.completion[: span.start])]
                own.steps.append(tuple(t.completion[span.start : span.end]))
                own.values.append(value)
                own.counts.append(n)
    return {state: own for state, own in found.items() if len(own.steps) > 1}


def attempts_behind_values(trajectories: Sequence[Trajectory], name: str) -> int:
    """Return how many attempts each sampled value is the share of; 0 where all are known exactly.

    Args:
        trajectories: Labelled completions.
        name: Of the labels, for errors.

    Raises:
        DataError: If values or counts are missing or make no sense, or counts differ: attempts were then stopped by how
            they ended, and the noise of their shares is not binomial.
    """
    for i, t in enumerate(trajectories):
        expected = len(t.token_spans()) + 1
        if len(t.values) != expected:
            raise DataError(
                f"{name} has {len(t.values)} values for {expected} prefixes of a completion of problem {t.problem.id}:"
                " label it with surefoot label."
            )
        if len(t.value_counts) != expected:
            raise DataError(
                f"{name} does not say how many attempts its values are shares of, so that their noise cannot be"
                " subtracted: label it with surefoot label."
            )
        check_shares(t, f"{name}, row {i + 1}, a completion of problem {t.problem.id},")
    counts = {n for t in trajectories for n in t.value_counts if n}
    if len(counts) > 1:
        raise DataError(
            f"{name} has values of {min(counts)} to {max(counts)} attempts: they were stopped by how they ended, and"
            " are biased; label it without half_width and first_pit."
        )
    return max(counts, default=0)


def check_shares(t: Trajectory, where: str) -> None:
    """Refuse values that are no probabilities, or no shares of as many attempts as they are said to be.

    Args:
        t: With values and their counts.
        where: What has them, for errors.

    Raises:
        DataError: If one is none.
    """
    for value, n in zip(t.values, t.value_counts, strict=True):
        if not 0 <= value <= 1:  # NaN is neither
            raise DataError(f"{where} has the values {list(t.values)}: expected probabilities in [0, 1].")
        if n < 0 or abs(value * n - round(value * n)) > 1e-6 * max(1, n):
            raise DataError(f"{where} has the value {value} of {n} attempts, which is no share of so many.")


def rank_provers(
    policy: Sequence[Trajectory], provers: Mapping[str, tuple[Sequence[Trajectory], Sequence[int]]]
) -> list[RankedProver]:
    """Return what each prover is worth to a policy, the most promising first.

    Steps are the policy's samples: one that was sampled twice counts twice, and a state counts as often as it was
    visited. Sampling noise is subtracted, so that all terms are unbiased: that of a prover's values from its
    distinguishability (`best_of_k_covariance`; copies of a step share one value and its noise), and from its alignment
    where it has the policy's own values. A term near 0 may therefore come out below it.

    Args:
        policy: Completions of the policy, with the values of its own attempts; several of each problem.
        provers: By name, the same completions in the same order with the values of another policy, or these; and the
            numbers of attempts of which a prover takes the best.

    Raises:
        DataError: If no two completions take different steps from the same state, a prover has no values of them, or
            fewer attempts behind each than twice those of the best of which it is asked for.
    """
    attempts_behind_values(policy, "the policy")
    own = values_of_siblings(policy)
    if all(len(set(siblings.steps)) < 2 for siblings in own.values()):
        raise DataError("no two completions take different steps from the same state: sample several of each problem.")
    found = []
    for name, (trajectories, ks) in provers.items():
        _check_completions(name, policy, trajectories)
        n = attempts_behind_values(trajectories, name)
        for k in ks:
            if 0 < n < 2 * k:
                raise DataError(
                    f"{name} has values of n = {n}: the noise of the best of {k} is known from n = {2 * k} on. Label"
                    " with a larger sampling.n, or ask for a smaller k."
                )
            found.append(_measured(name, k, own, values_of_siblings(trajectories)))
    found.sort(key=lambda measured: -sum(measured.improvement))
    return [_ranked(measured, found[0], len(own)) for measured in found]


def _check_completions(name: str, policy: Sequence[Trajectory], theirs: Sequence[Trajectory]) -> None:
    """Refuse labels of other completions, or of others' steps."""

    def steps(trajectories: Sequence[Trajectory]) -> list[object]:
        return [
            (t.problem.id, list(t.prompt), list(t.completion), t.n_given, [(s.start, s.end) for s in t.token_spans()])
            for t in trajectories
        ]

    if steps(policy) != steps(theirs):
        raise DataError(
            f"the values of {name} are of other completions than the policy's, or of other steps: label the same ones"
            " with each prover."
        )


class _Measured(NamedTuple):
    """A prover's terms, of each problem the sum over its states, each times its visits."""

    name: str
    k: int
    visits: list[float]
    distinguishability: list[float]
    alignment: list[float]

    @property
    def improvement(self) -> list[float]:
        return [d + a for d, a in zip(self.distinguishability, self.alignment, strict=True)]

    def estimate(self, sums: Sequence[float]) -> Estimate:
        """Return a mean over visits, with its interval over redrawn problems."""

        def mean(chosen: Sequence[int]) -> float:
            return sum(sums[i] for i in chosen) / sum(self.visits[i] for i in chosen)

        return bootstrap_interval(mean, len(sums))


def _measured(name: str, k: int, own: Mapping[State, Siblings], theirs: Mapping[State, Siblings]) -> _Measured:
    """Return a prover's terms from the policy's values and its own after the steps of each state."""
    shared = own == theirs  # the same attempts: others would not end alike throughout
    by_problem: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for state, siblings in own.items():
        n = len(siblings.steps)
        for i, term in enumerate((1.0, *_terms(siblings.values, theirs[state], k, shared))):
            by_problem[state[0]][i] += n * term
    visits, variances, covariances = (list(sums) for sums in zip(*by_problem.values(), strict=True))
    return _Measured(name, k, visits, variances, covariances)


def _ranked(measured: _Measured, first: _Measured, n_states: int) -> RankedProver:
    """Return what is reported of a prover.

    Args:
        measured: Its terms.
        first: Those of the most promising one.
        n_states: States that they are of.
    """
    estimate, improvement = measured.estimate, measured.improvement
    terms = (measured.distinguishability, measured.alignment, improvement)
    behind = estimate([a - b for a, b in zip(first.improvement, improvement, strict=True)])
    quality = ProverQuality(*map(estimate, terms))
    return RankedProver(measured.name, measured.k, quality, behind, n_states, round(sum(measured.visits)))


def _terms(own: Sequence[float], theirs: Siblings, k: int, shared: bool) -> tuple[float, float]:
    """Return a state's distinguishability and alignment without the noise of sampled values.

    Args:
        own: The policy's value after each step.
        theirs: The prover's values of one attempt after the same steps.
        k: Attempts that it takes the best of.
        shared: Whether its values are made of the same attempts as the policy's.
    """
    n = len(own)
    variance, covariance = improvement_terms(own, best_of_k_estimate(theirs.values, theirs.counts, k))
    for (_, value, attempts), copies in Counter(zip(*theirs, strict=True)).items():
        share = copies * (n - copies) / (n * (n - 1))  # of the pairs of samples, those that tell this step from others
        variance -= share * best_of_k_covariance(value, attempts, k, k)
        if shared:
            covariance -= share * best_of_k_covariance(value, attempts, 1, k)
    return variance, covariance
