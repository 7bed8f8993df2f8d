"""Public scorers of steps: against a forward pass per prefix, on completions of other tokens, and what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_scorers import CHAT, Layout, chat_tokenizer, classifier_folder, sign_folder

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import TinyLanguageModel, load_tokenizer
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import HFEngine
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import (
    StepClassifierValues,
    StepLayout,
    StepTagValues,
    StepTexts,
    VLLMStepClassifierValues,
    check_values,
)
from surefoot.reasoning.values.step_texts import read_steps, single_token

pytestmark = pytest.mark.filterwarnings("ignore:.*tokenizer of its own")

SOLUTIONS = [
    StepTexts("What is 12 + 30?", ["Tom buys 3 apples.\n", "Then the answer is 42.\n\n", "the last step"]),
    StepTexts("What is 12 + 30?", ["Tom buys 3 apples.", "Then the answer is 7."]),
    StepTexts("Question?", ["a step"]),
]


def naive(folder: Path, layout: Layout, question: str, steps: Sequence[str]) -> float:
    """The softmax of a whole forward pass at the last token, in transformers' own classes where they exist."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, Qwen2Model

    tokenizer = load_tokenizer(str(folder))
    text = f"<turn>user\n{question}<eos>\n<turn>assistant\n" + "".join(f"{s.strip()}<extra_0>" for s in steps)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert tokenizer.decode(ids[0, -1:]) == "<extra_0>"
    with torch.no_grad():
        if layout == "token":
            logits = AutoModelForTokenClassification.from_pretrained(folder)(input_ids=ids).logits[0, -1]
        elif layout == "sequence":
            logits = AutoModelForSequenceClassification.from_pretrained(folder)(input_ids=ids).logits[0]
        else:
            weights = load_file(folder / "model.safetensors")
            model = Qwen2Model(AutoConfig.from_pretrained(folder, trust_remote_code=False)).eval()
            model.load_state_dict(
                {n.removeprefix("model."): w for n, w in weights.items() if n.startswith("model.")}, strict=True
            )
            hidden = model(input_ids=ids).last_hidden_state[0, -1]
            hidden = torch.relu(weights["score.0.weight"] @ hidden + weights["score.0.bias"])
            logits = weights["score.2.weight"] @ hidden + weights["score.2.bias"]
    return float(logits.softmax(0)[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["published", "token", "sequence"])
def test_one_pass_scores_every_step_as_a_pass_per_prefix(layout: Layout, tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "scorer", layout)
    scorer = StepClassifierValues(folder)
    found = scorer.judge(SOLUTIONS)
    for solution, after in zip(SOLUTIONS, found, strict=True):
        expected = [
            naive(folder, layout, solution.question, solution.steps[: n + 1]) for n in range(len(solution.steps))
        ]
        assert after == pytest.approx(expected, rel=1e-4)
    assert max(map(max, found)) - min(map(min, found)) > 0.01, "scores differ, or nothing is tested"
    bad = StepClassifierValues(folder, good_label=0).judge(SOLUTIONS)
    assert bad[0] == pytest.approx([1 - v for v in found[0]], rel=1e-4)
    separate = sum(len(read_steps(s, scorer.layout, scorer.tokenizer, scorer.token).tokens) for s in SOLUTIONS)
    assert scorer.n_scored_tokens < separate, "solutions of one problem share its computation"
    small = StepClassifierValues(folder, max_tokens_per_pack=1)
    alone = [v for own in small.judge(SOLUTIONS) for v in own]
    assert alone == pytest.approx([v for own in found for v in own], rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_language_model_says_plus_or_minus_at_a_tag(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = sign_folder(tmp_path / "scorer")
    scorer = StepTagValues(folder)
    found = scorer.judge(SOLUTIONS)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    signs = tokenizer.convert_tokens_to_ids(["+", "-"])
    for solution, after in zip(SOLUTIONS, found, strict=True):
        text = f"{solution.question} "
        for step, value in zip(solution.steps, after, strict=True):
            text += f"{step.strip()} ки"
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1, signs]
            assert value == pytest.approx(float(logits.softmax(0)[0]), rel=1e-4)
            text += "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("scorer"))


def completion(policy: Policy, text: str) -> Trajectory:
    """Of a policy whose tokens are single characters."""
    problem = Problem("p", "1+1=", "2")
    tokens = policy.model.encode(text)
    made = Trajectory(
        problem, 0, policy.prompt.prompt_ids(problem, policy.model), tokens, [-1.0] * len(tokens), "stop", 0, text=text
    )
    policy.cut_into_steps([made], "\n")
    return made


@pytest.fixture(scope="module")
def policy() -> Policy:
    model = TinyLanguageModel(width=16, n_layers=1, n_heads=2, max_length=64)
    return Policy(model, PlainPrompt(), HFEngine(), Grader(rule="last_number"))


def test_completions_of_other_tokens_are_read_as_texts(folder: Path, policy: Policy) -> None:
    scorer = StepClassifierValues(folder, prompt_value=0.75)
    found = [completion(policy, text) for text in ("a step\nb\n2", "2")]
    with pytest.warns(UserWarning, match="tokenizer of its own: steps are decoded, and retokenised by"):
        scorer(policy, found, lambda *_: 0)
    check_values(found, scorer)
    expected = scorer.judge([StepTexts("1+1=", ["a step", "b", "2"]), StepTexts("1+1=", ["2"])])
    for t, own in zip(found, expected, strict=True):
        assert list(t.values) == pytest.approx([0.75, *own])
    grown = completion(policy, "a step\nb\n2")
    grown.values, before = [0.5, 0.25], scorer.n_scored_tokens
    scorer.extend(policy, [grown], lambda *_: 0)
    assert grown.values[:2] == [0.5, 0.25], "what is known stays"
    assert grown.values[2:] == pytest.approx(expected[0][1:])
    scorer.extend(policy, [grown], lambda *_: 0)
    assert scorer.n_scored_tokens > before


def test_steps_of_a_search_have_no_texts_yet(folder: Path, policy: Policy) -> None:
    scorer = StepClassifierValues(folder)
    going, whole = completion(policy, "a step\nb\n"), completion(policy, "a step\nb\n")
    going.steps, going.finish_reason = (), "step"
    scorer(policy, [going, whole], lambda *_: 0)
    assert going.values == whole.values


def test_white_space_and_written_tokens_are_no_steps(folder: Path) -> None:
    scorer = StepClassifierValues(folder, prompt_value=0.5)
    plain, spaced, empty = scorer.judge(
        [StepTexts("?", ["a", "b"]), StepTexts("?", [" \n", "a", "\n", "b"]), StepTexts("?", [" "])]
    )
    assert spaced == [0.5, plain[0], plain[0], plain[1]]
    assert empty == [0.5]
    (written,) = scorer.judge([StepTexts("?", ["a<extra_0>b", "c"])])
    assert len(written) == 2
    read = read_steps(StepTexts("?", ["a<extra_0>b", "c"]), scorer.layout, scorer.tokenizer, scorer.token)
    assert [read.tokens[end] for end in read.ends] == [scorer.token] * 2
    assert read.tokens.count(scorer.token) == 3
    assert scorer.tokenizer.decode(read.tokens[read.n_prompt :]).startswith("a<extra_0>b<extra_0>c<extra_0>")


def test_scores_that_are_no_numbers_are_refused(folder: Path) -> None:
    scorer = StepClassifierValues(folder)
    with torch.no_grad():
        scorer.head.layers[-1].bias[0] = float("nan")
    with pytest.raises(DataError, match=r"gave the scores \[nan\]: expected finite numbers"):
        scorer.judge([StepTexts("?", ["a"])])


def test_layouts() -> None:
    layout = StepLayout(token="ки", step="Step {n}: {step} ки\n", template="{question} ")
    text, ends = layout.answer(["{n} is", "b"])
    assert text == "Step 1: {n} is ки\nStep 2: b ки"
    assert [text[:end] for end in ends] == ["Step 1: {n} is ки", text]
    for wrong in ({"step": "{step}"}, {"step": "<extra_0>{step}"}, {"token": ""}, {"template": "no question"}):
        with pytest.raises(ConfigError, match="layout: "):
            StepLayout(**wrong)
    tokenizer = chat_tokenizer()
    with pytest.raises(ConfigError, match="'zq' is no single token"):
        single_token(tokenizer, "zq")
    given: tuple[Any, ...] = (StepTexts("?", ["a"]), StepLayout(), tokenizer, single_token(tokenizer, "<extra_0>"))
    tokenizer.chat_template = CHAT.replace("m.content", "m.content[:1]")
    with pytest.raises(ConfigError, match="does not render the steps as they are"):
        read_steps(*given)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ConfigError, match="cannot render problem and steps"):
        read_steps(*given)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template: give layout\.template"):
        read_steps(*given)


def damaged(folder: Path, change: str) -> Path:
    """A scorer with something wrong in it."""
    file = folder / "model.safetensors"
    if change == "no folder":
        return folder / "nowhere"
    if change == "cut short":
        file.write_bytes(file.read_bytes()[:-100])
        return folder
    weights, config = load_file(file), json.loads((folder / "config.json").read_text())
    if change == "pickled":
        file.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        return folder
    if change == "no head":
        weights = {n: w for n, w in weights.items() if not n.startswith("score.")}
    elif change == "other head":
        weights["score.dense.weight"] = weights.pop("score.0.weight")
    elif change == "other width":
        weights["score.0.weight"] = weights["score.0.weight"][:, :8].contiguous()
    elif change == "other bias":
        weights["score.2.bias"] = weights["score.2.bias"][:1].contiguous()
    elif change == "missing layer":
        weights = {n: w for n, w in weights.items() if "layers.1." not in n}
    elif change == "other code":
        config |= {"model_type": "qwen2_rm"}
    elif change == "other family":
        config |= {"model_type": "bert"}
    save_file(weights, file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no folder", "is no folder of a scorer"),
        ("pickled", "the head of no classifier"),
        ("cut short", "cannot be read"),
        ("no head", "of no classifier"),
        ("other head", "'score.dense.weight'"),
        ("other width", "the head reads 8 numbers, the backbone has 64"),
        ("other bias", "its bias do not fit"),
        ("missing layer", r"the backbone lacks the tensors \['model.layers.1"),
        ("other code", "cannot be loaded"),
        ("other family", "the backbone lacks the tensors"),
    ],
)
def test_other_folders_are_refused_in_one_line(change: str, message: str, tmp_path: Path) -> None:
    folder = damaged(classifier_folder(tmp_path / "scorer"), change)
    with pytest.raises((DataError, ConfigError), match=message) as refused:
        StepClassifierValues(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore")
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="the head has 3 labels: expected two"):
        StepClassifierValues(classifier_folder(tmp_path / "three", n_labels=3))
    for wrong, message in (
        ({"prompt_value": 1.5}, "prompt_value must be in"),
        ({"layout": StepLayout(token="zq", step="{step}zq")}, "is no single token"),
    ):
        with pytest.raises(ConfigError, match=message):
            StepClassifierValues(folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is no single token"):
        StepTagValues(sign_folder(tmp_path / "signs"), good="zq")
    with pytest.raises(DataError, match=r"does not fit into the model's context of 256"):
        StepClassifierValues(folder).judge([StepTexts("?", ["q z " * 200])])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vllm_scores_steps_alike(folder: Path, policy: Policy) -> None:
    scorer = VLLMStepClassifierValues(folder, dtype="float32", max_model_length=256, cache_gib=0.25)
    solutions = [*SOLUTIONS, StepTexts("?", ["a<extra_0>b", "c"])]
    try:
        expected = StepClassifierValues(folder)
        for own, after in zip(scorer.judge(solutions), expected.judge(solutions), strict=True):
            assert own == pytest.approx(after, rel=1e-3)
        found = [completion(policy, "a step\nb\n2")]
        scorer(policy, found, lambda *_: 0)
        assert found[0].values[1:] == pytest.approx(
            expected.judge([StepTexts("1+1=", ["a step", "b", "2"])])[0], rel=1e-3
        )
        with pytest.raises(DataError, match="does not fit into max_model_length 256"):
            scorer.judge([StepTexts("?", ["q z " * 200])])
    finally:
        scorer.close()
    assert scorer.judge([]) == []


@pytest.mark.filterwarnings("ignore")
def test_what_vllm_has_no_pooling_for_is_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from vllm import config

    with pytest.raises(DataError, match="is Qwen2ForTokenClassification: vLLM has STEP pooling for"):
        VLLMStepClassifierValues(classifier_folder(tmp_path / "token", "token"))
    with pytest.raises(ConfigError, match="max_model_length"):
        VLLMStepClassifierValues(folder, max_model_length=0)

    def without(pooling_type: str) -> None:
        raise NotImplementedError(pooling_type)

    monkeypatch.setattr(config, "PoolerConfig", without)
    with pytest.raises(ConfigError, match=r"vLLM [\d.]+\S* has no STEP pooling: use StepClassifierValues"):
        VLLMStepClassifierValues(folder)
