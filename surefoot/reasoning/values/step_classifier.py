"""Values by a public classifier of steps, in the layout of Qwen2.5-Math-PRM or as transformers saves classifiers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.errors import DataError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.language_models.base import DTYPES
from surefoot.reasoning.values.step_scorer import PackedStepScorer, scorer_folder, scorer_tokenizer
from surefoot.reasoning.values.step_texts import StepLayout
from surefoot.training.weights import load_pretrained

__all__ = ("StepClassifierHead", "StepClassifierValues", "read_step_classifier_head")

#: Tensors of a head, in the order of its layers.
_LAYOUTS = (
    ("score.weight",),
    ("score.weight", "score.bias"),
    ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias"),
)
_EXPECTED = "a causal backbone with a head of two labels, score.weight or score.0 and score.2, in *.safetensors"


class StepClassifierValues(PackedStepScorer):
    """Takes the probability of the label "good" at the token that closes a step.

    The head is computed in float32.

    Reference: Zhang et al. 2025, arXiv 2501.07301 (Qwen2.5-Math-PRM).
    """

    def __init__(
        self,
        folder: Path,
        layout: StepLayout | None = None,
        good_label: Literal[0, 1] = 1,
        prompt_value: float = 1.0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        max_tokens_per_pack: int = 8192,
    ) -> None:
        """Load the scorer; code that comes with it is not run.

        Args:
            folder: The scorer: config.json, a tokenizer and safetensors, as transformers saves
                Qwen2ForTokenClassification or Qwen2ForSequenceClassification, or as Qwen2.5-Math-PRM is published.
            layout: How problem and steps are put to it; by default as to Qwen2.5-Math-PRM.
            good_label: Which of the two labels means that a step is right.
            prompt_value: Value before the first step, which the scorer does not judge: nothing is wrong yet.
            dtype: Precision of the backbone's weights.
            max_tokens_per_pack: Most tokens that are put through the model at once.

        Raises:
            ConfigError: If a setting does not fit the scorer.
            DataError: If the folder holds no such scorer.
        """
        path = scorer_folder(folder)
        super().__init__(scorer_tokenizer(path), layout or StepLayout(), prompt_value)
        self.head = read_step_classifier_head(path, good_label).requires_grad_(False)
        self.model = _backbone(path, self.tokenizer, dtype).requires_grad_(False)
        if self.head.width != self.model.width:
            raise DataError(f"{path}: the head reads {self.head.width} numbers, the backbone has {self.model.width}.")
        self.max_tokens_per_pack = max_tokens_per_pack


class StepClassifierHead(nn.Module):
    """The logit of the label "good" against the other one, from last hidden states, in float32."""

    def __init__(self, layers: Sequence[nn.Linear], good_label: Literal[0, 1]) -> None:
        """Initialize the head.

        Args:
            layers: Linear maps, with rectified units between them; the last one has two outputs.
            good_label: Which of them means "good".
        """
        super().__init__()
        self.layers, self.good_label = nn.ModuleList(layers), good_label
        self.width = layers[0].in_features

    def forward(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, " tokens"]:
        """Return the logit of each hidden state."""
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.float()
            for i, layer in enumerate(self.layers):
                x = layer(x if i == 0 else x.relu())
        return x[:, self.good_label] - x[:, 1 - self.good_label]


def read_step_classifier_head(folder: Path, good_label: Literal[0, 1]) -> StepClassifierHead:
    """Return the head that a scorer's folder holds.

    Args:
        folder: With safetensors.
        good_label: Which of its two labels means "good".

    Raises:
        DataError: If there is no such head, or it has other than two labels.
    """
    tensors = _tensors(folder, "score.")
    names = next((names for names in _LAYOUTS if set(names) == set(tensors)), None)
    if names is None:
        raise DataError(f"{folder} has the head {sorted(tensors) or 'of no classifier'}: expected {_EXPECTED}.")
    layers: list[nn.Linear] = []
    for name in (n for n in names if n.endswith("weight")):
        weight, bias = tensors[name], tensors.get(name.replace("weight", "bias"))
        if weight.dim() != 2 or (layers and weight.shape[1] != layers[-1].out_features):
            raise DataError(f"{folder}: {name} of the shape {list(weight.shape)} fits no head.")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        try:
            layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        except RuntimeError as error:
            raise DataError(f"{folder}: {name} and its bias do not fit: {' '.join(str(error).split())}.") from error
        layers.append(layer)
    if layers[-1].out_features != 2:
        raise DataError(f"{folder}: the head has {layers[-1].out_features} labels: expected two, bad and good.")
    return StepClassifierHead(layers, good_label)


def _tensors(folder: Path, beginning: str) -> dict[str, Tensor]:
    """Return the tensors of a folder's safetensors whose names begin so, in float32."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= {n: tensors.get_tensor(n).float() for n in tensors.keys() if n.startswith(beginning)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    return found


def _backbone(folder: Path, tokenizer: Any, dtype: str) -> LanguageModel:
    """Return a classifier's backbone as a language model, whose output head, the embedding, nothing reads.

    Raises:
        DataError: If it is no causal model of transformers', or weights are missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    config = load_pretrained(AutoConfig, str(folder), _EXPECTED)
    config.tie_word_embeddings = True
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the head as unexpected
    try:
        model, info = load_pretrained(
            AutoModelForCausalLM,
            str(folder),
            _EXPECTED,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(level)
    head = {n for n, m in model.named_modules() if m is model.get_output_embeddings()}
    others = [n for n in info["unexpected_keys"] if not n.startswith("score.")]
    missing, unknown = (
        sorted(n for n in names if n.rpartition(".")[0] not in head) for names in (info["missing_keys"], others)
    )
    if missing or unknown:
        raise DataError(
            f"{folder}: the backbone lacks the tensors {missing[:3]} and does not know {unknown[:3]}: expected"
            f" {_EXPECTED}."
        )
    return LanguageModel(model, tokenizer)
