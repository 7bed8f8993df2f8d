"""Exact values of a language model's solutions of arithmetic chains: every way to go on is enumerated and weighed.

A solution that works a chain out line by line has as many ways to go on from a line as there are results, so that their
probabilities under the model can be added up. What the model would write beside them (other lines, retries) is what is
missing from 1, and bounds the error.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.arithmetic import Chain, read_chain, state_after
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rollouts import SeedOf
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.base import ValueEstimator
from surefoot.reasoning.values.growing import weights_state
from surefoot.reasoning.values.judged import prefix_lengths

if TYPE_CHECKING:
    from transformers import DynamicCache

__all__ = ("ChainOutcome", "ExactChainValues", "outcomes_after")

NEW_LINE, FINAL = "\n", "#### "
#: Problems of which what is known is kept, some 4 MB each, and most ways to finish a solution that are enumerated.
MAX_PROBLEMS, MAX_WAYS = 256, 20_000


class ChainOutcome(NamedTuple):
    """How solutions with some beginning end, as probabilities that the model gives to all that were enumerated."""

    right: float
    wrong: float

    @property
    def value(self) -> float:
        """The probability of a right end, given that the solution is one of the enumerated."""
        return self.right / (self.right + self.wrong)

    @property
    def missing(self) -> float:
        """The probability of all other solutions: the value's largest error."""
        return 1.0 - self.right - self.wrong


class _Level(NamedTuple):
    """Beginnings with equally many lines, in the order of the results that they have."""

    line: Tensor  # probability of the next line up to its result, (beginnings,)
    results: Tensor  # of each result then, (beginnings, results)
    arrived: Tensor  # that the last result is followed by the end of its line, (beginnings,)


