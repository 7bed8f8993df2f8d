"""The planted sub-sequence: a hidden answer has to appear somewhere in a sequence of tokens; everything exact is known.

How much of the answer the latest tokens match is the state of an automaton, so that values, returns and their
distributions of any policy of that state follow by dynamic programming.

References: Setlur et al. 2024, arXiv 2410.08146, section 3.3 and appendix B (one answer, an end of sequence); Setlur et
al. 2025, arXiv 2502.12118 (returns that count the tokens left after the answer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ("PlantedSequence", "ReturnDistribution", "contextual_answer", "returns_of")


def contextual_answer(prompt: Sequence[int], length: int = 5) -> tuple[int, ...]:
    """Return the answer that belongs to a prompt of two tokens: ``(2 x[j mod 2] + 5 + j) mod 14``.

    Args:
        prompt: Two tokens.
        length: Tokens of the answer.
    """
    return tuple((2 * prompt[j % 2] + 5 + j) % 14 for j in range(length))


@dataclass(frozen=True)
class PlantedSequence:
    """An answer that is to be found, and the automaton that follows how much of it the latest tokens match.

    States are 0 to ``len(answer)``, the number of its tokens that are matched; the last is never left. With an end of
    sequence there is one more, for what has ended without the answer.

    Args:
        answer: Its tokens.
        length: Tokens of a sequence.
        n_tokens: Size of the vocabulary.
        end: Token that ends a sequence; by default there is none.

    Raises:
        ValueError: If the answer is empty, has tokens outside the vocabulary or the end of sequence among them, or is
            longer than the sequence.
    """

    answer: tuple[int, ...] = (3, 6, 0, 3, 5)
    length: int = 10
    n_tokens: int = 15
    end: int | None = None

    def __post_init__(self) -> None:
        """Check the answer."""
        if not 0 < len(self.answer) <= self.length:
            raise ValueError(f"an answer has between 1 and {self.length} tokens, got {len(self.answer)}.")
        if self.end in self.answer or not all(0 <= token < self.n_tokens for token in self.answer):
            raise ValueError(f"an answer is of tokens below {self.n_tokens} without {self.end}, got {self.answer}.")

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.answer) + 1 + (self.end is not None)

    @property
    def solved(self) -> int:
        """The state in which the answer has appeared."""
        return len(self.answer)

    @cached_property
    def following(self) -> Int[Tensor, "states tokens"]:
        """The state that a token leads to: the longest beginning of the answer that the latest tokens end with."""
        table = torch.full((self.n_states, self.n_tokens), self.solved)
        for state in range(self.solved):
            for token in range(self.n_tokens):
                seen = (*self.answer[:state], token)
                matched = next(n for n in range(state + 1, -1, -1) if seen[len(seen) - n :] == self.answer[:n])
                table[state, token] = matched
        if self.end is not None:
            table[: self.solved, self.end] = self.solved + 1
            table[self.solved + 1] = self.solved + 1
        return table

    def states(self, sequences: Int[Tensor, "batch length"]) -> Int[Tensor, "batch positions"]:
        """Return the state before each token and after the last, ``(batch, length + 1)``."""
        found = [torch.zeros(len(sequences), dtype=torch.long)]
        for token in sequences.unbind(1):
            found.append(self.following[found[-1], token])
        return torch.stack(found, 1)

    def procedural_policy(self, weight: float) -> Float[Tensor, "states tokens"]:
        """Return the policy that gives the answer's next token a weight, and every other token 1.

        Args:
            weight: Of the next token, above 0; the larger, the stronger the policy.
        """
        policy = torch.ones(self.n_states, self.n_tokens, dtype=torch.double)
        for state, token in enumerate(self.answer):
            policy[state, token] = weight
        return policy / policy.sum(1, keepdim=True)

    def sample(
        self, policy: Float[Tensor, "*positions states tokens"], n: int, generator: torch.Generator
    ) -> Int[Tensor, "n length"]:
        """Return sequences of a policy of the state; tokens after an end of sequence count for nothing.

        Args:
            policy: Probabilities, for all positions or for each of them.
            n: Number of sequences.
            generator: Draws.
        """
        table = policy.expand(self.length, self.n_states, self.n_tokens)
        state = torch.zeros(n, dtype=torch.long)
        tokens = []
        for position in range(self.length):
            tokens.append(torch.multinomial(table[position][state], 1, generator=generator).squeeze(1))
            state = self.following[state, tokens[-1]]
        return torch.stack(tokens, 1)

    def values(
        self, policy: Float[Tensor, "*positions states tokens"], extra: int = 0
    ) -> Float[Tensor, "positions states"]:
        """Return the probability that a policy finds the answer, from every position and state.

        Args:
            policy: Probabilities, for all positions or for each of the ``length + extra``.
            extra: Tokens that this policy may go on beyond the length, as a prover may.

        Returns:
            ``(length + 1, states)``; before any token it is ``[0, 0]``.
        """
        steps = self.length + extra
        table = policy.expand(steps, self.n_states, self.n_tokens).double()
        found = [torch.zeros(self.n_states, dtype=torch.double)]
        found[0][self.solved] = 1.0
        for position in reversed(range(steps)):
            found.append((table[position] * found[-1][self.following]).sum(1))
        return torch.stack(found[::-1])[: self.length + 1]

    def action_values(
        self, policy: Float[Tensor, "*positions states tokens"], extra: int = 0
    ) -> Float[Tensor, "length states tokens"]:
        """Return the probability that a policy finds the answer after each token; arguments are those of `values`."""
        return self.values(policy, extra)[1:][:, self.following]

    def visits(self, policy: Float[Tensor, "*positions states tokens"]) -> Float[Tensor, "positions states"]:
        """Return the probability of each state before every token and after the last, ``(length + 1, states)``."""
        table = policy.expand(self.length, self.n_states, self.n_tokens).double()
        found = [torch.zeros(self.n_states, dtype=torch.double)]
        found[0][0] = 1.0
        for position in range(self.length):
            flow = (found[-1][:, None] * table[position]).flatten()
            found.append(torch.zeros(self.n_states, dtype=torch.double).index_add(0, self.following.flatten(), flow))
        return torch.stack(found)


class ReturnDistribution(NamedTuple):
    """How often a sequence has each return: the tokens left after the answer, 0 where it never appears."""

    probability: Float[Tensor, " returns"]  # of a return of 0, 1, ..., length

    @property
    def mean(self) -> float:
        """Expected return, tokens."""
        return float(self.probability @ self._returns)

    @property
    def deviation(self) -> float:
        """Standard deviation of the return, tokens: the heterogeneity of the policy on this prompt."""
        return float((self.probability @ (self._returns - self.mean) ** 2).clamp(min=0).sqrt())

    def tail_mass(self, deviations: float) -> float:
        """Return the probability of a return so many standard deviations or more above the mean."""
        threshold = self.mean + deviations * self.deviation
        return float(self.probability[self._returns >= threshold].sum())

    @property
    def _returns(self) -> Tensor:
        return torch.arange(len(self.probability), dtype=torch.double)


def returns_of(
    task: PlantedSequence, policies: Sequence[Float[Tensor, "*positions states tokens"]]
) -> ReturnDistribution:
    """Return the distribution of ``length - T``, where the answer is complete after T tokens.

    Args:
        task: The task.
        policies: ``(states, tokens)`` or ``(positions, states, tokens)``; of several, each sequence has one, drawn
            uniformly.
    """
    found = torch.zeros(task.length + 1, dtype=torch.double)
    for policy in policies:
        solved = task.visits(policy)[:, task.solved]
        found[torch.arange(task.length - 1, -1, -1)] += solved.diff() / len(policies)
        found[0] += (1 - solved[-1]) / len(policies)
    return ReturnDistribution(found)
