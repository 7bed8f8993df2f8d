"""Values that a trained model predicts: what search, selection and credit read, with one forward pass a completion."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models import PretrainedLanguageModel, ValueHead
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rollouts import SeedOf
from surefoot.reasoning.sequences import pack_sequences
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values.base import ValueEstimator
from surefoot.reasoning.values.growing import GrowingValues
from surefoot.reasoning.values.judged import judged_sequence, predicted_values, prefix_lengths
from surefoot.reasoning.values.label_source import LabelSource
from surefoot.storage.manifests import WEIGHTS

__all__ = ("LearnedValues",)


class LearnedValues(ValueEstimator):
    """Predicts the values of completions' prefixes with the model that a run of `ProcessReward` has trained.

    Its tokenizer must be the policy's: completions are judged as they were sampled, token by token. So must the prompt
    that it was trained after, which the run's ``labels.json`` says; runs without one are not checked. In a search keys
    and values of attention are kept, and each token goes through the model once; where the model does not go on from
    them (`LanguageModel.can_continue`), beginnings are computed again.
    """

    def __init__(
        self,
        run: Path,
        max_tokens_per_pack: int = 8192,
        cache_gib: float = 1.0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        """Load the model.

        Args:
            run: Run folder, with ``model`` and ``weights.safetensors``.
            max_tokens_per_pack: Most tokens that are put through the model at once.
            cache_gib: Memory for keys and values of what completions of a search begin with, GiB; what was used least
                recently is dropped, and computed again where it is needed. 0 keeps none.
            dtype: Precision of the model's weights; the head is computed in float32.

        Raises:
            ConfigError: If the memory is negative or not finite.
            DataError: If there is no such run.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not 0 <= cache_gib < math.inf:
            raise ConfigError(f"cache_gib must be at least 0 and finite, got {cache_gib}.")
        file = Path(run) / WEIGHTS
        if not file.is_file() or not (Path(run) / "model").is_dir():
            raise DataError(
                f"{run} is no finished run of ProcessReward: expected {WEIGHTS} and the folder model in it."
            )
        self.model = PretrainedLanguageModel(str(Path(run) / "model"), dtype).requires_grad_(False)
        self.head = ValueHead(self.model.width).requires_grad_(False)
        try:
            weights = load_file(file)
            self.head.load_state_dict({n.removeprefix("value_head."): w for n, w in weights.items()})
        except (SafetensorError, OSError, RuntimeError) as error:
            raise DataError(
                f"{file} holds no value head of the model beside it: {' '.join(str(error).split())}."
            ) from error
        self.source = LabelSource.read(Path(run))
        self.max_tokens_per_pack, self._n_scored_tokens = max_tokens_per_pack, 0
        self.growing = GrowingValues(self.model, self.head, max_tokens_per_pack, cache_gib * 2**30)

    def __call__(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in ``values``; arguments are those of `ValueEstimator`.

        Raises:
            DataError: If the policy's tokens or prompt are others than it was trained with.
        """
        self._prepare(policy, trajectories)
        self.predict(trajectories)

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in the values that are missing at the end; what completions begin with is computed once until `forget`.

        Arguments are those of `ValueEstimator`.
        """
        self._prepare(policy, trajectories)
        grown = [t for t in trajectories if len(t.values) <= len(t.token_spans())]
        longest = max((len(t.prompt) + len(t.completion) for t in grown), default=0)
        if self.growing.max_bytes > 0 and self.model.can_continue(longest):
            self._fill_in_grown(grown)
        else:
            self._fill_in(grown)

    def forget(self) -> None:
        """Free the keys and values that `extend` has kept."""
        self.growing.forget()

    def predict(self, trajectories: Sequence[Trajectory]) -> None:
        """Fill in the values of the prompt and after each span; completions of one prompt share its computation."""
        for t in trajectories:
            t.values, t.value_counts = (), ()
        self._fill_in(trajectories)

    @torch.inference_mode()
    def _fill_in(self, trajectories: Sequence[Trajectory]) -> None:
        self.source.check_prompts(trajectories, self.model.decode)
        lengths = [prefix_lengths(t)[len(t.values) :] for t in trajectories]
        sequences = [judged_sequence(t.prompt, t.completion, n) for t, n in zip(trajectories, lengths, strict=True)]
        packs = pack_sequences(sequences, self.max_tokens_per_pack, keep_last=True)
        self._n_scored_tokens += sum(len(pack.tokens) for pack in packs)
        for t, values in zip(trajectories, predicted_values(self.model, self.head, packs, lengths), strict=True):
            t.values, t.value_counts = [*t.values, *values], ()

    def _fill_in_grown(self, trajectories: Sequence[Trajectory]) -> None:
        self.source.check_prompts(trajectories, self.model.decode)
        lengths = [prefix_lengths(t)[len(t.values) :] for t in trajectories]
        judged = [
            judged_sequence(t.prompt, t.completion[: n[-1]], n) for t, n in zip(trajectories, lengths, strict=True)
        ]
        found = self.growing([[*s.prompt, *s.completion] for s in judged])
        for t, own, values in zip(trajectories, lengths, found, strict=True):
            t.values, t.value_counts = [*t.values, *values[[len(t.prompt) + n - 1 for n in own]].tolist()], ()

    def _prepare(self, policy: Policy, trajectories: Sequence[Trajectory]) -> None:
        """Move to the policy's device, and check that the tokens mean the same."""
        self.model.to(policy.model.device)
        self.head.to(policy.model.device)
        for t in trajectories:
            if self.model.decode(t.completion) != policy.model.decode(t.completion):
                raise DataError(
                    "the value model reads other texts from the policy's tokens: it has another tokenizer, train one"
                    " with the policy's."
                )

    @property
    def n_scored_tokens(self) -> int:
        """Tokens that were put through the model so far."""
        return self._n_scored_tokens + self.growing.n_tokens