class ExactChainValues(ValueEstimator):
    """Values of prefixes under the policy itself at its temperature of 1, without sampling.

    For chains modulo 10 or less, one token a character, that are solved in the first style of writing, a step a line.
    All prefixes of a problem's regular solutions are computed together, once for the same weights.
    """

    def __init__(self, tolerance: float = 0.1) -> None:
        """Initialize the estimator.

        Args:
            tolerance: Largest probability of solutions that are not enumerated, mean over the prefixes that go on; 1
                refuses nothing.

        Raises:
            ConfigError: If it is no probability.
        """
        if not 0 <= tolerance <= 1:
            raise ConfigError(f"tolerance must be in [0, 1], got {tolerance}.")
        self.tolerance = tolerance
        #: By prompt, of the latest problems: beginning -> how solutions end.
        self._known: dict[tuple[int, ...], dict[tuple[int, ...], ChainOutcome]] = {}
        self._weights: list[object] = []

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values``; arguments are those of `ValueEstimator`.

        Raises:
            DataError: If the policy writes too much else, so that the values are not known, or a prefix ends within a
                line.
        """
        self.compute(policy.model, trajectories)

    def compute(self, model: LanguageModel, trajectories: Sequence[Trajectory]) -> None:
        """Fill in ``values`` under a model; errors are those of the call."""
        if self._weights != (weights := weights_state(model)):
            self._known, self._weights = {}, weights
        missing: list[float] = []
        for t in trajectories:
            ends = [(n, _right_end(model, t, n)) for n in prefix_lengths(t)]
            outcomes = [
                self._outcome(model, t, n) if right is None else ChainOutcome(float(right), float(not right))
                for n, right in ends
            ]
            missing += [o.missing for o, (_, right) in zip(outcomes, ends, strict=True) if right is None]
            t.values, t.value_counts = [o.value for o in outcomes], ()
        mean = sum(missing) / max(1, len(missing))
        if mean > self.tolerance:
            raise DataError(
                f"of what the policy writes {mean:.1%} is no regular line of a solution, so that its values are not"
                f" known within {self.tolerance:g}."
            )

    def _outcome(self, model: LanguageModel, t: Trajectory, n: int) -> ChainOutcome:
        """Return how solutions end that go on after the first n tokens of a completion."""
        prompt, beginning = tuple(t.prompt), tuple(t.completion[:n])
        known = self._known.setdefault(prompt, {})
        if beginning not in known:
            text = model.decode(list(beginning))
            if text and not text.endswith(NEW_LINE):
                raise DataError(
                    f"exact values are of whole lines, not of what ends with {text[-20:]!r}: cut at line ends."
                )
            chain = read_chain(t.problem.question)
            state = state_after(chain, text.splitlines())
            found = outcomes_after(model, chain, [*prompt, *beginning], state.value, state.step)
            known |= {(*beginning, *more): outcome for more, outcome in found.items()}
            while len(self._known) > MAX_PROBLEMS:
                del self._known[next(iter(self._known))]
        return known[beginning]


def _right_end(model: LanguageModel, t: Trajectory, n: int) -> bool | None:
    """Return whether a completion is right that has ended after n tokens; None where it goes on."""
    if n == len(t.completion) and t.finish_reason != "step" and t.grade is not None:
        return t.grade.correct
    chain = read_chain(t.problem.question)
    answer = state_after(chain, model.decode(list(t.completion[:n])).splitlines()).answer
    return None if answer is None else answer == chain.values[-1]


@torch.inference_mode()
def outcomes_after(
    model: LanguageModel, chain: Chain, beginning: Sequence[int], value: int, step: int
) -> dict[tuple[int, ...], ChainOutcome]:
    """Return how solutions end that go on from a beginning, and from every whole number of regular lines after it.

    Args:
        model: The language model.
        chain: The problem.
        beginning: Token ids of the prompt and of whole lines, the last line's end included.
        value: Value of the chain after them, as the lines have it.
        step: Operations done.

    Returns:
        Tokens after the beginning -> how solutions end; none for the beginning itself.

    Raises:
        DataError: If the chain has numbers of more than one token, the model has more than one token a character, or
            there are too many ways to go on.
    """
    results = _one_token_each(model, chain)
    n_ways = len(results) ** (len(chain.operations) - step)
    if n_ways > MAX_WAYS:
        raise DataError(
            f"there are {n_ways:,} ways to finish {chain.question}: exact values are of {MAX_WAYS:,} or less."
        )
    cache = _read(model, torch.tensor([beginning[:-1]], device=model.device))
    given = torch.tensor([[beginning[-1]]], device=model.device)
    values, levels = [value], []
    written: list[tuple[int, ...]] = [()]
    lines = [written]
    for op, b in chain.operations[step:]:
        text = [model.encode(f"{v}{op}{b}=") for v in values]
        levels.append(_advance(model, cache, given, torch.tensor(text, device=model.device), results))
        ends = [[*results[c : c + 1].tolist(), *model.encode(NEW_LINE)] for c in range(len(results))]
        given = torch.tensor([end for _ in values for end in ends], device=model.device)
        written = [(*own, *line, *end) for own, line in zip(written, text, strict=True) for end in ends]
        lines.append(written)
        cache.batch_repeat_interleave(len(results))
        values = [c for _ in values for c in range(len(results))]
    answers = torch.tensor([model.encode(FINAL)], device=model.device).expand(len(values), -1)
    last = _advance(model, cache, given, answers, results)
    right = chain.values[-1]
    ended = _advance_to_end(model, cache, results[right].expand(len(values), 1))
    outcome = torch.stack([last.results[:, right] * ended, last.results.sum(1) - last.results[:, right]], 1)
    outcome = outcome * last.line[:, None]
    found = dict(zip(lines[-1], outcome.tolist(), strict=True))
    following = last
    for level, names in zip(reversed(levels), reversed(lines[:-1]), strict=True):
        arrived = (following.arrived[:, None] * outcome).view(len(names), len(results), 2)
        outcome = level.line[:, None] * (level.results[:, :, None] * arrived).sum(1)
        found |= dict(zip(names, outcome.tolist(), strict=True))
        following = level
    return {tokens: ChainOutcome(*both) for tokens, both in found.items()}


def _one_token_each(model: LanguageModel, chain: Chain) -> Tensor:
    """Return the token of each result, ``(results,)``."""
    numbers = range(chain.modulus or 11)
    ids = [model.encode(str(c)) for c in numbers]
    if len(ids) > 10 or any(len(own) != 1 for own in ids):
        raise DataError("exact values are of chains modulo 10 or less, in a model with one token a character.")
    return torch.tensor([own[0] for own in ids], device=model.device)


def _read(model: LanguageModel, tokens: Tensor) -> "DynamicCache":
    """Return the keys and values of tokens, ``(1, tokens)``."""
    from transformers import DynamicCache

    cache = DynamicCache()
    model.base(input_ids=tokens, past_key_values=cache, use_cache=True)
    return cache


def _probabilities(model: LanguageModel, cache: Any, tokens: Tensor) -> Tensor:
    """Return the probabilities of what follows each token, ``(beginnings, tokens, vocabulary)``, float64."""
    logits: Tensor = model.base(input_ids=tokens, past_key_values=cache, use_cache=True).logits
    return logits.double().softmax(-1)


def _advance(model: LanguageModel, cache: Any, given: Tensor, text: Tensor, results: Tensor) -> _Level:
    """Return the probabilities of a text and of the results after it.

    Args:
        model: The language model.
        cache: Keys and values of the beginnings before ``given``; grows.
        given: Tokens that are already written, ``(beginnings, given)``: the end of the line before.
        text: Tokens that come next, ``(beginnings, text)``.
        results: Tokens of results, ``(results,)``.
    """
    tokens = torch.cat([given, text], 1)
    following = _probabilities(model, cache, tokens)
    own = following[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)
    n = given.shape[1] - 1
    return _Level(own[:, n:].prod(1), following[:, -1, results], own[:, :n].prod(1))


def _advance_to_end(model: LanguageModel, cache: Any, answer: Tensor) -> Tensor:
    """Return the probability that nothing follows an answer, ``(beginnings,)``."""
    return _probabilities(model, cache, answer)[:, -1, model.eos_token_id]
