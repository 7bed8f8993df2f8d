"""Values by a public language model that says + or - after a step, as Math-Shepherd's does."""

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel
from surefoot.reasoning.values.step_scorer import PackedStepScorer, scorer_folder, scorer_tokenizer
from surefoot.reasoning.values.step_texts import StepLayout, single_token

__all__ = ("StepTagHead", "StepTagValues")

#: As Math-Shepherd's scorer was trained.
_LAYOUT = StepLayout(token="ки", step="{step} ки\n", template="{question} ")


class StepTagValues(PackedStepScorer):
    """Takes the probability of "+" against "-" as the token after a step's tag.

    Reference: Wang et al. 2024, arXiv 2312.08935 (Math-Shepherd).
    """

    def __init__(
        self,
        folder: Path,
        layout: StepLayout | None = None,
        good: str = "+",
        bad: str = "-",
        prompt_value: float = 1.0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        max_tokens_per_pack: int = 8192,
    ) -> None:
        """Load the scorer; code that comes with it is not run.

        Args:
            folder: The scorer: a causal language model's config.json, tokenizer and safetensors.
            layout: How problem and steps are put to it; by default as to Math-Shepherd's.
            good: What it says after a right step, one token.
            bad: What it says after a wrong one.
            prompt_value: Value before the first step, which the scorer does not judge: nothing is wrong yet.
            dtype: Precision of the weights.
            max_tokens_per_pack: Most tokens that are put through the model at once.

        Raises:
            ConfigError: If a setting does not fit the scorer.
            DataError: If the folder holds no language model.
        """
        path = scorer_folder(folder)
        super().__init__(scorer_tokenizer(path), layout or _LAYOUT, prompt_value)
        self.model = PretrainedLanguageModel(str(path), dtype).requires_grad_(False)
        self.head = StepTagHead(self.model, *(single_token(self.tokenizer, text) for text in (good, bad)))
        self.max_tokens_per_pack = max_tokens_per_pack


class StepTagHead(nn.Module):
    """The difference of two tokens' logits, from last hidden states, in float32."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, model: LanguageModel, good: int, bad: int) -> None:
        """Copy the two tokens' rows of a model's output head.

        Args:
            model: The model.
            good: Id of the token that speaks for a step.
            bad: Id of the other one.

        Raises:
            ConfigError: If the model's logits do not follow from its hidden states by a matrix.
        """
        super().__init__()
        head: Any = model.base.get_output_embeddings()
        if model.path.head is None or not isinstance(getattr(head, "weight", None), Tensor):
            raise ConfigError(f"{model.base.config.model_type} has no output head that single tokens can be read from.")
        bias = getattr(head, "bias", None)
        self.after = model.path.head
        self.register_buffer("weight", head.weight[[good, bad]].float())
        self.register_buffer("bias", None if bias is None else bias[[good, bad]].float())

    def forward(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, " tokens"]:
        """Return the difference for each hidden state."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits = nn.functional.linear(hidden.float() * self.after.before, self.weight, self.bias) * self.after.scale
            if self.after.softcap is not None:
                logits = self.after.softcap * torch.tanh(logits / self.after.softcap)
        return logits[:, 0] - logits[:, 1]
