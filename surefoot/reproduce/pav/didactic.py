"""The didactic task: find a planted sub-sequence, by outcomes alone or with a prover's advantages.

Many networks learn side by side, one for each prover. A prover's values are exact, or exactly as rollouts would give
them: the share of n rollouts that succeed is binomial. A step's value under the policy is the outcome of the sequence
that it belongs to, which has the same mean.

Reference: Setlur et al. 2024, arXiv 2410.08146, section 3.3 and appendix B.
"""

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.reproduce.pav.network import AutoregressiveNetworks
from surefoot.reproduce.tasks.planted import PlantedSequence
from surefoot.training.seeds import derive_seed

__all__ = ("TASK", "DidacticTraining", "Learner", "advantages", "imitate", "prover_values", "reinforce", "returns")

END = 14
TASK = PlantedSequence(answer=(3, 6, 0, 3, 5), length=10, n_tokens=15, end=END)
#: The weight of the policy that is imitated at first, and on how many sequences.
START_WEIGHT, N_IMITATED, IMITATION_STEPS, BATCH = 5.0, 3200, 50, 64


class Learner(NamedTuple):
    """How one network is rewarded."""

    weight: float  # of the answer's next token in the prover
    alpha: float = 1.0  # of the prover's advantage; 0 for outcomes alone


class DidacticTraining(NamedTuple):
    """What learners that are trained side by side have in common."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    n_rollouts: int | None = None  # of the prover after each token; none: its exact values
    extra: int = 0  # tokens that the prover may go on beyond the length
    end_is_fatal: bool = True  # whether the end of sequence ends the prover's attempt, too

    @property
    def prover_setting(self) -> str:
        """How the prover's values are found."""
        values = "exact values" if self.n_rollouts is None else f"{self.n_rollouts} rollouts"
        beyond = "" if self.extra == 0 else f", {self.extra} tokens more"
        return f"{values}{beyond}{'' if self.end_is_fatal else ', no end'}"


def prover_values(weight: float, training: DidacticTraining) -> Float[Tensor, "positions states"]:
    """Return the probability that a prover finds the answer, ``(length + 1, states)``."""
    if training.end_is_fatal:
        return TASK.values(TASK.procedural_policy(weight), training.extra)
    endless = PlantedSequence(TASK.answer, TASK.length, TASK.n_tokens)
    values = endless.values(endless.procedural_policy(weight), training.extra)
    return torch.cat([values, values[:, :1]], 1)  # after the end it begins anew


def returns(tokens: Int[Tensor, "*networks batch length"]) -> Float[Tensor, "*networks batch"]:
    """Return 1 for sequences with the answer, 0 for others."""
    states = TASK.states(tokens.flatten(0, -2))
    solved: Tensor = (states[:, -1] == TASK.solved).float().unflatten(0, tokens.shape[:-1])
    return solved


def advantages(
    values: Float[Tensor, "networks positions states"],
    states: Int[Tensor, "networks batch positions"],
    n_rollouts: int | None,
    generator: torch.Generator,
) -> Float[Tensor, "networks batch length"]:
    """Return the prover's advantage of each token: its value after it, minus that before it.

    Args:
        values: Of each network's prover.
        states: Before each token and after the last.
        n_rollouts: By which each value is estimated; none for exact ones. A value is estimated once, for both of the
            tokens beside it.
        generator: Draws.
    """
    networks = torch.arange(len(values))[:, None, None]
    found = values[networks, torch.arange(states.shape[2]), states]
    if n_rollouts is not None:
        found = torch.binomial(torch.full_like(found, n_rollouts), found.clamp(0, 1), generator=generator) / n_rollouts
    return found.diff(dim=2).float()


def imitate(seed: int, n_networks: int, lr: float = 1e-3) -> AutoregressiveNetworks:
    """Return networks with equal weights, trained a little on samples of a weak policy.

    Args:
        seed: Of weights and samples.
        n_networks: How many.
        lr: Of Adam.
    """
    network = AutoregressiveNetworks([derive_seed(seed, "weights")], TASK.length, TASK.n_tokens)
    generator = torch.Generator().manual_seed(derive_seed(seed, "imitation"))
    tokens = TASK.sample(TASK.procedural_policy(START_WEIGHT), N_IMITATED, generator)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    for rows in torch.randperm(N_IMITATED, generator=generator)[: IMITATION_STEPS * BATCH].split(BATCH):
        batch = tokens[rows][None]
        loss = -(_logprobs(network, batch) * _before_end(batch)).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    copies = AutoregressiveNetworks([0] * n_networks, TASK.length, TASK.n_tokens)
    with torch.no_grad():
        for copy, trained in zip(copies.parameters(), network.parameters(), strict=True):
            copy.copy_(trained.expand_as(copy))
    return copies


class Curve(NamedTuple):
    """What was measured while networks learned."""

    accuracy: Float[Tensor, "iterations networks"]  # of each iteration's samples
    solved: dict[int, Int[Tensor, " networks"]]  # iteration -> samples with the answer, of so many
    n_samples: int
    seconds: float


def reinforce(
    seed: int,
    learners: Sequence[Learner],
    training: DidacticTraining,
    n_iterations: int,
    sampled_at: Sequence[int] = (),
    n_samples: int = 20_000,
) -> Curve:
    """Train a network for each learner by policy gradients with effective rewards (equation 5), from one start.

    Args:
        seed: Of the start and of all draws.
        learners: How each network is rewarded.
        training: What they have in common.
        n_iterations: Steps, of 64 sequences each.
        sampled_at: Iterations after which samples are counted.
        n_samples: How many then.
    """
    began = time.monotonic()
    network = imitate(seed, len(learners))
    generator = torch.Generator().manual_seed(derive_seed(seed, "reinforcement", *training))
    values = torch.stack([prover_values(learner.weight, training) for learner in learners])
    alpha = torch.tensor([learner.alpha for learner in learners])[:, None, None]
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(network.parameters(), lr=training.lr)
    accuracy, solved = [], dict[int, Tensor]()
    for iteration in range(n_iterations + 1):
        if iteration in sampled_at:
            solved[iteration] = _count_solved(network, n_samples, generator)
        if iteration == n_iterations:
            break
        tokens = network.sample(BATCH, generator)
        states = TASK.states(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        outcome = (states[..., -1] == TASK.solved).float()
        worth = outcome[..., None] + alpha * advantages(values, states, training.n_rollouts, generator)
        loss = -(_logprobs(network, tokens) * _before_end(tokens) * worth).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy.append(outcome.mean(1))
    return Curve(torch.stack(accuracy), solved, n_samples, time.monotonic() - began)


def _count_solved(network: AutoregressiveNetworks, n: int, generator: torch.Generator) -> Int[Tensor, " networks"]:
    found = [returns(network.sample(n // 10, generator)).sum(1) for _ in range(10)]
    return torch.stack(found).sum(0).long()


def _logprobs(
    network: AutoregressiveNetworks, tokens: Int[Tensor, "networks batch length"]
) -> Float[Tensor, "networks batch length"]:
    logprobs: Tensor = network(tokens)
    return logprobs.gather(3, tokens[..., None]).squeeze(3)


def _before_end(tokens: Int[Tensor, "networks batch length"]) -> Float[Tensor, "networks batch length"]:
    """Return 1 up to the end of sequence, which counts; 0 after it."""
    ended = tokens.eq(END).long()
    reached: Tensor = ended.cumsum(2) - ended == 0
    return reached.float()
