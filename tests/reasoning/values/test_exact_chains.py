"""Exact values of solutions of chains against naive enumeration, one forward pass a beginning."""

import math

import pytest
import torch

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.arithmetic import read_chain, stated_answer
from surefoot.reasoning.language_models import LanguageModel, TinyLanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import HFEngine
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import exact_chains
from surefoot.reasoning.values.exact_chains import ExactChainValues, outcomes_after

CHAIN = read_chain("1+2-1%3=")
LINES = "1+2=0\n0-1=2\n"


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel(width=16, n_layers=2, seed=1, initializer_range=0.3)


def prompt(model: LanguageModel) -> tuple[int, ...]:
    return tuple(model.encode(f"{CHAIN.question}\n"))


def naive(
    model: LanguageModel, beginning: tuple[int, ...], threshold: float, max_tokens: int, total: float = 1.0
) -> tuple[float, float]:
    """Follow a beginning to the ends of what is likely enough, without keys and values that are kept."""
    with torch.inference_mode():
        tokens = torch.tensor([[*prompt(model), *beginning]])
        following = model.base(input_ids=tokens).logits[0, -1].double().softmax(-1)
    right = wrong = 0.0
    ended = total * float(following[model.eos_token_id])
    if ended >= threshold:
        is_right = stated_answer(model.decode(list(beginning))) == CHAIN.values[-1]
        right, wrong = (ended, 0.0) if is_right else (0.0, ended)
    for token, p in enumerate(following.tolist()):
        if max_tokens > 0 and token != model.eos_token_id and total * p >= threshold:
            own = naive(model, (*beginning, token), threshold, max_tokens - 1, total * p)
            right, wrong = right + own[0], wrong + own[1]
    return right, wrong


@pytest.mark.parametrize(
    ("text", "threshold", "max_tokens"),
    [(f"{LINES}#### ", 1e-12, 1), (LINES, 3e-3, 6), ("1+2=0", 1e-3, 4), ("", 1e-2, 8)],
)
def test_all_that_is_likely_enough_is_followed(
    model: TinyLanguageModel, text: str, threshold: float, max_tokens: int
) -> None:
    beginning = tuple(model.encode(text))
    found = outcomes_after(model, CHAIN, prompt(model), beginning, threshold, max_tokens)
    assert tuple(found[beginning][:2]) == pytest.approx(naive(model, beginning, threshold, max_tokens), rel=1e-4)
    assert all(model.decode(list(tokens)).endswith("\n") for tokens in found if tokens != beginning)


def test_lines_on_the_way_are_valued_with_it(model: TinyLanguageModel) -> None:
    beginning = tuple(model.encode("1+2=0"))
    line = (*beginning, *model.encode("\n"))
    found = outcomes_after(model, CHAIN, prompt(model), beginning, 1e-7, 2)
    with torch.inference_mode():
        before = torch.tensor([[*prompt(model), *beginning]])
        probability = float(model.base(input_ids=before).logits[0, -1].double().softmax(-1)[line[-1]])
    assert tuple(found[line][:2]) == pytest.approx(naive(model, line, 1e-7 / probability, 1), rel=1e-4)
    right = found[tuple(model.encode("1+2=0"))]
    assert right.missing == pytest.approx(1 - right.right - right.wrong)


def test_the_right_answer_alone_is_right(model: TinyLanguageModel) -> None:
    beginning = tuple(model.encode(f"{LINES}#### "))
    found = outcomes_after(model, CHAIN, prompt(model), beginning, 1e-12, 1)[beginning]
    with torch.inference_mode():
        first = model.base(input_ids=torch.tensor([[*prompt(model), *beginning]])).logits[0, -1].double().softmax(-1)
        two = model.encode("2")
        then = model.base(input_ids=torch.tensor([[*prompt(model), *beginning, *two]])).logits[0, -1].double()
    assert found.right == pytest.approx(float(first[two[0]] * then.softmax(-1)[model.eos_token_id]), rel=1e-5)
    assert found.wrong > found.right


def test_of_more_than_can_be_followed_the_likeliest_are(
    model: TinyLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning = tuple(model.encode(LINES))
    everything = outcomes_after(model, CHAIN, prompt(model), beginning, 1e-4, 3)[beginning]
    monkeypatch.setattr(exact_chains, "MAX_BEGINNINGS", 5)
    few = outcomes_after(model, CHAIN, prompt(model), beginning, 1e-4, 3)[beginning]
    assert 1 > few.missing > everything.missing


def trajectory(model: LanguageModel, text: str, finish: str = "step") -> Trajectory:
    tokens, ended = model.encode(text), finish == "stop"
    problem = Problem("p", CHAIN.question, str(CHAIN.values[-1]))
    own = [*tokens, model.eos_token_id] if ended else tokens
    ids = prompt(model)
    return Trajectory(problem, 0, ids, own, [0.0] * len(own), "stop" if ended else "step", 0, text=text)


def test_values_follow_the_lines_and_the_grade(model: TinyLanguageModel) -> None:
    policy = Policy(model, PlainPrompt(), HFEngine(), Grader())
    going, right, wrong = (
        trajectory(model, LINES),
        trajectory(model, f"{LINES}#### 2", "stop"),
        trajectory(model, "1+2=1\n1-1=1\n#### 1", "stop"),
    )
    policy.grade([right, wrong])
    for t in (going, right, wrong):
        policy.cut_into_steps([t], "\n")
    ExactChainValues(1e-3, tolerance=1.0, max_tokens=20)(policy, [going, right, wrong], lambda *parts: 0)
    assert [len(t.values) for t in (going, right, wrong)] == [3, 4, 4]
    assert going.values[0] == right.values[0] == wrong.values[0]
    assert going.values[2] == right.values[2]
    assert (right.values[-1], wrong.values[-1]) == (1.0, 0.0)


def test_other_weights_have_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_chains, "MAX_BEGINNINGS", 200)
    changing = TinyLanguageModel(width=16, n_layers=2, seed=1, initializer_range=0.3)
    t = trajectory(changing, f"{LINES}#### ")
    estimator = ExactChainValues(1e-6, tolerance=1.0, max_tokens=len(t.completion) + 1)
    estimator.compute(changing, [t])
    before = list(t.values)
    with torch.no_grad():
        for parameter in changing.parameters():
            parameter.mul_(1.2)
    estimator.compute(changing, [t])
    after = list(t.values)
    ExactChainValues(1e-6, tolerance=1.0, max_tokens=len(t.completion) + 1).compute(changing, [t])
    assert after == list(t.values) != before


def test_what_is_too_rare_is_followed_by_itself_and_refused_where_that_does_not_help(model: TinyLanguageModel) -> None:
    t = trajectory(model, f"{LINES}#### ")
    t.spans = [Span(0, len(t.completion))]
    with pytest.raises(DataError, match=r"are too rare to be enumerated, more than the tolerance of 0"):
        ExactChainValues(1e-3, tolerance=0.0, max_tokens=20).compute(model, [t])
    whole = outcomes_after(model, CHAIN, prompt(model), tuple(t.completion), 1e-6, 20 - len(t.completion))
    ExactChainValues(1e-6, tolerance=1.0, max_tokens=20).compute(model, [t])
    assert t.values[1] == whole[tuple(t.completion)].value, "no line that the prompt's solutions begin with"


@pytest.mark.parametrize(
    "arguments", [{"tolerance": -0.1}, {"tolerance": float("nan")}, {"threshold": 0.0}, {"threshold": math.nan}]
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected threshold in"):
        ExactChainValues(**arguments)
