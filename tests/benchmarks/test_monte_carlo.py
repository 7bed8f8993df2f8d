"""What the ways of sampling values are given to do."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.monte_carlo import Task, prefixes_as_text, task, tokens_of
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rollouts import EngineStatistics, HFEngine, Sampling
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import MonteCarloValues, prefix_lengths


@pytest.fixture
def given(tmp_path: Path) -> Task:
    return task(tmp_path, 3, n_problems=2, n_valued=1, n_solutions=4, n_rollouts=2)


@pytest.fixture
def policy(given: Task) -> Iterator[Policy]:
    policy = given.policy(HFEngine())
    policy.ready()
    yield policy
    policy.close()


def valued(given: Task, policy: Policy) -> Sequence[Trajectory]:
    return given.solutions(policy, given.n_valued)


def test_completions_never_end_before_their_budget(given: Task, policy: Policy) -> None:
    """The end of sequence is e-30 times as likely as any other token, wherever a solution stands."""
    for t in given.solutions(policy):
        with torch.inference_mode():
            logits = given.model.model(torch.tensor([[*t.prompt, *t.completion]])).logits[0]
        others = torch.arange(logits.shape[1]) != given.model.eos_token_id
        assert (logits[:, ~others] < logits[:, others].min(1, keepdim=True).values - 30).all()
    (completions,) = policy.engine.generate([policy.prompt.prompt_ids(given.problems[0], given.model)], Sampling(n=8))
    assert {len(c.tokens) for c in completions} == {256}


def test_solutions_of_a_problem_begin_alike(given: Task, policy: Policy) -> None:
    solutions = valued(given, policy)
    assert len({t.problem.id for t in solutions}) == 1
    assert len({t.text for t in solutions}) > 1
    texts = [text for t in solutions for text in prefixes_as_text(t, given.model)]
    assert len(texts) == 4 * 4  # the prompt, and each of three steps
    assert 4 < len(set(texts)) <= len(texts) - 3  # all share the prompt


def test_tokens_are_counted_as_they_are_sampled(given: Task, policy: Policy) -> None:
    solutions, sampling = valued(given, policy), Sampling(n=2, max_tokens=given.max_tokens)
    MonteCarloValues(sampling)(policy, solutions, lambda *parts: 0)
    ours = policy.engine.statistics()
    found = tokens_of(solutions, sampling, {"ours": ours, "none": EngineStatistics()})
    prefixes = [(t.prompt, t.completion[:n]) for t in solutions for n in prefix_lengths(t)[:-1]]
    distinct = {(*prompt, *tokens): len(tokens) for prompt, tokens in prefixes}
    rests = {
        name: sum(2 * (given.max_tokens - n) for n in lengths)
        for name, lengths in (
            ("prefix by prefix", [len(tokens) for _, tokens in prefixes]),
            ("distinct prefixes", distinct.values()),
        )
    }
    assert found["prefixes"] == {"asked for": 16, "distinct": len(distinct)}
    assert found["sampled to the end of all budgets"] == rests
    assert found["sampled"] == {"ours": rests["distinct prefixes"], "none": 0}
    assert found["prefill of each completion"] == 2 * sum(len(prompt) + len(tokens) for prompt, tokens in prefixes)
    beginnings = {prefix[:n] for prefix in distinct for n in range(1, 1 + len(prefix))}
    assert found["prefill at least"] == len(beginnings)
