"""Beam search against one written out for one problem, its counts, and what it keeps."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_reasoning import save_untrained_values

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.credit import EffectiveReward
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import HFEngine, Sampling, SeedOf
from surefoot.reasoning.search import BeamSearch, BestOfN
from surefoot.reasoning.sequences import split_spans
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import LearnedValues, MonteCarloValues, ValueEstimator
from surefoot.training.seeds import derive_seed

pytestmark = pytest.mark.filterwarnings("ignore:NO ANSWER FOUND")

PROBLEMS = [Problem(str(i), f"{i}+1=", str(i + 1)) for i in range(3)]
SAMPLING = Sampling(n=4, max_tokens=24, top_k=3)


def seed_of(*parts: object) -> int:
    return derive_seed(7, *parts)


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    torch.manual_seed(0)
    model = TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim == 2 else 1)
    made = Policy(model, PlainPrompt(), HFEngine(), Grader(rule="last_number"))
    made.ready()
    yield made
    made.close()


@pytest.fixture(scope="module")
def separator(policy: Policy) -> str:
    """The character that this policy writes most."""
    found = policy.sample([Start(p) for p in PROBLEMS], Sampling(n=20, max_tokens=24, top_k=3), [1, 2, 3])
    return Counter("".join(t.text for t in found).replace(" ", "")).most_common(1)[0][0]


class TextValues(ValueEstimator):
    """A value for every beginning of a text, from nothing but the text."""

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        for t in trajectories:
            ends = [0, *(s.end for s in t.token_spans())]
            t.values = [value_of(policy.model.decode(t.completion[:end])) for end in ends]


def value_of(text: str) -> float:
    return (derive_seed("value", text) % 1000) / 1000


def naive_beam(policy: Policy, problem: Problem, search: BeamSearch, width: int, subtree: int = 0) -> list[list[int]]:
    """One problem, one beginning and one child at a time; all children of all beginnings in one list."""
    ends = {*policy.model.stop_token_ids, policy.prompt.end_ids(policy.model)[-1]}
    beams: list[tuple[list[int], list[float], bool]] = [([], [value_of("")], False)]
    while any(not done for *_, done in beams):
        pool = [b for b in beams if b[2]]
        for tokens, values, done in beams:
            if done:
                continue
            begun = policy.model.decode(tokens).replace(search.separator, "") if tokens else ""
            n = search.n_children if begun else width * search.n_children
            left = SAMPLING.max_tokens - len(tokens)
            sampling = replace(SAMPLING, n=n, max_tokens=left, stop=(search.separator,))
            seed = seed_of(problem.id, "step", subtree, derive_seed(*tokens))
            seen = []
            for child in policy.sample([Start(problem, tokens)], sampling, [seed]):
                ids = list(child.completion)
                if ids in seen:
                    continue
                seen.append(ids)
                new = policy.model.decode(ids[len(tokens) :])
                over = ids[-1] in ends or search.separator not in new or len(ids) == SAMPLING.max_tokens
                blank = not new.replace(search.separator, "")
                known = values[:-1] if (blank or not begun) and len(values) > 1 else values
                pool.append((ids, [*known, value_of(policy.model.decode(ids))], over))

        def worth(beam: tuple[list[int], list[float], bool]) -> float:
            before, after = beam[1][-2:]
            k, alpha = search.score.k, search.score.alpha
            return after + alpha * ((1 - before) ** k - (1 - after) ** k)

        beams = sorted(pool, key=worth, reverse=True)[:width]
    return [tokens for tokens, values, _ in sorted(beams, key=lambda b: -b[1][-1])]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_it_is_the_search_of_each_problem_alone(policy: Policy, separator: str, alpha: float) -> None:
    search = BeamSearch(TextValues(), EffectiveReward(alpha, 4), n_children=3, separator=separator)
    found = search(policy, PROBLEMS, SAMPLING, seed_of)
    for number, problem in enumerate(PROBLEMS):
        own = [t for t in found if t.group == number]
        assert [list(t.completion) for t in own] == naive_beam(policy, problem, search, SAMPLING.n)
        assert [t.sample for t in own] == list(range(len(own)))
    assert max(len(t.spans) for t in found) > 2
    for t in found:
        assert "".join(t.steps) == t.text
        assert (t.spans, t.steps) == split_spans(t.completion, policy.model.decode, separator, t.text), "as in training"
        assert len(t.steps) == len(t.spans) == len(t.values) - 1
        assert t.grade is not None
        assert t.n_given == 0
        assert len(t.behaviour_logprobs) == len(t.completion)
        assert not any(math.isnan(x) for x in t.behaviour_logprobs)


def test_log_probabilities_are_those_of_whole_completions(policy: Policy, separator: str) -> None:
    from surefoot.reasoning.sequences import pack_sequences

    found = BeamSearch(TextValues(), separator=separator)(policy, PROBLEMS, replace(SAMPLING, top_k=0), seed_of)
    (pack,) = pack_sequences([t.sequence for t in found], 10_000)
    with torch.no_grad():
        expected = policy.model.score(pack).logprobs
    sampled = pack.gather([torch.tensor(t.behaviour_logprobs) for t in found])
    torch.testing.assert_close(sampled, expected, atol=1e-4, rtol=1e-4)


def test_subtrees_do_not_compete(policy: Policy, separator: str) -> None:
    """With as many subtrees as answers, each is the best of its own children at every step."""
    search = BeamSearch(TextValues(), n_children=3, n_subtrees=4, separator=separator)
    found = search(policy, PROBLEMS, SAMPLING, seed_of)
    for number, problem in enumerate(PROBLEMS):
        expected = [naive_beam(policy, problem, search, 1, subtree)[0] for subtree in range(4)]
        assert sorted(list(t.completion) for t in found if t.group == number) == sorted(expected)
    with pytest.raises(ConfigError, match="n 4 is no multiple of n_subtrees 3"):
        BeamSearch(TextValues(), n_subtrees=3)(policy, PROBLEMS, SAMPLING, seed_of)


def test_counts(policy: Policy, separator: str) -> None:
    once = BeamSearch(TextValues(), n_children=3, separator=separator, deduplicate=False)
    found = once(policy, PROBLEMS, Sampling(n=2, temperature=0.0, max_tokens=14), seed_of)
    assert Counter(t.group for t in found) == {0: 2, 1: 2, 2: 2}
    assert once.counts.n_duplicates > once.counts.n_samples / 2, "greedy children are all the same"
    asked = list[tuple[object, ...]]()

    def recorded(*what_for: str | int) -> int:
        asked.append(what_for)
        return seed_of(*what_for)

    once(policy, PROBLEMS, Sampling(n=2, temperature=0.0, max_tokens=14), recorded)
    assert len(set(asked)) == len(asked), "copies of a beginning go on with draws of their own"
    single = BeamSearch(TextValues(), n_children=1, separator=separator)
    alone = single(policy, PROBLEMS, Sampling(n=1, max_tokens=14), seed_of)
    assert single.counts.generated_tokens == sum(len(t.completion) for t in alone)
    assert single.counts.n_duplicates == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a value model that has learned nothing, with values that differ."""
    return save_untrained_values(tmp_path_factory.mktemp("run"), n_layers=2, max_length=64)


