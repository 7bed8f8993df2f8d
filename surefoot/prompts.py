"""From a problem to token ids: the model's chat template, a plain text, or a plain text after worked examples.

A prompt is a small object with two methods, so that one's own can be named in a config by its import path.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from surefoot.errors import ConfigError
from surefoot.language_models.base import LanguageModel
from surefoot.problems import Problem, read_jsonl

__all__ = ("ChatPrompt", "FewShotPrompt", "PlainPrompt", "Prompt")


def _fill(template: str, problem: Problem) -> str:
    """Fill ``{question}``, ``{solution}`` and ``{answer}`` in; other braces stay, as LaTeX is full of them."""
    fields = {"question": problem.question, "solution": problem.solution, "answer": problem.answer}
    parts, rest = [], template
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in fields if f"{{{name}}}" in rest]
        if not found:
            break
        place, name = min(found)
        parts += [rest[:place], fields[name]]
        rest = rest[place + len(name) + 2 :]
    return "".join([*parts, rest])


class Prompt(ABC):
    """How a problem is put to a model, and how its reference solution continues."""

    @abstractmethod
    def prompt_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the token ids that the model continues."""

    @abstractmethod
    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the token ids of the reference solution, the end of sequence included."""


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

    def prompt_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the text's tokens, with the beginning of sequence where the tokenizer puts one."""
        ids: list[int] = model.tokenizer(_fill(self.template, problem))["input_ids"]
        if ids and ids[-1] == model.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the target's tokens and the end of sequence."""
        return [*model.encode(_fill(self.target, problem)), model.eos_token_id]


class FewShotPrompt(PlainPrompt):
    """A plain prompt after worked examples."""

    def __init__(
        self,
        examples: Path,
        n_examples: int = 4,
        template: str = "Question: {question}\nAnswer:",
        target: str = " {solution}",
        separator: str = "\n\n",
    ) -> None:
        """Initialize the prompt.

        Args:
            examples: JSONL file with the fields question and answer (the worked solution); the first ones are used.
            n_examples: Number of worked examples.
            template: Prompt of one question; {question} is filled in.
            target: How a solution continues it; {solution} is filled in.
            separator: What stands between examples.

        Raises:
            ConfigError: If the template asks nothing, or the file has too few examples.
        """
        super().__init__(template, target)
        rows = [r for r, _ in zip(read_jsonl(Path(examples)), range(n_examples), strict=False)]
        if len(rows) < n_examples:
            raise ConfigError(f"{examples} has {len(rows)} examples, {n_examples} are asked for.")
        worked = [
            Problem("", str(r.get("question", "")), "", str(r.get("answer", ""))) for r in rows
        ]
        shown = "".join(_fill(template + target, p) + separator for p in worked)
        self.template = shown.replace("{question}", "{ question}") + template


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
            ConfigError: If there is no chat template.
        """
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system})
        messages.append({"role": "user", "content": _fill(self.template, problem)})
        try:
            text = model.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                chat_template=self.chat_template,
            )
        except ValueError as error:
            raise ConfigError(
                "the tokenizer has no chat template: give prompt.init_args.chat_template, or use PlainPrompt."
            ) from error
        return model.encode(str(text))  # the template writes the special tokens itself

    def target_ids(self, problem: Problem, model: LanguageModel) -> list[int]:
        """Return the target's tokens and the end of sequence."""
        return [*model.encode(_fill(self.target, problem)), model.eos_token_id]
