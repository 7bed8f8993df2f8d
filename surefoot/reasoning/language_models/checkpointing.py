"""Gradient checkpointing that does not depend on whether dropout is on."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from surefoot.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ("checkpoint_layers", "switch_checkpointing_on")


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Make every layer of a model recompute its activations in the backward pass, once it is switched on.

    Transformers checkpoints a layer where the layer's own flag ``training`` is set, which also decides on dropout
    inside the layer. Here the flag is only the switch: while the layer runs, it has the mode of its children.

    Raises:
        ConfigError: If the model has no layer that can be recomputed.
    """
    layers = _layers(model)
    if not model.supports_gradient_checkpointing or not layers:
        raise ConfigError(f"{type(model).__name__} cannot recompute activations: set gradient_checkpointing to false.")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer._gradient_checkpointing_func = partial(_recomputed, layer)


def switch_checkpointing_on(module: nn.Module) -> None:
    """Let the layers of `checkpoint_layers` recompute from now on; `nn.Module.eval` switches it off."""
    for layer in _layers(module):
        layer.training |= layer.gradient_checkpointing


def _layers(module: nn.Module) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]


def _recomputed(layer: nn.Module, function: Callable[..., object], *arguments: object) -> object:
    """Call a layer's function under checkpointing, in the mode of the layer's children both times."""

    def run(*arguments: object) -> object:
        layer.training = next(layer.children()).training
        try:
            return function(*arguments)
        finally:
            layer.training = True

    return checkpoint(run, *arguments, use_reentrant=False)
