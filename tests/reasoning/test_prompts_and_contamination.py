"""From problems to token ids, and the search for evaluation problems in the training set."""

import json
from pathlib import Path

import pytest
from tiny_tokenizers import byte_level, model_with

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.contamination import find_contaminated
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel, TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import ChatPrompt, FewShotPrompt, PlainPrompt

PROBLEM = Problem("a", r"What is \frac{1}{2}?", "0.5", r"It is {solution} \boxed{0.5}")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return TinyLanguageModel(width=16, n_heads=2, n_layers=1)


def test_plain(model: LanguageModel) -> None:
    prompt = PlainPrompt("Q {question}\n", "{solution} #### {answer}")
    problem = Problem("a", "1+1=", "2", "two")
    assert model.decode(prompt.prompt_ids(problem, model)) == "Q 1+1=\n"
    target = prompt.target_ids(problem, model)
    assert model.decode(target) == "two #### 2"
    assert target[-1] == model.eos_token_id


#: What must not come into a prompt.
SECRET = Problem("a", "1+1 {answer} {solution}", "98", "the solution is 98")
LEAKING = r"{question} \boxed{answer} {solution} {x} {{answer}}"


def shots(folder: Path) -> Path:
    file = folder / "shots.jsonl"
    rows = [
        {"question": "1+1=", "answer": "2"},
        {"question": "{question} {answer}", "answer": r"\frac{answer}{solution} {question} 3"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_only_the_question_is_filled_into_a_prompt(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}|{{ messages[1].content }}"
    model = model_with(byte_level())
    expected = LEAKING.replace("{question}", SECRET.question)
    few = FewShotPrompt(shots(tmp_path), 2, "Q: " + LEAKING, " {solution}", ";")
    prompts = {
        expected: PlainPrompt(LEAKING),
        f"Be {{answer}}|{expected}": ChatPrompt(LEAKING, "Be {answer}", chat_template=template),
        "Q: "
        + LEAKING.replace("{question}", "1+1=")
        + " 2;Q: "
        + LEAKING.replace("{question}", "{question} {answer}")
        + r" \frac{answer}{solution} {question} 3;Q: "
        + expected: few,
    }
    for text, prompt in prompts.items():
        assert model.decode(prompt.prompt_ids(SECRET, model)) == text
        assert "98" not in text


def test_targets_state_the_answer_where_there_is_one(model: LanguageModel) -> None:
    prompt = PlainPrompt(target="{solution} #### {answer}")
    filled = prompt.target_ids(Problem("p", "q", "(answer)", "(solution)"), model)
    assert model.decode(filled) == "(solution) #### (answer)"
    with pytest.raises(DataError, match=r"states the answer, and the problem 'p' has none"):
        prompt.target_ids(Problem("p", "q", "", "s"), model)


def test_few_shot(model: LanguageModel, tmp_path: Path) -> None:
    file = shots(tmp_path)
    prompt = FewShotPrompt(file, 1, "Q {question} A", " {solution}", ";")
    assert model.decode(prompt.prompt_ids(Problem("", "5", ""), model)) == "Q 1+1= A 2;Q 5 A"
    with pytest.raises(ConfigError, match="has 2 examples, 3 are asked for"):
        FewShotPrompt(file, 3)
    with pytest.raises(ConfigError, match=r"expected a target with {solution} alone"):
        FewShotPrompt(file, 1, target=" {solution} #### {answer}")
    (tmp_path / "bad.jsonl").write_text('{"question": "1"}\n{oops\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2 is not JSON"):
        FewShotPrompt(tmp_path / "bad.jsonl", 2)
    (tmp_path / "half.jsonl").write_text('{"question": "1"}\n')
    with pytest.raises(DataError, match=r"half\.jsonl, example 1 has none of the fields answer"):
        FewShotPrompt(tmp_path / "half.jsonl", 1)
    with pytest.raises(DataError, match=r"none\.jsonl is missing"):
        FewShotPrompt(tmp_path / "none.jsonl", 2)


def test_few_shot_answers_end_where_the_next_question_begins(tmp_path: Path) -> None:
    file = shots(tmp_path)
    assert FewShotPrompt(file, 1).stop == ("\nQuestion:",)
    assert FewShotPrompt(file, 1, "Q: {question} A:", separator=";").stop == (";Q:",)
    assert FewShotPrompt(file, 1, "{question} A:").stop == ("\n\n",)
    assert FewShotPrompt(file, 1, stop=[]).stop == ()
    assert PlainPrompt().stop == ()
    with pytest.raises(ConfigError, match=r"'2' stands within a worked solution"):
        FewShotPrompt(file, 1, stop=["2"])


def test_a_chat_target_ends_with_the_template_s_end_of_turn(model: LanguageModel) -> None:
    problem = Problem("", "1+1", "2", "two")
    template = "{% for m in messages %}<bos>{{ m.role }} {{ m.content }}\n<pad>\n{% endfor %}"
    prompt = ChatPrompt(chat_template=template)
    pad, newline = model.tokenizer.pad_token_id, model.encode("\n")[0]
    assert prompt.target_ids(problem, model) == [*model.encode("two"), newline, pad]
    assert prompt.end_ids(model)[-1] == pad
    for template in (
        "{{ messages[0].content }}",
        "{% for m in messages %}{{ m.content }};{% endfor %}",
    ):
        ids = ChatPrompt(chat_template=template).target_ids(problem, model)
        assert ids == [*model.encode("two"), model.eos_token_id], "no end of its own"


def test_chat_template_is_rendered_once(model: LanguageModel) -> None:
    template = "{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    prompt = ChatPrompt("{question} Box it.", "Be brief.", chat_template=template)
    ids = prompt.prompt_ids(Problem("", "1+1", "2"), model)
    assert ids.count(model.tokenizer.bos_token_id) == 2, "the template's own special tokens, and no more"
    assert model.tokenizer.decode(ids) == "<bos>system: Be brief.\n<bos>user: 1+1 Box it.\nassistant:"
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        ChatPrompt().prompt_ids(Problem("", "1+1", "2"), model)


@pytest.mark.parametrize("prompt", [PlainPrompt, ChatPrompt])
def test_a_template_has_to_ask(prompt: type) -> None:
    with pytest.raises(ConfigError, match=r"has no {question}: 'hello'"):
        prompt("hello")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_smollm2_s_own_template() -> None:
    model = PretrainedLanguageModel("smollm2-135m-instruct")
    text = model.tokenizer.decode(ChatPrompt().prompt_ids(Problem("", "2+2?", "4"), model))
    assert text.endswith("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n")
    assert model.tokenizer.decode([model.eos_token_id]) == "<|im_end|>"


def test_contamination() -> None:
    train = ["one two three four five six seven", "Short one.", "a b c d e"]
    evaluation = [
        "ZERO one, two three four; eight",  # four words in a row
        "one two three 4",
        "short  ONE",  # the whole of a short text
        "a b c",
        "",
        "x b c d e y",
    ]
    assert find_contaminated(train, evaluation, n=4) == [0, 2, 5]
    assert find_contaminated(train, evaluation, n=13) == [2]
    assert find_contaminated([], evaluation) == []
    assert find_contaminated(["6+6="], ["6-6=", "6+6=", "66="]) == [1], "signs tell short problems"


@pytest.mark.parametrize(
    ("chat_template", "says"),
    [
        ("{% for m in %}", "cannot render"),
        ("{{ nothing.there }}", "cannot render"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{{ messages[0].content + 1 }}", "cannot render"),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            "leaves out the system",
        ),
        ("{{ messages[0].content }}", "leaves out the user"),
    ],
)
def test_a_template_that_cannot_render_or_leaves_out_is_named(
    model: LanguageModel, chat_template: str, says: str
) -> None:
    prompt = ChatPrompt(system="Be brief.", chat_template=chat_template)
    with pytest.raises(ConfigError, match=says):
        prompt.prompt_ids(PROBLEM, model)


def test_a_template_may_strip_messages(model: LanguageModel) -> None:
    template = "{% for m in messages %}{{ m.content | trim }};{% endfor %}"
    prompt = ChatPrompt(" {question}\n", " Be brief. ", chat_template=template)
    assert model.decode(prompt.prompt_ids(Problem("", "1+1=", "2"), model)) == "Be brief.;1+1=;"
