"""Preference pairs for per-step DPO: what ends right is preferred to the step with which a completion was lost."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.pairs import PairBuilder, PairRecord, Pit, PreferencePair
from surefoot.reasoning.completions.policies import differing_settings
from surefoot.reasoning.completions.selection import group_by_problem
from surefoot.reasoning.credit import check_shares, prover_values
from surefoot.reasoning.policy import Start
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import single_prover
from surefoot.training.seeds import derive_seed

__all__ = ("FirstPitPairs",)

Tokens = Sequence[int]


class _Negative(NamedTuple):
    """A wrong completion up to the end of its pit."""

    completion: Trajectory
    tokens: Tokens  # of the completion, the pit included
    pit: Pit


class FirstPitPairs(PairBuilder):
    """Wrong completions, each up to the step with which it was lost, against what ends right.

    The first pit is the first step after which the best of k attempts is least likely to end right. That rises with the
    value of one attempt, so that k changes what records say of a pit and not which step it is; what does is the number
    of attempts behind the values (``surefoot label --sampling.n``). From n >= k attempts the value of the best of k is
    unbiased where n was fixed; from fewer it is too low, see `best_of_k_estimate`.

    A negative ends with its pit and has no end of sequence, unless the pit is the last step of a completion that has
    ended. Completions count as often as they were sampled, and each negative is in one pair.

    Reference: Setlur et al. 2024, arXiv 2406.14532, algorithm 1 (``full``) and theorem 6.1 (``shared_prefix``).
    """

    def __init__(
        self,
        form: Literal["full", "shared_prefix"] = "full",
        k: int = 5,
        max_per_problem: int = 8,
        keep_unsolved: bool = False,
    ) -> None:
        """Initialize the builder.

        Args:
            form: full prefers a whole correct completion of the problem to the negative. shared_prefix prefers what
                goes on rightly from before the pit to the pit itself, after the problem and what comes before the pit;
                what is missing of the former is sampled by surefoot pairs.
            k: Attempts of which the prover takes the best.
            max_per_problem: Most pairs of a problem.
            keep_unsolved: Keep problems of which no attempt has ended right: their pit is the first step, which was not
                worse than others.

        Raises:
            ConfigError: If a number is not positive.
        """
        if k < 1 or max_per_problem < 1:
            raise ConfigError(f"k and max_per_problem must be positive, got {k} and {max_per_problem}.")
        self.form, self.k, self.max_per_problem, self.keep_unsolved = form, k, max_per_problem, keep_unsolved

    def __call__(self, trajectories: Iterable[Trajectory], seed: int) -> list[PreferencePair]:
        """Return a pair for each negative against which something ends right.

        Args:
            trajectories: With values from ``surefoot label``, of the policy that sampled them; those that begin with
                given tokens, such as continuations, are only preferred.
            seed: Of the choice of negatives, and of what is preferred to each.

        Raises:
            DataError: If a wrong completion lacks steps, values or their counts, values are no shares, or are those of
                several policies or of another one than the completions'.
        """
        completions, pairs = list(trajectories), list[PreferencePair]()
        correct = _correct(completions)
        for negative in self._negatives(completions, seed):
            if candidates := self._candidates(negative, correct):
                t, tokens, prefix = negative.completion, negative.tokens, self._prefix(negative)
                draw = random.Random(derive_seed("chosen", seed, t.problem.id, t.sample))
                chosen, rejected = (side[len(prefix) :] for side in (draw.choice(candidates).target, tokens))
                record = PairRecord(t.problem.id, self.form, negative.pit)
                pairs.append(PreferencePair([*t.prompt, *prefix], chosen, rejected, record))
        return pairs

    def starts(self, trajectories: Iterable[Trajectory], seed: int) -> list[Start]:
        """Return the prefixes of negatives from which none of the trajectories goes on rightly, each once.

        Arguments and errors are those of the call; with ``full`` there are none.
        """
        completions = list(trajectories)
        if self.form == "full":
            return []
        correct, found = _correct(completions), dict[tuple[str, Tokens, Tokens], Start]()
        for negative in self._negatives(completions, seed):
            if not self._candidates(negative, correct):
                t, prompt, prefix = (
                    negative.completion,
                    tuple(negative.completion.prompt),
                    tuple(self._prefix(negative)),
                )
                found.setdefault((t.problem.id, prompt, prefix), Start(t.problem, prefix, t.group, prompt))
        return list(found.values())

    def left_out(self, trajectories: Iterable[Trajectory], seed: int) -> Mapping[str, int]:
        """Return how many wrong completions are in no pair, by reason; arguments and errors are those of the call.

        They are of unsolved problems, beyond the most of a problem, or nothing ends right that could be preferred.
        """
        completions = list(trajectories)
        wrong = _wrong(completions)
        solved = [t for t in wrong if self._is_kept(t)]
        negatives = self._negatives(completions, seed)
        return {
            "unsolved_problem": len(wrong) - len(solved),
            "beyond_max_per_problem": len(solved) - len(negatives),
            "nothing_right": len(negatives) - len(self(completions, seed)),
        }

    def _is_kept(self, wrong: Trajectory) -> bool:
        return self.keep_unsolved or wrong.values[0] > 0

    def _negatives(self, completions: Sequence[Trajectory], seed: int) -> list[_Negative]:
        """Return what is rejected, at most so many of each problem, drawn from all of its wrong completions."""
        wrong = _wrong(completions)
        _check_policies(wrong)
        found: list[_Negative] = []
        for problem, group in group_by_problem(t for t in wrong if self._is_kept(t)).items():
            draw, n = random.Random(derive_seed("negatives", seed, problem)), min(len(group), self.max_per_problem)
            found += [self._negative(group[i]) for i in sorted(draw.sample(range(len(group)), n))]
        return found

    def _negative(self, t: Trajectory) -> _Negative:
        best = prover_values(t, self.k)
        i = min(range(1, len(best)), key=best.__getitem__)  # the first of those with the lowest value
        start, end = t.spans[i - 1]
        tokens = t.target if i == len(t.spans) else t.completion[:end]
        values, best_of_k = ((of[i - 1], of[i]) for of in (t.values, best))
        counts = (t.value_counts[i - 1], t.value_counts[i])
        return _Negative(t, list(tokens), Pit(i, start, values, counts, best_of_k, self.k))

    def _prefix(self, negative: _Negative) -> Tokens:
        """Return what both sides of a pair begin with after the problem's prompt."""
        return negative.tokens[: negative.pit.n_prefix] if self.form == "shared_prefix" else []

    def _candidates(self, negative: _Negative, correct: Mapping[str, Sequence[Trajectory]]) -> list[Trajectory]:
        """Return the correct completions that begin with the prefix and do not take the pit."""
        t, prefix = negative.completion, self._prefix(negative)
        return [
            c
            for c in correct.get(t.problem.id, ())
            if list(c.prompt) == list(t.prompt) and _begins(c.target, prefix) and not _begins(c.target, negative.tokens)
        ]