class RecordedValues(LearnedValues):
    """Notes what it is asked for."""

    def __init__(self, run: Path, cache_gib: float = 1.0) -> None:
        super().__init__(run, cache_gib=cache_gib)
        self.beginnings = set[tuple[int, ...]]()
        self.most_kept = 0

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        super().extend(policy, trajectories, seed_of)
        whole = [(*t.prompt, *t.completion) for t in trajectories]
        self.beginnings |= {tokens[: n + 1] for tokens in whole for n in range(len(tokens))}
        self.most_kept = max(self.most_kept, self.growing.n_bytes)


def test_a_model_reads_each_token_of_the_search_once(policy: Policy, separator: str, run: Path) -> None:
    """Without keys and values, and with a model that cannot use them, it finds the same and reads beginnings again."""
    kept, anew, unpacked = RecordedValues(run), RecordedValues(run, 0.0), RecordedValues(run)
    unpacked.model.path = replace(unpacked.model.path, packed=False)
    found, n_scored = [], list[int]()
    for verifier in (kept, anew, unpacked):
        search = BeamSearch(verifier, EffectiveReward(0.5), separator=separator)
        found.append(search(policy, PROBLEMS, SAMPLING, seed_of))
        n_scored.append(verifier.n_scored_tokens)
        assert search.counts.scored_tokens == verifier.n_scored_tokens
        assert verifier.growing.n_bytes == 0
        whole = [replace(t, values=()) for t in found[-1]]
        verifier.predict(whole)
        for t, other in zip(found[-1], whole, strict=True):
            assert t.values == pytest.approx(other.values, abs=1e-5), "in one pass over the whole they are the same"
    assert n_scored[0] == len(kept.beginnings), "the prompt and every new step once, and nothing else"
    assert kept.most_kept > 0
    assert (anew.most_kept, unpacked.most_kept) == (0, 0)
    assert n_scored[1] == n_scored[2] > n_scored[0]
    for ours, *others in zip(*found, strict=True):
        for t in others:
            assert list(t.completion) == list(ours.completion)
            assert t.values == pytest.approx(ours.values, abs=1e-5)
    with pytest.raises(ConfigError, match="cache_gib must be at least 0 and finite, got -1"):
        LearnedValues(run, cache_gib=-1.0)


