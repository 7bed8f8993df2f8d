"""Exact values of solutions of chains against naive enumeration and against what is sampled."""

from itertools import product

import pytest
import torch

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.arithmetic import Chain, read_chain
from surefoot.reasoning.language_models import LanguageModel, TinyLanguageModel, completion_logprobs
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import HFEngine
from surefoot.reasoning.sequences import PromptCompletion, Span
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.exact_chains import ExactChainValues, outcomes_after

CHAIN = read_chain("1+2-1%3=")


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel(width=16, n_layers=2, seed=1, initializer_range=0.3)


def written(results: tuple[int, ...], answer: int, value: int = CHAIN.start, step: int = 0) -> str:
    text = ""
    for (op, b), c in zip(CHAIN.operations[step:], results, strict=True):
        text, value = text + f"{value}{op}{b}={c}\n", c
    return text + f"#### {answer}"


def naive(model: LanguageModel, beginning: str, value: int, step: int) -> tuple[float, float]:
    """Add up the probabilities of whole solutions, each with a forward pass of its own."""
    right = wrong = 0.0
    for *results, answer in product(range(3), repeat=len(CHAIN.operations) - step + 1):
        tokens = model.encode(written(tuple(results), answer, value, step))
        if answer == CHAIN.values[-1]:
            tokens = [*tokens, model.eos_token_id]
        [logprobs] = completion_logprobs(model, [PromptCompletion(model.encode(beginning), tokens)], 512)
        probability = float(logprobs.double().sum().exp())
        right += probability * (answer == CHAIN.values[-1])
        wrong += probability * (answer != CHAIN.values[-1])
    return right, wrong


@pytest.mark.parametrize(("lines", "value", "step"), [("", 1, 0), ("1+2=2\n", 2, 1), ("1+2=0\nwait\n", 1, 0)])
def test_solutions_are_enumerated(model: TinyLanguageModel, lines: str, value: int, step: int) -> None:
    beginning = f"{CHAIN.question}\n{lines}"
    found = outcomes_after(model, CHAIN, model.encode(beginning), value, step)
    assert len(found) == sum(3**n for n in range(len(CHAIN.operations) - step + 1))
    assert tuple(found[()]) == pytest.approx(naive(model, beginning, value, step), rel=1e-4)
    for more, outcome in found.items():
        text = model.decode(list(more))
        after = int(text[-2]) if text else value
        own = step + text.count("\n")
        assert tuple(outcome) == pytest.approx(naive(model, beginning + text, after, own), rel=1e-4)


def trajectory(model: LanguageModel, text: str, finish: str = "step") -> Trajectory:
    tokens, ended = model.encode(text), finish == "stop"
    problem = Problem("p", CHAIN.question, str(CHAIN.values[-1]))
    prompt = model.encode(f"{CHAIN.question}\n")
    own = [*tokens, model.eos_token_id] if ended else tokens
    return Trajectory(problem, 0, prompt, own, [0.0] * len(own), "stop" if ended else "step", 0, text=text)


def test_values_follow_the_lines_and_the_grade(model: TinyLanguageModel) -> None:
    policy = Policy(model, PlainPrompt(), HFEngine(), Grader())
    going, right, wrong = (
        trajectory(model, "1+2=2\n2-1=1\n"),
        trajectory(model, written((0, 2), 2), "stop"),
        trajectory(model, written((1, 1), 1), "stop"),
    )
    policy.grade([right, wrong])
    for t in (going, right, wrong):
        policy.cut_into_steps([t], "\n")
    ExactChainValues(tolerance=1.0)(policy, [going, right, wrong], lambda *parts: 0)
    assert [len(t.values) for t in (going, right, wrong)] == [3, 4, 4]
    assert going.values[0] == right.values[0] == wrong.values[0]
    assert (right.values[-1], wrong.values[-1]) == (1.0, 0.0)
    expected = naive(model, f"{CHAIN.question}\n1+2=2\n", 2, 1)
    assert going.values[1] == pytest.approx(expected[0] / sum(expected), rel=1e-4)


def test_what_is_written_beside_is_refused(model: TinyLanguageModel) -> None:
    policy = Policy(model, PlainPrompt(), HFEngine(), Grader())
    with pytest.raises(DataError, match=r"100\.0% is no regular line"):
        ExactChainValues()(policy, [trajectory(model, "1+2=2\n")], lambda *parts: 0)


def test_other_weights_have_other_values() -> None:
    changing = TinyLanguageModel(width=16, n_layers=2, seed=1, initializer_range=0.3)
    estimator, t = ExactChainValues(tolerance=1.0), trajectory(changing, "1+2=2\n")
    estimator.compute(changing, [t])
    before = list(t.values)
    with torch.no_grad():
        for parameter in changing.parameters():
            parameter.mul_(1.2)
    estimator.compute(changing, [t])
    after, fresh = list(t.values), ExactChainValues(tolerance=1.0)
    fresh.compute(changing, [t])
    assert after == list(t.values) != before


def test_prefixes_that_have_ended_do_not_hide_what_is_missing(model: TinyLanguageModel) -> None:
    ended = trajectory(model, "#### 2\n" + "1+2=0\n" * 60)
    ended.spans = [Span(0, 7), *(Span(7 + 6 * i, 13 + 6 * i) for i in range(60))]
    with pytest.raises(DataError, match=r"100\.0% is no regular line"):
        ExactChainValues().compute(model, [ended])


@pytest.mark.parametrize("tolerance", [-0.1, 1.1, float("nan")])
def test_a_tolerance_is_a_probability(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="tolerance must be in"):
        ExactChainValues(tolerance)


def test_a_prefix_within_a_line_is_refused(model: TinyLanguageModel) -> None:
    with pytest.raises(DataError, match="exact values are of whole lines"):
        ExactChainValues().compute(model, [trajectory(model, "1+2=")])


def test_more_ways_than_can_be_tried_are_refused(model: TinyLanguageModel) -> None:
    chain = read_chain("1+1+1+1+1+1%10=")
    with pytest.raises(DataError, match="100,000 ways to finish"):
        outcomes_after(model, chain, model.encode(f"{chain.question}\n"), 1, 0)


def test_numbers_of_two_digits_are_refused(model: TinyLanguageModel) -> None:
    with pytest.raises(DataError, match="modulo 10 or less"):
        outcomes_after(model, Chain(1, (("+", 2),), None), model.encode("1+2=\n"), 1, 0)
    with pytest.raises(DataError, match="modulo 10 or less"):
        outcomes_after(model, Chain(1, (("+", 2),), 11), model.encode("1+2%11=\n"), 1, 0)


def test_a_random_model_s_outcomes_lie_within_one(model: TinyLanguageModel) -> None:
    outcome = outcomes_after(model, CHAIN, model.encode(f"{CHAIN.question}\n"), 1, 0)[()]
    assert 0 < outcome.right < outcome.wrong < 1
    assert outcome.missing == pytest.approx(1 - outcome.right - outcome.wrong)
    assert torch.isfinite(torch.tensor(outcome)).all()
