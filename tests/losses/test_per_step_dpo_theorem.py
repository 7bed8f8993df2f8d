"""Per-step DPO and advantage-weighted RL have one optimum, in a tree of states in which everything is exact.

Setlur et al. 2024, arXiv 2406.14532, theorem 6.1. In a state s (the prompt and the steps so far) the policy pi_sft
takes a step a with probability pi_sft(a|s), and A(s, a) is its advantage under the best of K attempts of pi_sft.
Equation 4 weighs the log-probability of each step of pi_sft's completions with ``exp(A / beta)``. Its terms of one
state are a cross-entropy to the distribution in proportion to ``pi_sft exp(A / beta)``, which is therefore its optimum.

DPO learns from pairs of steps that follow one prefix, which pi_sft has sampled. Either of two laws of the pairs makes
the theorem true:

- Both steps are samples of pi_sft, and a is preferred to b with the Bradley-Terry probability of their exponentiated
  advantages, ``exp(A(a)) / (exp(A(a)) + exp(A(b)))``.
- The preferred step is drawn in proportion to ``pi_sft exp(A)``, and the other from pi_sft. Of the pairs of a and b,
  ``pi_sft(a) exp(A(a)) pi_sft(b)`` prefer a to ``pi_sft(b) exp(A(b)) pi_sft(a)`` that prefer b: the same odds.

DPO's loss is least where ``beta (log pi*(a)/pi_sft(a) - log pi*(b)/pi_sft(b))`` is the log of these odds, which is
``A(a) - A(b)``: again where pi* is in proportion to ``pi_sft exp(A / beta)``. The law of the pairs has no beta, since
DPO's loss has it: with preferred steps in proportion to ``pi_sft exp(A / beta)``, the weights of equation 4, DPO's
optimum would be ``pi_sft exp(A / beta^2)``.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from surefoot.losses import advantage_weights, dpo_loss
from surefoot.reasoning.values import best_of_k

N_ACTIONS, DEPTH, K = 3, 3, 5
N_STATES = sum(N_ACTIONS**depth for depth in range(DEPTH))


class Tree(NamedTuple):
    """All states of a problem of a few steps; state s goes on to ``N_ACTIONS * s + 1 + action``, or ends there."""

    log_policy: Tensor  # of pi_sft, (states, actions)
    advantages: Tensor  # of the best of K attempts of pi_sft, (states, actions)
    visits: Tensor  # probability that pi_sft comes by, (states,)

    def optimum(self, beta: float) -> Tensor:
        """Return the log-probabilities of the policy in proportion to ``pi_sft exp(A / beta)``."""
        return (self.log_policy + self.advantages / beta).log_softmax(-1)


def following(state: int) -> slice:
    return slice(N_ACTIONS * state + 1, N_ACTIONS * (state + 1) + 1)


def tree(seed: int) -> Tree:
    """Return a random policy, with values by dynamic programming from random right and wrong ends."""
    generator = torch.Generator().manual_seed(seed)
    log_policy = torch.randn(N_STATES, N_ACTIONS, dtype=torch.double, generator=generator).log_softmax(-1)
    n_ends = N_ACTIONS**DEPTH
    values = torch.cat([torch.zeros(N_STATES), torch.randint(0, 2, (n_ends,), generator=generator)]).double()
    for state in reversed(range(N_STATES)):
        values[state] = log_policy[state].exp() @ values[following(state)]
    visits = torch.ones(N_STATES + n_ends, dtype=torch.double)
    for state in range(N_STATES):
        visits[following(state)] = visits[state] * log_policy[state].exp()
    best = torch.tensor([best_of_k(min(1.0, v), K) for v in values.tolist()], dtype=torch.double)
    advantages = torch.stack([best[following(state)] - best[state] for state in range(N_STATES)])
    return Tree(log_policy, advantages, visits[:N_STATES])


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return the log-probabilities at which a loss of them is least, by Newton's steps from a start."""

    def of_logits(flat: Tensor) -> Tensor:
        return loss(flat.view(N_STATES, N_ACTIONS).log_softmax(-1))

    logits = start.flatten()
    for _ in range(20):
        slope, curvature = torch.func.grad(of_logits)(logits), torch.func.hessian(of_logits)(logits)
        logits = logits - torch.linalg.pinv(curvature, hermitian=True) @ slope
    return logits.view(N_STATES, N_ACTIONS).log_softmax(-1)


