"""Where answers end: what a model's files say, what is graded, and what is trained on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Fit
from tiny_reasoning import tiny_reasoning
from tiny_tokenizers import byte_level, model_with, word_pieces

from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import ChatPrompt, FewShotPrompt, PlainPrompt
from surefoot.reasoning.rollouts import HFEngine, Sampling, decode_trajectories, with_stops
from surefoot.reasoning.trajectories import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore")

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}<turn>\n{% endfor %}"


GRADER = Grader("last_number")


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    GRADER.pool.close()


@pytest.fixture(scope="module", params=[byte_level, word_pieces])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return model_with(request.param())


def graded(model: LanguageModel, prompt: Any, sampling: Sampling, ids: list[int], reason: Any = "stop") -> Trajectory:
    t = Trajectory(Problem("p", "q", "42"), 0, [5], ids, [0.0] * len(ids), reason, 0)
    decode_trajectories([t], [with_stops(sampling, prompt, model)], model, prompt)
    Policy(model, prompt, HFEngine(), GRADER).grade([t])
    return t


def test_stop_tokens_survive_saving_and_come_from_config_tokenizer_and_template(
    tmp_path: Path,
) -> None:
    model = model_with(byte_level())
    eos, turn = model.eos_token_id, model.encode("<turn>")[0]
    for configured, template, expected in (
        (None, None, {eos}),
        (eos, None, {eos}),
        ([eos, 9], None, {eos, 9}),
        (9, CHAT, {eos, 9, turn}),
        ([9], "{{ messages[0].content }}", {eos, 9}),
        (None, "{{ raise_exception('only tools') }}", {eos}),
        (None, "{% if tools|length %}{% endif %}" + CHAT, {eos}),
        (None, "{{ messages[0].content + 1 // 0 }}", {eos}),
    ):
        model.base.generation_config.eos_token_id = configured
        model.tokenizer.chat_template = template
        assert set(model.stop_token_ids) == expected
        model.save(tmp_path / "model")
        assert PretrainedLanguageModel(str(tmp_path / "model")).stop_token_ids == model.stop_token_ids
    model.tokenizer.eos_token = None
    model.base.generation_config.eos_token_id = [9, 8]
    assert (model.eos_token_id, model.stop_token_ids) == (9, (8, 9))


def few_shot(folder: Path, **arguments: Any) -> FewShotPrompt:
    file = folder / "shots.jsonl"
    file.write_text(json.dumps({"question": "What is 1 + 1?", "answer": "2"}))
    return FewShotPrompt(file, 1, **arguments)


@pytest.mark.parametrize("gap", [" ", "  ", ""])
def test_the_next_question_is_neither_graded_nor_trained_on(gap: str, tmp_path: Path, model: LanguageModel) -> None:
    prompt = few_shot(tmp_path, stop=["Question:"])
    answer = "12 + 30 = 42."
    ids = model.encode(f"{answer}{gap}Question: Then 7")
    t = graded(model, prompt, Sampling(), ids)
    assert t.text == answer + gap
    assert t.grade is not None
    assert (t.grade.status, t.grade.answer) == ("correct", "42")
    assert t.completion == ids, "what was sampled stays as it is"
    assert t.target[-1] == model.eos_token_id
    assert model.tokenizer.decode(t.target) == f"{answer}<eos>"


@pytest.mark.parametrize(
    ("written", "stop", "kept"),
    [
        ("It is 42 buys", "uys", "It is 42 b"),
        ("42 \u00f7 3", "\u00f7", "42"),
        ("42\U0001f34e\U0001f34f", "\U0001f34f", "42\U0001f34e"),
        ("42.\n\nQuestion: 7", "\nQuestion:", "42."),
    ],
)
@pytest.mark.parametrize("tokenizer", [byte_level, word_pieces])
def test_a_stop_text_may_begin_within_a_token_or_a_character(
    written: str, stop: str, kept: str, tokenizer: Any
) -> None:
    model = model_with(tokenizer())
    t = graded(model, PlainPrompt(), Sampling(stop=(stop,)), model.encode(written))
    assert t.text.rstrip() == kept
    assert model.tokenizer.decode(t.target) == f"{kept}<eos>"


def test_what_ended_a_completion_is_replaced_by_the_end_of_the_turn(model: LanguageModel) -> None:
    eos, turn, pad = (model.encode(x)[0] for x in ("<eos>", "<turn>", "<pad>"))
    answer = model.encode("It is 42")
    seven = model.encode("7")
    chat = ChatPrompt(chat_template=CHAT)
    for prompt, sampling, ids, target in (
        (PlainPrompt(), Sampling(), [*answer, eos], [*answer, eos]),
        (PlainPrompt(), Sampling(stop_token_ids=(pad,)), [*answer, pad], [*answer, eos]),
        (PlainPrompt(), Sampling(stop=("<pad>",)), [*answer, pad], [*answer, eos]),
        (
            PlainPrompt(),
            Sampling(stop_token_ids=(seven[-1],)),
            [*answer, seven[-1]],
            [*answer, eos],
        ),
        (chat, Sampling(), [*answer, turn], [*answer, turn]),
        (chat, Sampling(), [*answer, eos], [*answer, eos]),
        (chat, Sampling(stop=("2",)), answer, [*model.encode("It is 4"), turn]),
        (chat, Sampling(stop=("It",)), answer, [turn]),
    ):
        t = graded(model, prompt, sampling, ids)
        assert t.target == target, (prompt, sampling)
    cut = graded(model, PlainPrompt(), Sampling(), answer, "length")
    assert (cut.text, cut.target) == ("It is 42", answer), "nothing ended it"


def test_the_prompt_s_stops_join_those_of_the_sampling(model: LanguageModel, tmp_path: Path) -> None:
    turn = model.encode("<turn>")[0]
    sampling = Sampling(stop=("a", "\nQuestion:"), stop_token_ids=(9,))
    found = with_stops(sampling, few_shot(tmp_path), model)
    assert found.stop == ("a", "\nQuestion:")
    assert set(found.stop_token_ids) == {9, model.eos_token_id}
    found = with_stops(sampling, ChatPrompt(chat_template=CHAT), model)
    assert set(found.stop_token_ids) == {9, turn}


def test_rft_trains_without_the_stop_text(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that end with a digit, which are the stop texts; each then ends with the end of sequence."""
    from lightning_modules import RFT

    settings = tiny_reasoning("RFT", max_per_problem=4)
    settings["trainer"] |= {"max_epochs": 1, "limit_val_batches": 0}
    digits = [str(i) for i in range(10)]
    settings["model"]["init_args"]["sampling"] |= {"stop": digits, "temperature": 2.0}
    settings["model"]["init_args"]["grader"]["init_args"] = {"rule": "mixed"}
    trained: list[Any] = []
    monkeypatch.setattr(
        "lightning_modules.reasoning.rft.correct_completions",
        lambda trajectories, *_: [t for t in trajectories if t.finish_reason == "stop"],
    )
    original = RFT.fine_tune
    monkeypatch.setattr(RFT, "fine_tune", lambda self, s, n: trained.extend(s) or original(self, s, n))
    fit(settings)
    assert len(trained) > 20
    tokenizer = digit_tokenizer()
    for s in trained:
        text = tokenizer.decode(list(s.completion))
        assert text.endswith("<eos>")
        assert not set(text) & set(digits)
