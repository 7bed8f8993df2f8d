"""From a problem to token ids: the model's chat template, a plain text, or a plain text after worked examples.

A prompt is a small object with two methods, so that one's own can be named in a config by its import path.
"""

import re
from abc import ABC, abstractmethod
from itertools import product
from pathlib import Path
from typing import Any

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models.base import LanguageModel
from surefoot.reasoning.language_models.stops import end_of_turn, rendering_errors
from surefoot.reasoning.problems import Problem, first_field, read_jsonl

__all__ = ("ChatPrompt", "FewShotPrompt", "PlainPrompt", "Prompt")


def _ask(template: str, problem: Problem) -> str:
    """Fill ``{question}`` in and nothing else; other braces stay, as LaTeX is full of them."""
    return template.replace("{question}", problem.question)


def _answer(target: str, problem: Problem) -> str:
    """Fill ``{solution}`` and ``{answer}`` in; other braces stay.

    Raises:
        DataError: If the target states an answer and the problem has none.
    """
    fields = {"{solution}": problem.solution, "{answer}": problem.answer}
    if "{answer}" in target and not problem.answer:
        raise DataError(f"the prompt's target {target!r} states the answer, and the problem {problem.id!r} has none.")
    return re.sub("|".join(map(re.escape, fields)), lambda m: fields[m.group()], target)


class Prompt(ABC):
    """How a problem is put to a model, and how its reference solution continues.

    Attributes:
        stop: Texts that end an answer, beside those of the sampling.
    """

    stop: tuple[str, ...] = ()

    @abstractmethod
    def prompt_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the token ids that the model continues."""

    @abstractmethod
    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the token ids of the reference solution, the end of sequence included."""

    def end_ids(self, model: LanguageModel) -> list[int]:
        """Return the token ids that end an answer: the end of sequence, unless the prompt has an end of its own."""
        return [model.eos_token_id]


class PlainPrompt(Prompt):
    """A text with the question filled in."""

    def __init__(self, template: str = "{question}\n", target: str = "{solution}") -> None:
        """Initialize the prompt.

        Args:
            template: Prompt; {question} is filled in.
            target: What a training target says; {solution} and {answer} are filled in.

        Raises:
            ConfigError: If the template asks nothing.
        """
        if "{question}" not in template:
            raise ConfigError(f"the prompt's template has no {{question}}: {template!r}.")
        self.template, self.target = template, target

    def text(self, problem: Problem) -> str:
        """Return the prompt's text."""
        return _ask(self.template, problem)

    def prompt_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the text's tokens, with the beginning of sequence where the tokenizer puts one."""
        ids: list[int] = model.tokenizer(self.text(problem))["input_ids"]
        if ids and ids[-1] == model.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the target's tokens and the end of sequence."""
        return [*model.encode(_answer(self.target, problem)), *self.end_ids(model)]


def _worked_examples(path: Path, n: int) -> list[Problem]:
    """Return the first problems of a file, with their solutions.

    Raises:
        ConfigError: If there are fewer.
        DataError: If one has no question or no answer.
    """
    rows = [r for r, _ in zip(read_jsonl(path), range(n), strict=False)]
    if len(rows) < n:
        raise ConfigError(f"{path} has {len(rows)} examples, {n} are asked for.")
    fields = [
        [first_field(r, [name], f"{path}, example {i + 1}") for name in ("question", "answer")]
        for i, r in enumerate(rows)
    ]
    return [Problem("", question, "", solution) for question, solution in fields]


class FewShotPrompt(PlainPrompt):
    """A plain prompt after worked examples.

    A model goes on with a next question of its own, so the answer ends where that begins.
    """

    def __init__(
        self,
        examples: Path,
        n_examples: int = 4,
        template: str = "Question: {question}\nAnswer:",
        target: str = " {solution}",
        separator: str = "\n\n",
        stop: list[str] | None = None,
    ) -> None:
        """Initialize the prompt.

        Args:
            examples: JSONL file with the fields question and answer (the worked solution); the first ones are used.
            n_examples: Number of worked examples.
            template: Prompt of one question; {question} is filled in.
            target: How a solution continues it; {solution} is filled in.
            separator: What stands between examples.
            stop: Texts that end an answer; by default the beginning of a next question: a new line with what the
                template says before {question}, or the separator where it says nothing.

        Raises:
            ConfigError: If the template asks nothing, the target has no {solution}, the file has too few examples, or a
                stop text stands within a worked solution.
            DataError: If an example has no question or no answer.
        """
        super().__init__(template, target)
        if "{solution}" not in target or "{answer}" in target:
            raise ConfigError(
                f"worked examples have a question and a solution: expected a target with {{solution}} alone, got"
                f" {target!r}."
            )
        worked = _worked_examples(Path(examples), n_examples)
        self.shown = "".join(_ask(template, p) + _answer(target, p) + separator for p in worked)
        line = "\n" if "\n" in separator else separator
        marker = template.split("{question}")[0].strip()
        next_question = line + marker if marker else separator
        self.stop = (next_question,) if stop is None else tuple(stop)
        for text, p in product(self.stop, worked):
            if text in _answer(target, p):
                raise ConfigError(
                    f"the stop text {text!r} stands within a worked solution of {examples}: it would cut answers short;"
                    " give prompt.init_args.stop, [] for none."
                )

    def text(self, problem: Problem) -> str:
        """Return the worked examples and the prompt's text."""
        return self.shown + _ask(self.template, problem)


class ChatPrompt(Prompt):
    """The model's own chat template."""

    def __init__(
        self,
        template: str = "{question}",
        system: str | None = None,
        target: str = "{solution}",
        chat_template: str | None = None,
    ) -> None:
        """Initialize the prompt.

        Args:
            template: The user's message; {question} is filled in.
            system: System message; by default the template's own.
            target: The assistant's answer in training; {solution} and {answer} are filled in.
            chat_template: Jinja template to use in place of the tokenizer's.

        Raises:
            ConfigError: If the template asks nothing.
        """
        if "{question}" not in template:
            raise ConfigError(f"the prompt's template has no {{question}}: {template!r}.")
        self.template, self.system, self.target = template, system, target
        self.chat_template = chat_template

    def prompt_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the tokens of the conversation up to where the assistant answers.

        Raises:
            ConfigError: If there is no chat template, or it cannot render these messages or leaves one of them out.
        """
        if self.chat_template is None and not model.tokenizer.chat_template:
            raise ConfigError(
                "the tokenizer has no chat template: give prompt.init_args.chat_template, or use PlainPrompt."
            )
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        messages.append({"role": "user", "content": _ask(self.template, problem)})
        roles = " and ".join(m["role"] for m in messages)
        try:
            text = str(
                model.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=True,
                    chat_template=self.chat_template,
                )
            )
        except rendering_errors() as error:
            raise ConfigError(
                f"the chat template cannot render a conversation of {roles} ({error}): mend it, or leave out"
                " prompt.init_args.system where it knows no system role."
            ) from error
        for message in messages:
            if message["content"].strip() not in text:
                raise ConfigError(
                    f"the chat template leaves out the {message['role']} message: mend it, or put its text into"
                    " prompt.init_args.template."
                )
        return model.encode(text)  # the template writes the special tokens itself

    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the target's tokens and the end of the assistant's turn."""
        return [*model.encode(_answer(self.target, problem)), *self.end_ids(model)]

    def end_ids(self, model: LanguageModel) -> list[int]:
        """Return what the chat template ends an answer with; the end of sequence where it has no token for that."""
        return end_of_turn(model.tokenizer, self.chat_template) or [model.eos_token_id]