def advantage_weighted(tree: Tree, beta: float) -> Tensor:
    """Return the optimum of equation 4, in expectation over the completions of pi_sft."""
    weights = advantage_weights(tree.advantages.flatten(), beta).weights.view_as(tree.advantages)
    drawn = tree.visits[:, None] * tree.log_policy.exp()
    return minimised(lambda log_policy: -(drawn * weights * log_policy).sum(), tree.log_policy)


def dpo(tree: Tree, beta: float, preferred: Tensor) -> Tensor:
    """Return the optimum of per-step DPO, in expectation over pairs.

    Args:
        tree: The problem.
        beta: Of the loss.
        preferred: Share of the pairs that follow a state in which the first step is preferred to the second,
            ``(states, actions, actions)``.
    """
    weights = tree.visits[:, None, None] * preferred
    base = tree.log_policy

    def loss(log_policy: Tensor) -> Tensor:
        sides = (x.expand_as(preferred).flatten() for p in (log_policy, base) for x in (p[:, :, None], p[:, None, :]))
        return weights.flatten() @ dpo_loss(*sides, beta).losses

    return minimised(loss, base)


def both_sampled(tree: Tree, score: Tensor) -> Tensor:
    """Return the pairs of two samples of pi_sft, preferred with the Bradley-Terry probability of scores."""
    policy = tree.log_policy.exp()
    return policy[:, :, None] * policy[:, None, :] * (score[:, :, None] - score[:, None, :]).sigmoid()


def preferred_weighted(tree: Tree, score: Tensor) -> Tensor:
    """Return the pairs of a step in proportion to ``pi_sft exp(score)`` and a sample of pi_sft."""
    return (tree.log_policy + score).softmax(-1)[:, :, None] * tree.log_policy.exp()[:, None, :]


@pytest.mark.parametrize("pairs", [both_sampled, preferred_weighted])
@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_methods_reach_the_policy_of_exponentiated_advantages(
    seed: int, beta: float, pairs: Callable[[Tree, Tensor], Tensor]
) -> None:
    problem = tree(seed)
    weighted = advantage_weighted(problem, beta)
    per_step = dpo(problem, beta, pairs(problem, problem.advantages))
    torch.testing.assert_close(weighted, problem.optimum(beta), rtol=0, atol=1e-9)
    torch.testing.assert_close(per_step, problem.optimum(beta), rtol=0, atol=1e-9)
    torch.testing.assert_close(per_step, weighted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pairs", [both_sampled, preferred_weighted])
def test_pairs_drawn_without_advantages_do_not(pairs: Callable[[Tree, Tensor], Tensor]) -> None:
    """They teach what they were drawn by: pi_sft where steps are preferred by chance, else another score's policy."""
    problem = tree(0)
    optimum = problem.optimum(0.3)
    by_chance = dpo(problem, 0.3, pairs(problem, torch.zeros_like(problem.advantages)))
    torch.testing.assert_close(by_chance, problem.log_policy, rtol=0, atol=1e-9)
    assert (by_chance - optimum).abs().max() > 0.5
    shuffled = problem.advantages.roll(1, 1)
    wrong_steps = dpo(problem, 0.3, pairs(problem, shuffled))
    torch.testing.assert_close(wrong_steps, problem._replace(advantages=shuffled).optimum(0.3), rtol=0, atol=1e-9)
    assert (wrong_steps - optimum).abs().max() > 0.5
