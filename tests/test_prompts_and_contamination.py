"""From problems to token ids, and the search for evaluation problems in the training set."""

from pathlib import Path

import pytest

from surefoot.contamination import find_contaminated
from surefoot.errors import ConfigError, DataError
from surefoot.language_models import LanguageModel, PretrainedLanguageModel, TinyLanguageModel
from surefoot.problems import Problem
from surefoot.prompts import ChatPrompt, FewShotPrompt, PlainPrompt

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


def test_braces_of_latex_and_of_a_question_are_left_alone(model: LanguageModel) -> None:
    tricky = Problem("a", "{answer}(){}"[:8], "9", "x")
    assert model.decode(PlainPrompt().prompt_ids(Problem("a", "1+1", "2"), model)) == "1+1\n"
    from surefoot.prompts import _fill

    assert _fill("{question} {x} {answer}", tricky) == "{answer} {x} 9", (
        "what is filled in is not filled again"
    )


def test_few_shot(model: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "shots.jsonl"
    file.write_text(
        '{"question": "1+1=", "answer": "2"}\n{"question": "{question}", "answer": "3"}\n'
    )
    prompt = FewShotPrompt(file, 2, "Q {question} A", " {solution}", ";")
    from surefoot.prompts import _fill

    assert _fill(prompt.template, Problem("", "5", "")) == "Q 1+1= A 2;Q { question} A 3;Q 5 A"
    with pytest.raises(ConfigError, match="has 2 examples, 3 are asked for"):
        FewShotPrompt(file, 3)
    (tmp_path / "bad.jsonl").write_text('{"question": "1"}\n{oops\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2 is not JSON"):
        FewShotPrompt(tmp_path / "bad.jsonl", 2)
    with pytest.raises(DataError, match=r"none\.jsonl is missing"):
        FewShotPrompt(tmp_path / "none.jsonl", 2)


def test_chat_template_is_rendered_once(model: LanguageModel) -> None:
    template = "{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    prompt = ChatPrompt("{question} Box it.", "Be brief.", chat_template=template)
    ids = prompt.prompt_ids(Problem("", "1+1", "2"), model)
    assert ids.count(model.tokenizer.bos_token_id) == 2, (
        "the template's own special tokens, and no more"
    )
    assert (
        model.tokenizer.decode(ids) == "<bos>system: Be brief.\n<bos>user: 1+1 Box it.\nassistant:"
    )
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        ChatPrompt().prompt_ids(Problem("", "1+1", "2"), model)


@pytest.mark.parametrize("prompt", [PlainPrompt, ChatPrompt])
def test_a_template_has_to_ask(prompt: type) -> None:
    with pytest.raises(ConfigError, match=r"has no {question}: 'hello'"):
        prompt("hello")


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
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
