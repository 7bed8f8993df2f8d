"""Encoders of timm and transformers, with a vector per token where the network has tokens."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.classification.token_encoder import Replacement, TokenEncoder, Tokens, replacing
from surefoot.errors import ConfigError, DataError
from surefoot.training.rebuilding import described_folder, weights_will_follow
from surefoot.training.weights import load_pretrained

__all__ = ("TimmEncoder", "TransformersEncoder")


def _probe(network: nn.Module, example: object, call: Callable[[Any], object] | None = None) -> Any:
    """Return a network's output for an example in evaluation mode; statistics and random state do not change.

    Args:
        network: The network.
        example: What it is given.
        call: What of it is called; the network itself by default.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return (call or network)(example)
    finally:
        network.train(training)


def _create_timm(name: str, pretrained: bool, in_channels: int, given: Mapping[str, Any]) -> Any:
    """Return a model of timm without its classifier.

    Raises:
        ConfigError: If timm has no model of that name, or does not take the arguments.
        DataError: If the pretrained weights cannot be loaded.
    """
    import timm

    if name not in timm.list_models() and name.split(".")[0] not in timm.list_models():
        raise ConfigError(f"timm has no model {name!r}; timm.list_models('*{name[:4]}*') lists similar names.")
    loads = pretrained and not weights_will_follow()
    passed = {k: v for k, v in given.items() if k != "checkpoint_path" or not weights_will_follow()}
    try:
        return timm.create_model(name, pretrained=loads, in_chans=in_channels, num_classes=0, **passed)
    except OSError as error:
        raise DataError(
            f"the pretrained weights of {name} are not in the cache of the hub and cannot be fetched"
            f" ({_first_line(error)}): fetch them where there is a network, name a file in arguments"
            " (pretrained_cfg_overlay: {file: ...}), or set pretrained to false."
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError) as error:
        raise ConfigError(
            f"timm cannot make {name} with pretrained={pretrained} and arguments {given}: {_first_line(error)}"
        ) from error


