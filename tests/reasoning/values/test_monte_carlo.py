"""Values by sampling: against probabilities that are known, shared prefixes, early stops, and what is refused."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
import torch
from tiny_tokenizers import byte_level, model_with

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import Completion, HFEngine, Sampling
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import MonteCarloValues, best_of_k, best_of_k_estimate, check_values
from surefoot.training.seeds import derive_seed

pytestmark = pytest.mark.filterwarnings("ignore:NO ANSWER FOUND")


class CountingEngine(HFEngine):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Sequence[int], int]] = []  # prompt and completions of it

    def sample(self, prompts: Sequence[Sequence[int]], samplings: Any, seeds: Sequence[int]) -> Any:
        self.asked += [(list(p), s.n) for p, s in zip(prompts, samplings, strict=True)]
        return super().sample(prompts, samplings, seeds)


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    """A random policy that is sure of what it writes."""
    model = TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim == 2 else 1)
    made = Policy(model, PlainPrompt(), CountingEngine(), Grader(rule="last_number"))
    made.ready()
    yield made
    made.close()


def probabilities(policy: Policy, tokens: Sequence[int]) -> torch.Tensor:
    """Of the next token, ``(vocabulary,)``."""
    with torch.no_grad():
        return policy.model.base(input_ids=torch.tensor([list(tokens)])).logits[0, -1].softmax(0)


def trajectory(policy: Policy, problem: Problem, text: str) -> Trajectory:
    """A finished completion of a text, cut after each line, and graded."""
    tokens = policy.model.tokenizer.encode(text, add_special_tokens=False)
    made = Trajectory(
        problem,
        group=0,
        prompt=policy.prompt.prompt_ids(problem, policy.model),
        completion=tokens,
        behaviour_logprobs=[-1.0] * len(tokens),
        finish_reason="stop",
        policy_version=0,
        text=text,
    )
    policy.cut_into_steps([made], "\n")
    policy.grade([made])
    return made


def problem_of(policy: Policy, given: str) -> tuple[Problem, float]:
    """A problem whose answer is the digit that the policy most likely writes after some text; and how likely."""
    asked = Problem("p", "1+1=", "0")
    tokenizer = policy.model.tokenizer
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    prompt = [*policy.prompt.prompt_ids(asked, policy.model), *tokenizer.encode(given, add_special_tokens=False)]
    likely = probabilities(policy, prompt)[digits]
    return Problem("p", "1+1=", str(int(likely.argmax()))), float(likely.max())


def seed_of(*parts: object) -> int:
    return derive_seed(7, *parts)


def test_a_value_is_the_probability_of_a_right_end(policy: Policy) -> None:
    """After two of three tokens, the last one decides; of 1000 completions, up to 4 standard errors."""
    first = max("abcdefghijklmnopqrstuvwxyz", key=lambda letter: problem_of(policy, f"{letter}\n")[1])
    problem, probability = problem_of(policy, f"{first}\n")
    right, wrong = (trajectory(policy, problem, f"{first}\n{answer}") for answer in (problem.answer, "x"))
    MonteCarloValues(Sampling(n=1000, max_tokens=3))(policy, [right, wrong], seed_of)
    assert 0.05 < probability < 0.95
    assert right.values[1] == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 1000))
    assert right.values[1:2] == wrong.values[1:2]
    assert (right.values[2], wrong.values[2]) == (1.0, 0.0)
    assert right.value_counts == wrong.value_counts == [1000, 1000, 0]
    check_values([right, wrong], MonteCarloValues())


def test_each_prefix_is_sampled_once_and_the_longer_ones_first(policy: Policy) -> None:
    problem, _ = problem_of(policy, "a\n")
    asked = policy.engine.asked  # type: ignore[attr-defined]
    asked.clear()
    found = [trajectory(policy, problem, text) for text in ("a\nb\n1", "a\nb\n2", "a\nc\n3")]
    MonteCarloValues(Sampling(n=2, max_tokens=8))(policy, found, seed_of)
    n_prompt = len(found[0].prompt)
    decode = policy.model.decode
    assert [(decode(tokens[n_prompt:]), n) for tokens, n in asked] == [
        ("a\nc\n", 2),
        ("a\nb\n", 2),
        ("a\n", 2),
        ("", 2),
    ]
    again = [trajectory(policy, problem, "a\nc\n3")]
    MonteCarloValues(Sampling(n=2, max_tokens=8))(policy, again, seed_of)
    assert again[0].values == found[2].values


def test_steps_of_one_token_and_a_whole_answer_have_values(policy: Policy) -> None:
    problem, _ = problem_of(policy, "a\n")
    one = trajectory(policy, problem, "ab1")
    one.spans, one.steps = [Span(i, i + 1) for i in range(3)], ["a", "b", "1"]
    whole = trajectory(policy, problem, "1")
    assert len(whole.token_spans()) == 1, "no separator: a completion is one step"
    MonteCarloValues(Sampling(n=2, max_tokens=8))(policy, [one, whole], seed_of)
    assert (list(one.value_counts), list(whole.value_counts)) == ([2, 2, 2, 0], [2, 0])
    assert one.values[0] == whole.values[0]


def test_completions_that_were_cut_off_earlier_are_warned_of_once(
    policy: Policy, recwarn: pytest.WarningsRecorder
) -> None:
    """Their beginnings had more tokens to end in than they: only then, and only where they were cut off."""
    problem, _ = problem_of(policy, "a\n")

    def warned(max_tokens: int, *reasons: Literal["stop", "length"]) -> list[str]:
        found = [trajectory(policy, problem, "a\nb\n1") for _ in reasons]
        for t, reason in zip(found, reasons, strict=True):
            t.finish_reason = reason
        values = MonteCarloValues(Sampling(n=1, max_tokens=max_tokens))
        recwarn.clear()
        for _ in range(2):
            values(policy, found, seed_of)
        return [str(w.message) for w in recwarn if "cut off" in str(w.message)]

    (said,) = warned(9, "stop", "length")
    assert "completions were cut off at 5 tokens, and their beginnings are completed with up to 9" in said
    assert said.endswith("Give the prover max_tokens 5.")
    assert warned(5, "length") == []
    assert warned(9, "stop") == []


def test_sampling_stops_where_the_interval_is_narrow(policy: Policy) -> None:
    """No answer is ever right after many tokens: 8 of 8 wrong leave an interval of half width .16, 12 of 12 .12."""
    problem = Problem("q", "1+1=", "123456789")
    stopped = trajectory(policy, problem, "a\nx")
    MonteCarloValues(Sampling(n=40, max_tokens=4), half_width=0.13, per_round=4)(policy, [stopped], seed_of)
    assert stopped.value_counts == [12, 12, 0]
    assert stopped.values == [0.0, 0.0, 0.0]


def test_what_a_prover_cannot_go_on_from_is_refused(policy: Policy) -> None:
    problem, _ = problem_of(policy, "a\n")
    long = trajectory(policy, problem, "a\nb\n1")
    with pytest.raises(ConfigError, match="a prefix of 4 tokens leaves the prover nothing of max_tokens 4"):
        MonteCarloValues(Sampling(n=2, max_tokens=4))(policy, [long], seed_of)
    long.text = "other"
    with pytest.raises(ConfigError, match="another tokenizer's"):
        MonteCarloValues()(policy, [long], seed_of)
    ungraded = trajectory(policy, problem, "a\n1")
    ungraded.grade = None
    with pytest.raises(DataError, match="problem p has no grade"):
        MonteCarloValues()(policy, [ungraded], seed_of)
    for settings, message in (({"half_width": 0.6}, "half_width"), ({"per_round": 3}, "per_round")):
        with pytest.raises(ConfigError, match=message):
            MonteCarloValues(**settings)


@pytest.mark.parametrize("name", ["half_width", "first_pit"])
@pytest.mark.parametrize(("n", "per_round"), [(8, 8), (8, 9), (8, 0), (1, None), (1, 1)])
def test_looks_that_come_too_late_are_refused(name: str, n: int, per_round: int | None) -> None:
    """When all n are sampled there is nothing left to stop, or to spend elsewhere."""
    with pytest.raises(ConfigError, match=rf"per_round must be in \[1, n - 1\], .* of n {n}\."):
        MonteCarloValues(Sampling(n=n), per_round=per_round, **{name: 0.25})  # type: ignore[arg-type]


def test_known_values_are_not_sampled_again(policy: Policy) -> None:
    """Those that stand there already, with the counts of their samples, are kept; others are new."""
    problem, _ = problem_of(policy, "a\n")
    asked = policy.engine.asked  # type: ignore[attr-defined]
    values = MonteCarloValues(Sampling(n=4, max_tokens=8))
    whole = trajectory(policy, problem, "a\nb\n1")
    values(policy, [whole], seed_of)
    n_prompt = len(whole.prompt)
    assert values.n_prefix_tokens == n_prompt + (n_prompt + 2) + (n_prompt + 4)
    for known, expected in ((4, 0), (2, 1), (0, 3)):
        grown = trajectory(policy, problem, "a\nb\n1")
        grown.values, grown.value_counts = list(whole.values[:known]), list(whole.value_counts[:known])
        asked.clear()
        values.extend(policy, [grown], seed_of)
        assert len(asked) == expected
        assert (grown.values, grown.value_counts) == (whole.values, whole.value_counts)
    for kept, counts in (([0.3], []), ([0.3], [0])):
        grown.values, grown.value_counts = list(kept), list(counts)
        values.extend(policy, [grown], seed_of)
        assert grown.values == whole.values, "values of another kind are not taken for shares"


class Written(CountingEngine):
    """Ends a text right, with the answer 1, or wrong, as a table says; longer ones than the table knows are wrong."""

    def __init__(self, tokenizer: Any, shares: dict[str, int]) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.shares = shares  # by the last letter of the prefix: right ones of four

    def sample(self, prompts: Sequence[Sequence[int]], samplings: Any, seeds: Sequence[int]) -> Any:
        decode, encode = self.tokenizer.decode, self.tokenizer.encode
        self.asked += [(list(p), s.n) for p, s in zip(prompts, samplings, strict=True)]
        found = []
        for prompt, s in zip(prompts, samplings, strict=True):
            right = self.shares[decode(prompt).strip()[-1]]
            texts = ["1" if i % 4 < right else "0" for i in range(s.n)]
            found.append([Completion(encode(t, add_special_tokens=False), [-1.0], "stop", 0) for t in texts])
        return found


def test_the_rest_is_spent_up_to_the_first_pit(policy: Policy) -> None:
    """Four of each prefix; then eight more of those of a wrong completion down to where nothing ends right.

    From the prompt (=) two of four end right, after a one, after b and c none. The right completion's own prefix d, and
    c behind the pit, keep four; a completion that is never worth .5 gets no more.
    """
    engine = Written(policy.model.tokenizer, {"=": 2, "a": 1, "b": 0, "c": 0, "d": 3})
    made = Policy(policy.model, policy.prompt, engine, policy.grader)
    made.ready()
    problem = Problem("p", "1+1=", "1")
    lost, won = (trajectory(made, problem, text) for text in ("a\nb\nc\n0", "d\n1"))
    sampling = Sampling(n=12, max_tokens=16)
    MonteCarloValues(sampling, first_pit=0.5, per_round=4)(made, [lost, won], seed_of)
    assert (list(lost.value_counts), list(won.value_counts)) == ([12, 12, 12, 4, 0], [12, 4, 0])
    assert (list(lost.values), list(won.values)) == ([0.5, 0.25, 0, 0, 0], [0.5, 0.75, 1])
    MonteCarloValues(sampling, first_pit=0.6, per_round=4)(made, [lost, won], seed_of)
    assert (list(lost.value_counts), list(won.value_counts)) == ([4] * 4 + [0], [4, 4, 0])
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="first_pit must be in"):
            MonteCarloValues(first_pit=wrong)


@pytest.mark.parametrize(
    ("right", "counts"),
    [
        ({"=": 0, "a": 3, "b": 3, "c": 0, "d": 0}, [12, 12, 12, 12, 4, 0]),  # of a hard problem none of four was right
        ({"=": 1, "a": 0, "b": 3, "c": 0, "d": 0}, [12, 12, 12, 12, 4, 0]),
        ({"=": 3, "a": 0, "b": 3, "c": 0, "d": 0}, [12, 12, 4, 4, 4, 0]),
        ({"=": 1, "a": 0, "b": 1, "c": 2, "d": 1}, [12, 12, 12, 12, 12, 0]),  # lost with the last step
        ({"=": 1, "a": 1, "b": 1, "c": 0, "d": 1}, [4, 4, 4, 4, 4, 0]),
    ],
)
def test_a_pit_comes_after_a_beginning_that_is_worth_something(
    right: dict[str, int], counts: list[int], policy: Policy
) -> None:
    made = Policy(policy.model, policy.prompt, Written(policy.model.tokenizer, right), policy.grader)
    made.ready()
    lost = trajectory(made, Problem("p", "1+1=", "1"), "a\nb\nc\nd\n0")
    MonteCarloValues(Sampling(n=12, max_tokens=16), first_pit=0.5, per_round=4)(made, [lost], seed_of)
    assert list(lost.value_counts) == counts


@pytest.mark.parametrize("stored", [True, False])
def test_a_prover_with_another_tokenizer_goes_on_from_texts(policy: Policy, stored: bool) -> None:
    """With its own prompt; steps as they are stored, or as the policy reads its tokens where a search has none."""
    model = model_with(byte_level())
    engine = CountingEngine()
    prover = Policy(model, PlainPrompt("Question: {question}\nAnswer:\n"), engine, policy.grader)
    lost, won = (trajectory(policy, Problem("p", "1+1=", "2"), text) for text in ("a step\nx\n3", "a step\n2"))
    for t in (lost, won):
        t.steps = t.steps if stored else ()
    with pytest.raises(ConfigError, match=r"another tokenizer's, .*or retokenise"):
        MonteCarloValues(Sampling(n=2, max_tokens=8), prover)(policy, [lost], seed_of)
    values = MonteCarloValues(Sampling(n=2, max_tokens=16), prover, retokenise=True)
    with pytest.warns(UserWarning, match="prefixes of completions are retokenised"):
        values(policy, [lost, won], seed_of)
    prompt = "Question: 1+1=\nAnswer:\n"
    assert {model.decode(tokens) for tokens, _ in engine.asked} == {
        prompt,
        f"{prompt}a step\n",
        f"{prompt}a step\nx\n",
    }
    assert all(list(tokens) == model.encode(model.decode(tokens)) for tokens, _ in engine.asked)
    assert (list(lost.value_counts), list(won.value_counts)) == ([2, 2, 2, 0], [2, 2, 0])
    assert (lost.values[-1], won.values[-1]) == (0.0, 1.0)
    prover.close()


def test_a_prover_that_cannot_write_a_text_is_refused(policy: Policy) -> None:
    """Its tokens are digits and letters: what others write is lost on it."""
    other = Policy(model_with(byte_level()), PlainPrompt(), HFEngine(), policy.grader)
    foreign = trajectory(other, Problem("p", "1+1=", "2"), "été\n2")
    said = pytest.warns(UserWarning, match="retokenised")
    with said, pytest.raises(ConfigError, match="choose a prover that knows the text"):
        MonteCarloValues(prover=policy, retokenise=True)(other, [foreign], seed_of)


def test_best_of_k_is_unbiased_from_as_many_attempts() -> None:
    """The mean over all outcomes of n attempts is the truth for n >= k, and too low for fewer."""
    value, k = 0.3, 4
    assert best_of_k(value, k) == pytest.approx(1 - 0.7**4)
    assert (best_of_k(1.0, 3), best_of_k(0.0, 3)) == (1.0, 0.0)
    for n, exact in ((8, True), (4, True), (3, False)):
        chances = [math.comb(n, c) * value**c * (1 - value) ** (n - c) for c in range(n + 1)]
        estimates = best_of_k_estimate([c / n for c in range(n + 1)], [n] * (n + 1), k)
        mean = sum(p * e for p, e in zip(chances, estimates, strict=True))
        assert mean == pytest.approx(best_of_k(value, k)) if exact else mean < best_of_k(value, k) - 0.05
    assert best_of_k_estimate([1.0, 0.25], [0, 0], 2) == [1.0, pytest.approx(1 - 0.75**2)]
    with pytest.raises(ValueError, match="no share of 4"):
        best_of_k_estimate([0.3], [4], 2)
    with pytest.raises(ValueError, match=r"got 1\.5 and 2"):
        best_of_k(1.5, 2)
