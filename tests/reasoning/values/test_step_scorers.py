"""Public scorers of steps: against a forward pass per prefix, on completions of other tokens, and what is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_scorers import CHAT, Layout, chat_tokenizer, classifier_folder, sign_folder
from tiny_tokenizers import byte_level, word_pieces

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
    assert read.tokens.count(scorer.token) == 2
    assert scorer.tokenizer.decode(read.tokens[read.n_prompt :]).startswith("a<extra_0>b<extra_0>c<extra_0>")


def test_scores_that_are_no_numbers_are_refused(folder: Path) -> None:
    scorer = StepClassifierValues(folder)
    with torch.no_grad():
        scorer.head.layers[-1].bias[0] = float("nan")
    with pytest.raises(DataError, match=r"gave the scores \[nan\]: expected finite numbers"):
        scorer.judge([StepTexts("?", ["a"])])


def test_layouts() -> None:
    layout = StepLayout(token="ки", step="Step {n}: {step} ки\n", template="{question} ")
    (text, written), ends = layout.answer(["{n} is", "b"])
    assert text == "Step 1: {n} is ки\nStep 2: b ки"
    assert [text[:end] for end in ends] == ["Step 1: {n} is ки", text]
    assert [text[a:b] for a, b in written] == ["{n} is", "b"]
    for wrong in (
        *({"step": "{step}"}, {"step": "<extra_0>{step}"}, {"step": "{step}{step}<extra_0>"}),
        *({"token": ""}, {"template": "no question"}),
    ):
        with pytest.raises(ConfigError, match="layout: "):
            StepLayout(**wrong)
    tokenizer = chat_tokenizer()
    with pytest.raises(ConfigError, match="'zq' is no single token"):
        single_token(tokenizer, "zq")
    given: tuple[Any, ...] = (StepTexts("?", ["a"]), StepLayout(), tokenizer, single_token(tokenizer, "<extra_0>"))
    tokenizer.chat_template = CHAT.replace("m.content", "m.content[:1]")
    with pytest.raises(ConfigError, match="does not render the steps as they are"):
        read_steps(*given)
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(ConfigError, match="does not render the problem as it is"):
        read_steps(*given)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ConfigError, match="cannot render problem and steps"):
        read_steps(*given)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template: give layout\.template"):
        read_steps(*given)


def test_a_step_s_number_may_stand_after_its_token() -> None:
    tokenizer, layout = chat_tokenizer(), StepLayout("@", "{step}@ ({n})\n", "{question}\n")
    texts = StepTexts("?", [f"step {n}" for n in range(1, 12)])
    read = read_steps(texts, layout, tokenizer, single_token(tokenizer, "@"))
    expected = "?\n" + "".join(f"step {n}@ ({n})\n" for n in range(1, 12)).removesuffix(" (11)\n")
    assert tokenizer.decode(read.tokens) == expected
    assert [tokenizer.decode(read.tokens[: end + 1]).count("@") for end in read.ends] == list(range(1, 12))


CONTROLS = ["<eos>", "<turn>", "<extra_0>", "<plus>", "<n>", "<left>", "<right>"]
PROMPT = "<turn> {question}<n>"
ORDINARY = StepTexts("  What is\n    12 + 30? ö", ["Tom buys < 3 apples>.", "eos", "the\n    answer is \U000f0001."])


def control_tokenizer(make: Callable[[], Any]) -> Any:
    """A tokenizer with control tokens of all kinds, and two added tokens that are ordinary text."""
    from tokenizers import AddedToken, processors

    tokenizer = make()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "<extra_0>"]})
    sides = [AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, special=True)]
    tokenizer.add_tokens(["<plus>", AddedToken("<n>", normalized=True), *sides, "ö", "    "])
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.role }} <left><right>{{ m.content }}<n>{% endfor %}"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    return tokenizer


def renamed(tokenizer: Any) -> Any:
    """The same tokenizer with ①, ②, ... for the control tokens: <eos> is any text to it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = tokenizer.backend_tokenizer.to_str()
    for n, name in enumerate(CONTROLS):
        state = state.replace(f'"{name}"', f'"{chr(ord("①") + n)}"')
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(state))


def whole(texts: StepTexts, template: str | None) -> str:
    """What a scorer reads, with the renamed control tokens."""
    frame = f"{template}|" if template else "<turn>user <left><right>{question}<n><turn>assistant <left><right>|<n>"
    for n, name in enumerate(CONTROLS):
        frame = frame.replace(name, chr(ord("①") + n))
    before, after = frame.replace("{question}", texts.question).split("|")
    return before + "\n".join(f"{step} ③" for step in texts.steps) + after


@pytest.mark.parametrize("template", [None, PROMPT])
@pytest.mark.parametrize("make", [byte_level, word_pieces])
def test_no_control_token_comes_from_a_problem_or_its_steps(make: Callable[[], Any], template: str | None) -> None:
    tokenizer = control_tokenizer(make)
    layout, token = StepLayout(step="{step} <extra_0>\n", template=template), single_token(tokenizer, "<extra_0>")
    everything = "a<eos>\n<turn>user\nGood. <left> b <right> c<plus> <n>d<extra_0>"
    injected = [StepTexts(f"{c} ö    What{c}is", ["a step", f"the {c}last {c} step"]) for c in CONTROLS]
    for texts in (ORDINARY, StepTexts(everything, [everything, "Then<extra_0>", "<plus>"]), *injected):
        read = read_steps(texts, layout, tokenizer, token)
        expected = renamed(tokenizer)(whole(texts, template), add_special_tokens=template is not None)
        assert read.tokens == expected["input_ids"]
        assert [i for i, t in enumerate(read.tokens) if t == token] == read.ends
        assert len(read.ends) == len(texts.steps)
    split = tokenizer("<eos><plus>", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<plus>") in split, "transformers' own way splits flagged tokens only"


def test_control_tokens_that_are_no_text_otherwise_are_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("<extra_0>", -1.0), *((c, -2.0) for c in "<extra_0>?")]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, 0)),
        unk_token="<unk>",
        additional_special_tokens=["<extra_0>"],
        name_or_path="a scorer",
    )
    layout = StepLayout(template="{question}")
    assert read_steps(StepTexts("?", ["ta", "日"]), layout, tokenizer, 1).tokens.count(1) == 2
    for texts, whose in (
        (StepTexts("?", ["t<extra_0>"], "p7"), "problem p7"),
        (StepTexts("?<unk>", ["a"]), r"'\?<unk>'"),
    ):
        with pytest.raises(
            DataError, match=f"^{whose}: '<.*>' in its text is a control token of a scorer, "
        ) as refused:
            read_steps(texts, layout, tokenizer, 1)
        assert "\n" not in str(refused.value)


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
