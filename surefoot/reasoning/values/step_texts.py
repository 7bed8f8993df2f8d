"""What public scorers of steps read: a problem and the steps of its solution as one text, with a token after each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models.stops import rendering_errors
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.plain_text import MixedText, Reader, encode_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("ReadSteps", "StepLayout", "StepTexts", "read_steps", "single_token", "steps_of")

#: A question and an answer that no template writes by itself.
_STAND_INS = "\ue000", "\ue001"


class StepTexts(NamedTuple):
    """A problem and the steps of a solution, in text."""

    question: str
    steps: Sequence[str]  # not empty, without white space around them
    id: str = ""  # of the problem, where it is known


class ReadSteps(NamedTuple):
    """A problem and steps as a scorer's tokens."""

    tokens: list[int]  # ids
    n_prompt: int  # first tokens, those before the steps
    ends: list[int]  # position of the token that closes each step


@dataclass(frozen=True)
class StepLayout:
    """How a problem and steps become the text that a scorer was trained on.

    Args:
        token: What closes a step, one token of the scorer's; the score of the step is read there.
        step: Text of a step: {step} is filled in, and {n}, its number from 1; the token stands in it after the step.
        template: Text before the steps, {question} is filled in; null for a conversation by the tokenizer's chat
            template, in which the steps are the answer.
        system: System message of the conversation; by default the chat template's own.

    Raises:
        ConfigError: If the token does not follow the one step, or the template asks nothing.
    """

    token: str = "<extra_0>"
    step: str = "{step}<extra_0>"
    template: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        """Check the texts."""
        before, found, after = self.step.partition("{step}")
        if not self.token or not found or "{step}" in after or self.token not in after or self.token in before:
            raise ConfigError(
                f"layout: step {self.step!r} must have {{step}} once, and the token {self.token!r} after it."
            )
        if self.template is not None and "{question}" not in self.template:
            raise ConfigError(f"layout: the template has no {{question}}: {self.template!r}.")

    def answer(self, steps: Sequence[str]) -> tuple[MixedText, list[int]]:
        """Return the text of all steps up to the last one's token, and where in it each step's token ends."""
        text, written, ends = "", [], []
        before, _, after = self.step.partition("{step}")
        closed = after.index(self.token) + len(self.token)
        for n, step in enumerate(steps, 1):
            text += before.replace("{n}", str(n))
            written.append((len(text), len(text) + len(step)))
            text += step + after[:closed].replace("{n}", str(n))
            ends.append(len(text))
            text += after[closed:].replace("{n}", str(n))
        return MixedText(text[: ends[-1]], written), ends

    def prompt(self, question: str) -> MixedText:
        """Return the text before the steps, by the template."""
        text, *others = (self.template or "").split("{question}")
        written = []
        for other in others:
            written.append((len(text), len(text) + len(question)))
            text += question + other
        return MixedText(text, written)


def steps_of(trajectory: Trajectory, decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return the text of each span of a completion.

    Args:
        trajectory: Cut into spans.
        decode: Returns the text of token ids of the policy that sampled it.
    """
    spans = trajectory.token_spans()
    if len(trajectory.steps) == len(spans):
        return list(trajectory.steps)
    going = trajectory.finish_reason == "step"  # its text is without what ended its last step
    text = decode(trajectory.completion) if going else trajectory.text
    cuts = [min(len(decode(trajectory.completion[: span.end])), len(text)) for span in spans[:-1]]
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


def single_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """Return the id of the one token that a text is, a token of white space before it aside.

    Raises:
        ConfigError: If it is several tokens, or unknown.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    own = ids if len(ids) == 1 else [i for i in ids if str(tokenizer.decode([i])).strip()]
    if len(own) != 1 or own[0] == tokenizer.unk_token_id:
        raise ConfigError(f"{text!r} is no single token of {tokenizer.name_or_path}: it is {len(own)} tokens {own}.")
    return own[0]


def read_steps(texts: StepTexts, layout: StepLayout, tokenizer: "PreTrainedTokenizerBase", token: int) -> ReadSteps:
    """Return a problem and steps as the tokens of their whole text.

    Only the layout and the chat template set control tokens, whatever problem and steps say.

    Args:
        texts: The problem, and at least one step.
        layout: How they are put.
        tokenizer: The scorer's.
        token: Id of the layout's token.

    Raises:
        ConfigError: If the chat template does not render problem and steps as they are.
        DataError: If a step's token is merged with what stands beside it, or a control token cannot be read as text.
    """
    whose = f"problem {texts.id}" if texts.id else f"{texts.question!r:.60}"
    answer, ends = layout.answer(texts.steps)
    if layout.template is None:
        (text, written), start = _conversation(texts.question, answer.text, layout, tokenizer)
    else:
        text, written = layout.prompt(texts.question)
        text, start = text + answer.text, len(text)
    mixed = MixedText(text, [*written, *((start + a, start + b) for a, b in answer.written)])
    ids, spans = encode_plain(mixed, Reader(tokenizer, token, layout.template is not None), whose)
    stops = [b if b > a else 0 for a, b in spans]  # special tokens of the tokenizer's own have none
    closing = {stop: i for i, stop in enumerate(stops) if stop and ids[i] == token}
    missing = [n for n, end in enumerate(ends, 1) if start + end not in closing]
    if missing:
        raise DataError(f"step {missing[0]} of {whose} is not closed by the single token {token}.")
    n_prompt = next(i for i, stop in enumerate(stops) if stop > start)
    return ReadSteps(ids, n_prompt, [closing[start + end] for end in ends])


def _conversation(
    question: str, answer: str, layout: StepLayout, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[MixedText, int]:
    """Return a conversation in which the steps are the assistant's answer, and where in it they begin."""
    text = _rendered(question, answer, layout, tokenizer)
    start = text.rfind(answer)
    if start < 0:
        raise ConfigError("the chat template does not render the steps as they are: give layout.template.")
    before, _, others = _rendered(*_STAND_INS, layout, tokenizer).partition(_STAND_INS[0])
    between = others.partition(_STAND_INS[1])[0]
    asked = len(before), start - len(between)
    if asked[0] > asked[1] or not text.startswith(before) or text[asked[1] : start] != between:
        raise ConfigError("the chat template does not render the problem as it is: give layout.template.")
    return MixedText(text, [asked]), start


def _rendered(question: str, answer: str, layout: StepLayout, tokenizer: "PreTrainedTokenizerBase") -> str:
    if not tokenizer.chat_template:
        raise ConfigError("the scorer's tokenizer has no chat template: give layout.template.")
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if layout.system is not None:
        messages.insert(0, {"role": "system", "content": layout.system})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except rendering_errors() as error:
        raise ConfigError(f"the scorer's chat template cannot render problem and steps ({error}).") from error
