"""Exact values of a language model's solutions of arithmetic chains: all that it may write is enumerated and weighed.

Where a model of a small world is sure of most tokens, the completions that are worth counting are few: all beginnings
more likely than a threshold are followed, token by token, to their ends. What is less likely is missing from 1, and
bounds the error.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.arithmetic import Chain, read_chain, stated_answer
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

Tokens = tuple[int, ...]

NEW_LINE = "\n"
#: Most beginnings that are followed at once; of more the likeliest are.
MAX_BEGINNINGS = 20_000
#: Problems of which what is known is kept.
MAX_PROBLEMS = 256
#: Probability that is missing from which on a beginning that a problem's solutions pass is followed by itself.
RARE = 0.02


class ChainOutcome(NamedTuple):
    """How solutions with some beginning end, as probabilities of all that were enumerated."""

    right: float
    wrong: float
    by_itself: bool = False  # whether nothing likelier was followed before it

    @property
    def value(self) -> float:
        """The probability of a right end, given that the solution is one of the enumerated; 1/2 where none is."""
        known = self.right + self.wrong
        return self.right / known if known > 0 else 0.5

    @property
    def missing(self) -> float:
        """The probability of all other solutions: the value's largest error."""
        return max(0.0, 1.0 - self.right - self.wrong)