def test_values_can_be_sampled_while_it_goes_on(
    policy: Policy, separator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beginning that has not ended is sampled from, and only once; one that has is worth what its answer is."""
    complete, asked = Policy.complete, list[tuple[int, ...]]()

    def recorded(self: Policy, starts: Sequence[Start], *arguments: Any) -> list[Trajectory]:
        asked.extend((*(s.prompt or ()), *s.given) for s in starts)
        return complete(self, starts, *arguments)

    monkeypatch.setattr(Policy, "complete", recorded)
    verifier = MonteCarloValues(Sampling(n=3, max_tokens=SAMPLING.max_tokens))
    search = BeamSearch(verifier, separator=separator, n_children=2)
    found = search(policy, PROBLEMS[:1], SAMPLING, seed_of)
    assert search.counts.scored_tokens > search.counts.generated_tokens, "three completions of every beginning"
    for t in found:
        assert t.grade is not None
        assert t.values[-1] == float(t.grade.correct)
        assert t.value_counts == [3] * len(t.spans) + [0]
    assert len(asked) > len(found)
    assert len(set(asked)) == len(asked), "what is known is not sampled from again"
    anew = [replace(t, values=(), value_counts=()) for t in found]
    verifier(policy, anew, seed_of)
    assert [(t.values, t.value_counts) for t in anew] == [(t.values, t.value_counts) for t in found]


def test_best_of_n(policy: Policy, separator: str) -> None:
    search = BestOfN(TextValues(), separator=separator)
    found = search(policy, PROBLEMS, SAMPLING, seed_of)
    assert Counter(t.group for t in found) == {0: 4, 1: 4, 2: 4}
    assert search.counts.generated_tokens == sum(len(t.completion) for t in found)
    assert search.counts.n_samples == 12
    assert all(len(t.values) == len(t.spans) + 1 for t in found)
    assert all(not t.values for t in BestOfN()(policy, PROBLEMS, SAMPLING, seed_of))


class Broken(TextValues):
    """Forgets a step, or gives what is no number."""

    def __init__(self, value: float | None) -> None:
        self.value = value

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        super().__call__(policy, trajectories, seed_of)
        for t in trajectories:
            t.values = t.values[1:] if self.value is None else [*t.values[1:], self.value]


@pytest.mark.parametrize("search", [BeamSearch, BestOfN])
@pytest.mark.parametrize(("value", "message"), [(None, "expected"), (math.nan, "expected finite numbers")])
def test_a_broken_verifier_is_named(
    policy: Policy, separator: str, search: type[BeamSearch], value: float | None, message: str
) -> None:
    with pytest.raises(DataError, match=f"Broken gave .*{message}"):
        search(Broken(value), separator=separator)(policy, PROBLEMS, SAMPLING, seed_of)


@pytest.mark.parametrize(
    ("settings", "message"), [({"n_children": 0}, "must be positive"), ({"separator": ""}, "must not be empty")]
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BeamSearch(TextValues(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"alpha": math.inf}, {"k": 0}])
def test_wrong_scores(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected alpha"):
        EffectiveReward(**settings)  # type: ignore[arg-type]