class TimmEncoder(TokenEncoder):
    """Any image model of timm, without its classifier; transformers have tokens, one a patch.

    The number of features is that of a forward pass: `num_features` of timm is another width in families with a layer
    between pooling and classifier (mobilenetv3, vgg, hgnetv2 and others).
    """

    body: Any  # a model of timm

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        in_channels: int = 3,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Initialize the encoder.

        Args:
            name: Model name, as ``timm.list_models()`` gives it, for example ``resnet50``.
            pretrained: Whether to load pretrained weights, from timm's cache or from the hub.
            in_channels: Channels of the images.
            arguments: Further arguments of ``timm.create_model``; ``img_size`` for transformers on images of another
                size.

        Raises:
            ConfigError: If timm has no model of that name, does not take the arguments, or makes no vector per image.
            DataError: If the pretrained weights cannot be loaded.
        """
        super().__init__()
        given = dict(arguments or {})
        self.body = _create_timm(name, pretrained, in_channels, given)
        self.name, self.pretrained = name, pretrained or "checkpoint_path" in given
        self.image_shape = (in_channels, *_image_size(self.body, given))
        self.n_features = self._measured_width(given)

    def _measured_width(self, given: Mapping[str, Any]) -> int:
        """Return the number of features of a forward pass.

        Raises:
            ConfigError: If the model does not take images of its own shape, or makes no vector per image.
        """
        example = next(self.body.parameters()).new_zeros(1, *self.image_shape)
        try:
            features = _probe(self.body, example)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{self.name} with arguments {given} cannot take images of its own shape,"
                f" {'x'.join(map(str, self.image_shape))}: {_first_line(error)}"
            ) from error
        if features.ndim != 2:
            shape = ", ".join(str(n) for n in features.shape[1:])
            raise ConfigError(
                f"{self.name} with arguments {given} returns (batch, {shape}), and an encoder returns one vector per"
                " image: choose a global_pool that gives one."
            )
        return int(features.shape[1])

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled features.

        Raises:
            ConfigError: If the model does not take images of this size or number of channels.
        """
        return self._guarded(self.body, input)

    def _guarded(self, call: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
        try:
            return call(input)
        except (AssertionError, RuntimeError, ValueError) as error:
            own_shape = tuple(input.shape[1:]) == self.image_shape
            if own_shape or isinstance(error, torch.OutOfMemoryError) or self._takes(call, input):
                raise  # the shape is not to blame, but a training batch of one, for example
            given, own = ("x".join(map(str, s)) for s in (input.shape[1:], self.image_shape))
            raise ConfigError(
                f"{self.name} is made for images of {own} and cannot take {given} ({_first_line(error)}): set the"
                " datamodule's image_size, or the encoder's in_channels and arguments (img_size for a transformer)."
            ) from error

    def _takes(self, call: Callable[[Tensor], Tensor], input: Tensor) -> bool:
        """Return whether images of this shape pass in evaluation mode."""
        try:
            _probe(self.body, input[:1].detach(), call)
        except (AssertionError, RuntimeError, ValueError):
            return False
        return True

    @property
    def width(self) -> int:
        """Length of a patch's vector.

        Raises:
            ConfigError: If the model is no transformer of patches.
        """
        return self._token_widths[0]

    @property
    def embedding_width(self) -> int:
        """Length of a patch's embedding."""
        return self._token_widths[1]

    @property
    def n_prefix_tokens(self) -> int:
        """Class and register tokens, which come before the patches."""
        return int(getattr(self.body, "num_prefix_tokens", 0))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, of images of `image_shape`; patches follow each other row by row."""
        rows, columns = self._patch_embedding.grid_size
        return int(rows), int(columns)

    @property
    def _patch_embedding(self) -> Any:
        embedding = getattr(self.body, "patch_embed", None)
        if not isinstance(embedding, nn.Module):
            raise ConfigError(self._no_tokens("it embeds no patches"))
        return embedding

    @cached_property
    def _token_widths(self) -> tuple[int, int]:
        """Widths of a patch's last hidden state and of its embedding."""
        embedded: list[Tensor] = []
        handle = self._patch_embedding.register_forward_hook(lambda module, given, output: embedded.append(output))
        example = next(self.body.parameters()).new_zeros(1, *self.image_shape)
        try:
            hidden = _probe(self.body, example, self.body.forward_features)
        finally:
            handle.remove()
        rows, columns = getattr(self._patch_embedding, "grid_size", None) or (0, 0)
        n_tokens = self.n_prefix_tokens + rows * columns
        if not isinstance(hidden, Tensor) or hidden.ndim != 3 or hidden.shape[1] != n_tokens:
            shape = tuple(hidden.shape[1:]) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise ConfigError(self._no_tokens(f"its last hidden states are {shape}, not one a patch"))
        return hidden.shape[2], embedded[0].shape[-1]

    def _no_tokens(self, reason: str) -> str:
        return (
            f"{self.name} has no tokens: {reason}. Choose a transformer of timm that keeps its patches, such as"
            " vit_small_patch16_224, or TransformersEncoder for texts."
        )

    def tokens(self, input: Tensor, replaced: Replacement | None = None) -> Tokens:
        """Return the last hidden states of images' patches, after those of `n_prefix_tokens`; all count."""
        width = self.width  # refuses a model without tokens
        with replacing(self._patch_embedding, replaced):
            hidden: Tensor = self._guarded(self.body.forward_features, input)
        assert hidden.shape[-1] == width
        return Tokens(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device))

    def pool(self, tokens: Tokens) -> Tensor:
        """Return the features that the model pools: the class token's, or a mean over the patches."""
        features: Tensor = self.body.forward_head(tokens.features)
        return features


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _image_size(body: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width that a timm model is made for, pixels."""
    size = arguments.get("img_size")
    if size is None:
        config: Mapping[str, Any] = getattr(body, "pretrained_cfg", {})
        size = config.get("input_size", (3, 224, 224))[1:]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class TransformersEncoder(TokenEncoder):
    """Any text encoder of transformers; the features are the first token's last hidden state."""

    body: Any  # a model of transformers

    def __init__(self, name: str, pretrained: bool = True, config: Mapping[str, Any] | None = None) -> None:
        """Initialize the encoder.

        Args:
            name: Hub name or folder; with ``pretrained=False`` a model type such as ``distilbert`` will do.
            pretrained: Whether to load weights; otherwise the network starts at random.
            config: Changes to the model's configuration.

        Raises:
            ConfigError: If the model is no text encoder, or does not take the changes.
        """
        super().__init__()
        from transformers import AutoConfig, AutoModel
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        self.pretrained = pretrained
        expected, changes = "the hub name or the folder of a text encoder", dict(config or {})
        self.source = f"TransformersEncoder {name} {sorted(changes.items())}"
        with described_folder(self.source) as folder:
            if pretrained and not (folder and weights_will_follow()):
                self.body = load_pretrained(AutoModel, name, expected, **changes)
            else:
                try:
                    described = (
                        AutoConfig.for_model(name, **changes)
                        if name in CONFIG_MAPPING and folder is None
                        else load_pretrained(AutoConfig, folder or name, expected, **changes)
                    )
                    self.body = AutoModel.from_config(described, trust_remote_code=False)
                except (ValueError, TypeError, AttributeError) as error:
                    if isinstance(error, DataError):
                        raise
                    raise ConfigError(
                        f"{name} cannot be made with the changes {changes}: {_first_line(error)}"
                    ) from error
        self.body.train()  # from_pretrained returns it in evaluation mode, where dropout would never act
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.body.device)
        try:
            features = _probe(self, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{name} is no text encoder: it does not turn input_ids and attention_mask into hidden states"
                f" ({_first_line(error)})."
            ) from error
        self.n_features = features.shape[1]

    def save_description(self, folder: Path) -> None:
        """Write the configuration."""
        self.body.config.save_pretrained(folder)

    @property
    def width(self) -> int:
        """Length of a token's vector."""
        return self.n_features

    @property
    def embedding_width(self) -> int:
        """Length of a token's embedding."""
        return int(self.embeddings.embedding_dim)

    @property
    def n_prefix_tokens(self) -> int:
        """None: a text's first token is in its input."""
        return 0

    @property
    def embeddings(self) -> nn.Embedding:
        """A vector per token id, ``(vocabulary, embedding_width)``, to which a language model's head may be tied."""
        embeddings: nn.Embedding = self.body.get_input_embeddings()
        return embeddings

    def tokens(self, input: Mapping[str, Tensor], replaced: Replacement | None = None) -> Tokens:
        """Return the last hidden states of ``input_ids`` and ``attention_mask``, ``(batch, seq)``."""
        with replacing(self.embeddings, replaced):
            hidden: Tensor = self.body(**input).last_hidden_state
        return Tokens(hidden, input["attention_mask"].bool())

    def pool(self, tokens: Tokens) -> Tensor:
        """Return the first token's last hidden state."""
        return tokens.features[:, 0]

    def forward(self, input: Mapping[str, Tensor]) -> Tensor:
        """Return the first token's last hidden state from ``input_ids`` and ``attention_mask``, ``(batch, seq)``."""
        return self.pool(self.tokens(input))