class ExactChainValues(ValueEstimator):
    """Values of prefixes under the policy itself at its temperature of 1, without sampling.

    For problems of `surefoot.reasoning.arithmetic`. All whole lines that a problem's solutions begin with are valued
    together, once for the same weights; a beginning that is too rare for that, by itself.
    """

    def __init__(self, threshold: float = 1e-5, tolerance: float = 0.1, max_tokens: int = 48) -> None:
        """Initialize the estimator.

        Args:
            threshold: Probability from which on a beginning is followed.
            tolerance: Largest probability of solutions that are not enumerated, of any prefix; 1 refuses nothing.
            max_tokens: Of a solution, those after the prompt; what is longer is missing.

        Raises:
            ConfigError: If a number is out of range.
        """
        if not 0 < threshold < 1 or not 0 <= tolerance <= 1 or max_tokens < 1:
            raise ConfigError(
                f"expected threshold in (0, 1), tolerance in [0, 1] and max_tokens of 1 or more, got {threshold},"
                f" {tolerance} and {max_tokens}."
            )
        self.threshold, self.tolerance, self.max_tokens = threshold, tolerance, max_tokens
        #: By prompt, of the latest problems: beginning -> how solutions end.
        self._known: dict[Tokens, dict[Tokens, ChainOutcome]] = {}
        self._weights: list[object] = []

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values``; arguments are those of `ValueEstimator`.

        Raises:
            DataError: If too much of what the policy writes is too rare to be followed.
        """
        self.compute(policy.model, trajectories)

    def compute(self, model: LanguageModel, trajectories: Sequence[Trajectory]) -> None:
        """Fill in ``values`` under a model; errors are those of the call."""
        if self._weights != (weights := weights_state(model)):
            self._known, self._weights = {}, weights
        for t in trajectories:
            t.values, t.value_counts = [self._value(model, t, n) for n in prefix_lengths(t)], ()

    def _value(self, model: LanguageModel, t: Trajectory, n: int) -> float:
        """Return the value after the first n tokens of a completion."""
        beginning = tuple(t.completion[:n])
        if n == len(t.completion) and t.finish_reason != "step" and t.grade is not None:
            return float(t.grade.correct)
        outcome = self._outcome(model, t, beginning)
        if outcome.missing > self.tolerance:
            raise DataError(
                f"after {model.decode([*t.prompt, *beginning])!r} solutions of probability {outcome.missing:.2g} are"
                f" too rare to be enumerated, more than the tolerance of {self.tolerance:g}: lower the threshold."
            )
        return outcome.value

    def _outcome(self, model: LanguageModel, t: Trajectory, beginning: Tokens) -> ChainOutcome:
        known = self._known.setdefault(tuple(t.prompt), {})
        if beginning not in known or (known[beginning].missing > RARE and not known[beginning].by_itself):
            chain, room = read_chain(t.problem.question), self.max_tokens - len(beginning)
            found = outcomes_after(model, chain, tuple(t.prompt), beginning, self.threshold, room)
            known |= {more: o for more, o in found.items() if more not in known or o.missing < known[more].missing}
            known[beginning] = found[beginning]._replace(by_itself=True)
            while len(self._known) > MAX_PROBLEMS:
                del self._known[next(iter(self._known))]
        return known[beginning]


class _Line(NamedTuple):
    """A beginning of whole lines, and the solutions that go on from it."""

    probability: float
    outcome: list[float]  # probability of right and of wrong ones, that of the beginning included


@torch.inference_mode()
def outcomes_after(
    model: LanguageModel, chain: Chain, prompt: Tokens, beginning: Tokens, threshold: float, max_tokens: int
) -> dict[Tokens, ChainOutcome]:
    """Return how solutions end that go on from a beginning, and from every number of whole lines after it.

    Args:
        model: The language model.
        chain: The problem.
        prompt: Token ids.
        beginning: Token ids after the prompt.
        threshold: Probability from which on what follows the beginning is followed.
        max_tokens: Most tokens after it.

    Returns:
        Tokens after the prompt, the beginning's first -> how solutions end.
    """
    given = [*prompt, *beginning]
    cache, last = _read(model, given), torch.tensor([given[-1:]], device=model.device)
    written, total = [beginning], torch.zeros(1, dtype=torch.float64)
    lines = {beginning: _Line(1.0, [0.0, 0.0])}
    within = [[beginning]]  # the lines that each of what is followed begins with
    new_line, stops = set(model.encode(NEW_LINE)), list(model.stop_token_ids)
    for _ in range(max_tokens + 1):
        following = total[:, None] + _logprobs(model, cache, last)
        ended = following[:, stops].exp().sum(1)
        for i in (ended >= threshold).nonzero().flatten().tolist():
            right = stated_answer(model.decode(list(written[i]))) == chain.values[-1]
            for line in within[i]:
                lines[line].outcome[0 if right else 1] += float(ended[i])
        following[:, stops] = -math.inf
        parents, tokens, total = _likeliest(following, math.log(threshold))
        if len(parents) == 0:
            break
        cache.batch_select_indices(parents.to(model.device))
        last = tokens[:, None].to(model.device)
        written = [(*written[p], token) for p, token in zip(parents.tolist(), tokens.tolist(), strict=True)]
        within = [within[p] for p in parents.tolist()]
        for i in (i for i, own in enumerate(written) if own[-1] in new_line):
            lines[written[i]] = _Line(float(total[i].exp()), [0.0, 0.0])
            within[i] = [*within[i], written[i]]
    return {tokens: ChainOutcome(right / p, wrong / p) for tokens, (p, (right, wrong)) in lines.items()}


def _read(model: LanguageModel, tokens: Sequence[int]) -> "DynamicCache":
    """Return the keys and values of all tokens but the last."""
    from transformers import DynamicCache

    cache = DynamicCache()
    if len(tokens) > 1:
        model.base(input_ids=torch.tensor([tokens[:-1]], device=model.device), past_key_values=cache, use_cache=True)
    return cache


def _logprobs(model: LanguageModel, cache: Any, last: Tensor) -> Tensor:
    """Return the log-probabilities of what follows, ``(beginnings, vocabulary)``, float64 on the CPU."""
    logits: Tensor = model.base(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits.double().log_softmax(-1).cpu()


def _likeliest(following: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is followed next: numbers of beginnings, tokens after them, and log-probabilities of both together.

    Args:
        following: Log-probabilities of beginnings and what follows them, ``(beginnings, vocabulary)``.
        least: Log-probability from which on something is followed.
    """
    parents, tokens = (following >= least).nonzero(as_tuple=True)
    total = following[parents, tokens]
    if len(total) > MAX_BEGINNINGS:
        chosen = total.topk(MAX_BEGINNINGS).indices.sort().values
        parents, tokens, total = parents[chosen], tokens[chosen], total[chosen]
    return parents, tokens, total