def _begins(tokens: Tokens, beginning: Tokens) -> bool:
    return list(tokens[: len(beginning)]) == list(beginning)


def _correct(completions: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Return each problem's correct completions; truncated ones are left out."""
    return group_by_problem(t for t in completions if t.is_correct and t.finish_reason == "stop")


def _wrong(completions: Iterable[Trajectory]) -> list[Trajectory]:
    """Return the wrong completions that were sampled whole.

    Raises:
        DataError: If one lacks steps or values, or its values are no shares of attempts.
    """
    found = [t for t in completions if t.grade is not None and t.grade.status == "wrong" and t.n_given == 0]
    for t in found:
        where, n = f"a wrong completion of problem {t.problem.id}", len(t.spans) + 1
        if not t.values:
            raise DataError(f"{where} has no values of its steps: label the completions with surefoot label.")
        if not t.spans:
            raise DataError(f"{where} has no steps: label the completions with surefoot label, which cuts them.")
        if (len(t.values), len(t.value_counts)) != (n, n):
            raise DataError(
                f"{where} has {len(t.values)} values and {len(t.value_counts)} counts of attempts behind them for its"
                f" prompt and {len(t.spans)} steps: label the completions with surefoot label."
            )
        check_shares(t, where)
    return found


def _check_policies(labelled: Sequence[Trajectory]) -> None:
    """Refuse values of several policies, or of another one than the completions', as far as rows record them.

    Raises:
        DataError: If they are.
    """
    single_prover((t.prover for t in labelled), "what is paired")
    for sampled, valued in dict.fromkeys((t.policy, t.prover) for t in labelled):
        if differing := differing_settings(sampled, valued):
            raise DataError(
                f"the completions were sampled with another {' and '.join(differing)} than the attempts behind their"
                " values: a step's advantage is that of the policy which took it. Label them with the model and the"
                " sampling of surefoot generate."
            )
