"""The didactic world: right steps are called right, and the oracle's probability is that of the policy."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.reasoning.arithmetic import (
    Chain,
    Chains,
    ProceduralPolicy,
    arithmetic_problem,
    judge_steps,
    read_chain,
)


def test_golden_problem() -> None:
    """7 + 5 = 12, taken mod 10 is 2; 2 - 3 = -1, that is 9; 9 * 2 = 18, that is 8."""
    chain = Chain(7, (("+", 5), ("-", 3), ("*", 2)), 10)
    assert chain.question == "7+5-3*2%10="
    assert chain.values == [7, 2, 9, 8]
    assert read_chain(chain.question) == chain
    assert read_chain("12+30*2=") == Chain(12, (("+", 30), ("*", 2)), None)
    with pytest.raises(ValueError, match="not an arithmetic chain"):
        read_chain("what is 2+2?")


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        (["7+5=2", "2-3=9", "9*2=8", "#### 8"], ["correct"] * 3 + ["answer"]),
        (["2=7+5", "so 2-3 is 9", "9*2=8", "#### 8"], ["correct"] * 3 + ["answer"]),
        (["7+5=3", "3-3=0", "0*2=0", "#### 0"], ["wrong", "correct", "correct", "wrong answer"]),
        (["7+5=3", "wait", "7+5=2", "2-3=9"], ["wrong", "retry", "correct", "correct"]),
        (["4+4=8", "7+5=2", "1*1=2"], ["spurious", "correct", "wrong"]),
        (["7+5=2", "5-3=2"], ["correct", "spurious"]),
        (["hm", "7+5=2", "#### 8", "2-3=9"], ["unreadable", "correct", "answer", "unreadable"]),
        (["#### 7"], ["wrong answer"]),
        (["7+5-3=9", "9*2=8", "#### 8"], ["correct", "correct", "answer"]),
        (["7+5-3=8", "wait", "7+5=2", "2-3*2=8"], ["wrong", "retry", "correct", "correct"]),
        (["7+5-3*2=8", "#### 8"], ["correct", "answer"]),
        (["7+5+3=5", "5-3=2", "7+5=2"], ["spurious", "spurious", "correct"]),
        (["7+5=2", "2-3*2+1=9"], ["correct", "spurious"]),
    ],
)
def test_every_line_is_judged(lines: list[str], kinds: list[str]) -> None:
    assert judge_steps("7+5-3*2%10=", lines) == kinds


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([10, 7, None]), st.floats(0, 0.9), st.floats(0, 0.9))
def test_reference_solutions_are_right_in_every_style(
    seed: int, modulus: int | None, spurious: float, retry: float
) -> None:
    policy = ProceduralPolicy(0.0, retry, spurious, (0, 1, 2))
    problem = arithmetic_problem(seed, 0, Chains(3, 8, modulus), policy)
    kinds = judge_steps(problem.question, problem.solution.split("\n"))
    assert set(kinds) <= {"correct", "spurious", "answer"}
    assert kinds[-1] == "answer"
    assert kinds.count("correct") == problem.details["n_steps"]
    assert policy.success_probability(problem.question) == 1.0


@pytest.mark.parametrize("long_steps", [0.0, 0.5, 1.0])
def test_long_steps_are_right_and_as_many_as_said(long_steps: float) -> None:
    policy = ProceduralPolicy(long_step_rate=long_steps)
    lengths = []
    for i in range(200):
        problem = arithmetic_problem(0, i, Chains(5, 5), policy)
        lines = problem.solution.split("\n")
        assert judge_steps(problem.question, lines) == ["correct"] * (len(lines) - 1) + ["answer"]
        lengths.append(len(lines) - 1)
    # n operations take f(n) = 1 + f(n - 1) / 2 + f(n - 2) / 2 lines, f(0) = 0, f(1) = 1
    assert sum(lengths) / 200 == pytest.approx({0.0: 5, 0.5: 3.5625, 1.0: 3}[long_steps], abs=0.12)


@pytest.mark.parametrize("modulus", [10, None])
@pytest.mark.parametrize("prefix_length", [0, 1, 2, 3, 4])
def test_the_oracle_is_the_frequency_of_success(modulus: int | None, prefix_length: int) -> None:
    policy = ProceduralPolicy(0.25, 0.5, 0.2, (0, 1), 0.4)
    draw = random.Random(prefix_length)
    n = 1500
    for index in range(2):
        problem = arithmetic_problem(3, index, Chains(4, 4, modulus))
        prefix = policy.solve(problem.question, random.Random(index))[:prefix_length]
        expected = policy.success_probability(problem.question, prefix)
        won = 0
        for _ in range(n):
            last = [*prefix, *policy.solve(problem.question, draw, prefix)][-1]
            won += last == f"#### {problem.answer}"
        assert won / n == pytest.approx(expected, abs=4 * (0.25 / n) ** 0.5)


def test_the_oracle_in_a_case_done_by_hand() -> None:
    """One step, error rate .2, no retries: .8. With retry rate .5: (1 - .2) / (1 - .1) = .8889. After a slip: half."""
    question = "1+1%10="
    assert ProceduralPolicy(0.2).success_probability(question) == pytest.approx(0.8)
    policy = ProceduralPolicy(0.2, 0.5)
    assert policy.success_probability(question) == pytest.approx(0.8 / 0.9)
    assert policy.success_probability(question, ["1+1=3"]) == pytest.approx(0.5 * 0.8 / 0.9)
    assert policy.success_probability(question, ["1+1=3", "wait"]) == pytest.approx(0.8 / 0.9)
    assert policy.success_probability(question, ["#### 2"]) == 1.0
    assert policy.success_probability(question, ["1+1=2", "#### 3"]) == 0.0
    assert ProceduralPolicy(1.0).success_probability(question) == 0.0


def test_errors_can_cancel_modulo() -> None:
    """Times 0 forgets an error: with 1 wrong for certain, then * 0, the answer is right for certain."""
    policy = ProceduralPolicy(0.3)
    assert policy.success_probability("1+1*0%10=", ["1+1=7"]) == pytest.approx(0.7)
    assert policy.success_probability("1+1*1%10=", ["1+1=7"]) == pytest.approx(0.3 / 9)


def test_problems_are_the_same_on_every_machine() -> None:
    problem = arithmetic_problem(0, 0)
    assert (problem.question, problem.answer) == (
        arithmetic_problem(0, 0).question,
        arithmetic_problem(0, 0).answer,
    )
    assert problem.question != arithmetic_problem(1, 0).question
