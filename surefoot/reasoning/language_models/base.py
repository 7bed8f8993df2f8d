"""A causal language model and its tokenizer, as every loop of the reasoning half uses them."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.language_models.check import choose_path, difference_by_kept_keys
from surefoot.reasoning.language_models.checkpointing import checkpoint_layers, switch_checkpointing_on
from surefoot.reasoning.language_models.forward import (
    hidden_states,
    score_hidden,
    score_pack,
    weighted_logprob_sum_of_pack,
)
from surefoot.reasoning.language_models.stops import configured_stops, end_of_turn
from surefoot.reasoning.sequences import KeysAndValues, Pack, TokenScores, register_packed_attention
from surefoot.storage.files import replacing
from surefoot.training.distributed import whole_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("LanguageModel", "LoRA")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters through peft.

    Args:
        rank: Rank of the adapters.
        alpha: Scale; the adapter's output is multiplied by alpha / rank.
        dropout: Dropout on the adapter's input.
        target_modules: Names of the layers that get an adapter; "all-linear" for every linear layer but the head. The
            head can be named where it does not share its matrix with the embedding.

    Raises:
        ConfigError: If alpha or dropout is out of range.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"LoRA: expected a finite alpha > 0 and dropout in [0, 1), got {self.alpha} and {self.dropout}."
            )


class LanguageModel(nn.Module):
    """A causal language model, its tokenizer, and what the loops ask of them."""

    #: Methods that run the model; where weights are sharded, they are gathered around each.
    forward_methods = ("hidden_states", "score", "weighted_logprob_sum")

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        check_forward: bool = True,
    ) -> None:
        """Initialize the language model.

        Args:
            model: Causal language model of transformers.
            tokenizer: Its tokenizer.
            lora: Train low-rank adapters instead of all weights.
            gradient_checkpointing: Recompute activations in the backward pass to save memory.
            check_forward: Compare a few log-probabilities with the model's own when it is built; off for models for
                which that takes too long.

        Raises:
            ConfigError: If the model's own log-probabilities are not met, or LoRA's layers do not exist or are tied.
        """
        super().__init__()
        register_packed_attention()
        if gradient_checkpointing:
            checkpoint_layers(model)
        self.lora = lora
        self.model: Any = _with_adapters(model, lora) if lora is not None else model
        if lora is not None and gradient_checkpointing:
            model.enable_input_require_grads()
        self.tokenizer = tokenizer
        self.path, self.checked = choose_path(self.base, check_forward), check_forward
        #: Whether kept keys and values change nothing; not known before somebody asks.
        self._kept_keys_agree: bool | None = None

    def training_mode(self, dropout: bool) -> None:
        """Put the model into the mode that it is trained in, whatever mode it arrived in.

        Args:
            dropout: Whether dropout acts, the model's own and that of adapters; gradient checkpointing works either
                way.
        """
        self.train(dropout)
        switch_checkpointing_on(self)

    @property
    def base(self) -> "PreTrainedModel":
        """The model of transformers, below any adapters."""
        base: PreTrainedModel = self.model.get_base_model() if self.lora is not None else self.model
        return base

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def eos_token_id(self) -> int:
        """The token that ends a text: the tokenizer's, or else the generation config's first.

        Raises:
            ConfigError: If there is none.
        """
        configured = configured_stops(self.base.generation_config)
        if self.tokenizer.eos_token_id is None and not configured:
            raise ConfigError("the tokenizer has no end-of-sequence token.")
        if self.tokenizer.eos_token_id is None:
            return configured[0]
        return int(self.tokenizer.eos_token_id)

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion under every engine, in ascending order.

        The tokenizer's end of sequence, those of the generation config, and the token with which the tokenizer's chat
        template ends an answer.
        """
        turn = end_of_turn(self.tokenizer)
        configured = configured_stops(self.base.generation_config)
        return tuple(sorted({self.eos_token_id, *configured, *turn[-1:]}))

    @property
    def context(self) -> int | None:
        """Most tokens of a sequence that the model was made for; none where its configuration names no limit."""
        limit = getattr(self.base.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.base.config.get_text_config().hidden_size)

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, without special tokens that the text does not contain."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)  # type: ignore[assignment]
        return text

    def hidden_states(self, pack: Pack, memory: KeysAndValues | None = None) -> Tensor:
        """Return the last hidden states of a pack's tokens, which the output head or a `ValueHead` reads.

        Args:
            pack: Packed sequences, on the model's device; `Pack.at_predictors` and `Pack.at_scored` choose rows.
            memory: Keys and values of the pack's first segments, which are then not put through the model; those of the
                others are added to it. Only for sequences that it `can_continue`.

        Returns:
            ``(tokens, width)``, without those of the segments that are known.

        Raises:
            DataError: If a sequence is longer than the model's context.
            ConfigError: If the model's logits do not follow from its hidden states, or it keeps no keys and values.
        """
        self._check_length(pack)
        return hidden_states(self.base, self.path, pack, memory)

    def score(self, pack: Pack, temperature: float = 1.0) -> TokenScores:
        """Return log-probabilities and entropies of a pack's scored tokens, ``(scored,)`` each.

        Args:
            pack: Packed sequences, on the model's device.
            temperature: Divides the logits, as in sampling.

        Raises:
            DataError: If a sequence is longer than the model's context.
        """
        self._check_length(pack)
        return score_pack(self.base, self.path, pack, temperature)

    def score_hidden(self, hidden: Tensor, pack: Pack, temperature: float = 1.0) -> TokenScores:
        """Return what `score` does, from hidden states that something else has read too.

        Args:
            hidden: `Pack.at_predictors` of `hidden_states`, ``(scored, width)``.
            pack: Packed sequences, on the model's device.
            temperature: Divides the logits, as in sampling.

        Raises:
            ConfigError: If the model's logits do not follow from its hidden states.
        """
        return score_hidden(self.base, self.path, hidden, pack, temperature)

    def weighted_logprob_sum(self, pack: Pack, token_weights: Tensor) -> Tensor:
        """Return the weighted sum of the scored tokens' log-probabilities, ``()``: the head is computed once less.

        Args:
            pack: Packed sequences, on the model's device.
            token_weights: Weight of each scored token ``(scored,)``, without gradient.

        Raises:
            DataError: If a sequence is longer than the model's context.
        """
        self._check_length(pack)
        return weighted_logprob_sum_of_pack(self.base, self.path, pack, token_weights)

    def can_continue(self, n_tokens: int) -> bool:
        """Return whether sequences of up to so many tokens follow from kept keys and values of what they begin with.

        It must be a model whose packs are scored at once, and whose positions do not depend on what is beside them.
        That hidden states are then the same is checked when it is first asked, and a warning says where they are not.
        """
        if self.path.head is None or not self.path.keeps(n_tokens):
            return False
        if self._kept_keys_agree is None:
            reason = difference_by_kept_keys(self.base, self.path) if self.checked else None
            self._kept_keys_agree = reason is None
            if reason is not None:
                warnings.warn(
                    f"{self.base.config.model_type} does not go on from kept keys and values ({reason}): beginnings are"
                    " computed again, which is right but slower.",
                    stacklevel=2,
                )
        return self._kept_keys_agree

    def _check_length(self, pack: Pack) -> None:
        longest, context = pack.longest, self.context
        if context is not None and longest > context:
            raise DataError(
                f"a sequence of {longest} tokens or more does not fit into the model's context of {context}: leave long"
                " examples out (SFT: max_sequence_tokens), or shorten prompts and completions."
            )

    def freeze_output_head(self) -> None:
        """Leave the output head untrained, where it shares no matrix with the embedding.

        For what reads hidden states only: the head would get no gradient, which ranks that train together refuse.
        """
        embedding = {id(p) for p in self.base.get_input_embeddings().parameters()}
        head: Any = self.base.get_output_embeddings()
        for parameter in head.parameters():
            if id(parameter) not in embedding:
                parameter.requires_grad_(False)

    def initial(self) -> "LanguageModel":
        """Return a copy of the model as it was built; to be asked for before a checkpoint's weights are loaded."""
        return copy.deepcopy(self)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's tensors under transformers' names, adapters merged, tied ones once.

        Raises:
            ConfigError: If an adapter adds to no tensor that is yielded.
        """
        seen: set[int] = set()
        if self.lora is None:
            for name, tensor in self.base.state_dict(keep_vars=True).items():
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield name, whole_tensor(tensor)
            return
        deltas = _adapter_deltas(self.base)
        for name, tensor in self.base.state_dict(keep_vars=True).items():
            if "lora_" in name or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            plain = name.replace(".base_layer", "")
            delta = deltas.pop(plain, None)
            whole = whole_tensor(tensor)
            yield plain, whole if delta is None else whole + whole_tensor(delta()).to(whole)
        if deltas:
            raise ConfigError(f"LoRA: the adapter on {min(deltas)} cannot be merged: leave it out.")

    def save(self, folder: Path, write: bool = True) -> None:
        """Write a folder that transformers and vLLM load: config, tokenizer, weights as safetensors.

        Args:
            folder: Where to; made if it does not exist.
            write: Whether this rank writes; where weights are sharded, all ranks have to call this.
        """
        from safetensors.torch import save_file

        weights = {n: t.to("cpu").contiguous() for n, t in self.named_weights()}
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as partial:
            save_file(weights, partial, metadata={"format": "pt"})
            self.save_description(folder)

    def save_description(self, folder: Path) -> None:
        """Write config and tokenizer without the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        base = self.base
        base.config.architectures = [type(base).__name__]
        base.config.save_pretrained(folder)
        if base.generation_config is not None:
            # As it came: `save_pretrained` refuses combinations that transformers itself loads and many models have.
            text = base.generation_config.to_json_string()
            (folder / "generation_config.json").write_text(text, encoding="utf-8")
        self.tokenizer.save_pretrained(folder)


def _with_adapters(model: "PreTrainedModel", lora: LoRA) -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"LoRA: {error}") from error
    ends: tuple[Any, Any] = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [getattr(end, "base_layer", end).weight for end in ends if end is not None]
    if len(weights) == 2 and weights[0] is weights[1] and any(isinstance(e, LoraLayer) for e in ends):
        raise ConfigError(
            f"LoRA: {model.config.model_type} shares one matrix between embedding and head, and an adapter on one of"
            " them cannot be merged: leave both out of target_modules."
        )
    return adapted


def _adapter_deltas(base: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Return, by the weight's name, the function that gives what an adapter adds to it, of the weight's shape."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {n: m for n, m in base.named_modules() if isinstance(m, LoraLayer)}
    return {
        # An adapter on a parameter, such as all experts' weights, names it; others are on their layer's weight.
        f"{name}.{getattr(layer, 'parameter_name', 'weight')}".replace(".base_layer", ""): partial(
            layer.get_delta_weight, "default"
        )
        for name, layer in layers.items()
    }
