"""What public scorers of steps share: they read texts with a tokenizer of their own, and judge steps, not prompts."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.pretrained import load_tokenizer
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rollouts import SeedOf
from surefoot.reasoning.sequences import pack_sequences
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.base import ValueEstimator
from surefoot.reasoning.values.judged import judged_sequence, predicted_values
from surefoot.reasoning.values.step_texts import ReadSteps, StepLayout, StepTexts, read_steps, single_token, steps_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("PackedStepScorer", "StepScorer", "scorer_folder", "scorer_tokenizer")


class StepScorer(ValueEstimator):
    """Gives the values of steps by a model that others have published, as far as its texts allow.

    Completions are read as texts: whatever the policy's tokens, steps are decoded, joined by the scorer's layout and
    encoded by its tokenizer. A step of white space alone has the value of the one before. Such models judge steps, so
    the value of the prompt is a setting. In a search the whole solution is read at every step: a step's text may change
    the tokens of what stands before it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", layout: StepLayout, prompt_value: float) -> None:
        """Initialize the scorer.

        Args:
            tokenizer: The scorer's.
            layout: How problem and steps are put to it.
            prompt_value: Value before the first step, in [0, 1].

        Raises:
            ConfigError: If the value is out of range, or the layout's token is no single one of the tokenizer.
        """
        if not 0 <= prompt_value <= 1:
            raise ConfigError(f"prompt_value must be in [0, 1], got {prompt_value}.")
        self.tokenizer, self.layout, self.prompt_value = tokenizer, layout, prompt_value
        self.token = single_token(tokenizer, layout.token)
        self._n_scored_tokens, self._told = 0, False

    @abstractmethod
    def scores(self, solutions: Sequence[ReadSteps]) -> list[list[float]]:
        """Return the value after each step of each solution, in [0, 1], and count the tokens that it takes.

        Args:
            solutions: Problems with steps in the scorer's tokens, at least one.
        """

    def count_scored(self, n_tokens: int) -> None:
        """Add tokens that were put through the model; `scores` calls it."""
        self._n_scored_tokens += n_tokens

    def to(self, device: torch.device) -> None:
        """Move the model, where it is one of this process; by default there is none."""

    def judge(self, solutions: Sequence[StepTexts]) -> list[list[float]]:
        """Return the value after each step of each solution, in [0, 1].

        Args:
            solutions: Problems and steps in text; white space around a step is not part of it.

        Raises:
            DataError: If a solution does not fit into the scorer's context, has a control token that the tokenizer
                cannot read as text, or a score is no number.
        """
        kept = [s._replace(steps=[step.strip() for step in s.steps if step.strip()]) for s in solutions]
        read = [read_steps(s, self.layout, self.tokenizer, self.token) if s.steps else None for s in kept]
        given = [r for r in read if r]
        found = iter(self.scores(given) if given else [])
        values = []
        for solution, r in zip(solutions, read, strict=True):
            own = iter(next(found) if r else ())
            last, after = self.prompt_value, []
            for step in solution.steps:
                last = next(own) if step.strip() else last
                after.append(last)
            if not all(map(math.isfinite, after)):
                raise DataError(f"{type(self).__name__} gave the scores {after}: expected finite numbers.")
            values.append(after)
        return values

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values``; arguments are those of `ValueEstimator`."""
        for t in trajectories:
            t.values, t.value_counts = (), ()
        self.extend(policy, trajectories, seed_of)

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in the values that are missing at the end; arguments are those of `ValueEstimator`.

        Solutions that have grown are read whole, from the problem on: ``n_scored_tokens`` counts all of it each time.
        """
        if not self._told:
            warnings.warn(
                f"{type(self).__name__} has a tokenizer of its own: steps are decoded, and retokenised by"
                f" {self.tokenizer.name_or_path}.",
                stacklevel=2,
            )
            self._told = True
        self.to(policy.model.device)
        grown = [t for t in trajectories if len(t.values) <= len(t.token_spans())]
        solutions = [StepTexts(t.problem.question, steps_of(t, policy.model.decode), t.problem.id) for t in grown]
        found = self.judge(solutions)
        for t, after in zip(grown, found, strict=True):
            t.values, t.value_counts = [*t.values, *[self.prompt_value, *after][len(t.values) :]], ()

    @property
    def n_scored_tokens(self) -> int:
        """Tokens that were put through the model so far."""
        return self._n_scored_tokens


class PackedStepScorer(StepScorer):
    """Scores by a causal model in this process: one forward pass of a solution scores all its steps.

    Solutions of one problem share its computation.

    Attributes:
        model: Model of the texts.
        head: From last hidden states ``(tokens, width)`` to the logit of a right step ``(tokens,)``.
        max_tokens_per_pack: Most tokens that are put through the model at once.
    """

    model: LanguageModel
    head: nn.Module
    max_tokens_per_pack: int

    @torch.inference_mode()
    def scores(self, solutions: Sequence[ReadSteps]) -> list[list[float]]:
        """Return the probability of a right step after each one; arguments are those of `StepScorer`."""
        lengths = [[end + 1 - s.n_prompt for end in s.ends] for s in solutions]
        sequences = [
            judged_sequence(s.tokens[: s.n_prompt], s.tokens[s.n_prompt : s.ends[-1] + 1], own)
            for s, own in zip(solutions, lengths, strict=True)
        ]
        packs = pack_sequences(sequences, self.max_tokens_per_pack, keep_last=True)
        self.count_scored(sum(len(pack.tokens) for pack in packs))
        return predicted_values(self.model, self.head, packs, lengths)

    def to(self, device: torch.device) -> None:
        """Move model and head."""
        self.model.to(device)
        self.head.to(device)


def scorer_folder(folder: Path) -> Path:
    """Return a scorer's folder.

    Raises:
        DataError: If it is none of a saved model.
    """
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise DataError(f"{path} is no folder of a scorer: expected config.json, a tokenizer and *.safetensors in it.")
    return path


def scorer_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a scorer's folder, one that says which characters its tokens stand for.

    Raises:
        DataError: If there is none, or it does not.
    """
    tokenizer = load_tokenizer(str(folder))
    if not tokenizer.is_fast:
        raise DataError(f"{folder}: the tokenizer does not say where its tokens stand: expected a tokenizer.json.")
    return tokenizer
