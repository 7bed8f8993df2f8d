"""Encoders, from inputs to features, and the classifier that puts a linear head on one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError, DataError
from surefoot.training.rebuilding import described_folder, weights_will_follow
from surefoot.training.weights import load_pretrained

__all__ = (
    "MLP",
    "CIFARResNet",
    "ChannelStatistics",
    "Classifier",
    "ConvNet",
    "Encoder",
    "Flatten",
    "SmallCNN",
    "TimmEncoder",
    "TransformersEncoder",
)


class Encoder(nn.Module, ABC):
    """A network from inputs to features ``(batch, n_features)``."""

    n_features: int

    @abstractmethod
    def forward(self, input: Any) -> Tensor:
        """Return the features of a batch, ``(batch, n_features)``."""


class Classifier(nn.Module):
    """An encoder and a linear head; one forward pass gives features and logits."""

    def __init__(self, encoder: Encoder, n_outputs: int) -> None:
        """Put a fresh head on an encoder.

        Args:
            encoder: From inputs to features.
            n_outputs: Number of logits.
        """
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.n_features, n_outputs)

    def forward(self, input: Any) -> tuple[Tensor, Tensor]:
        """Return logits ``(batch, n_outputs)`` and the features before the head ``(batch, n_features)``."""
        features = self.encoder(input)
        return self.head(features), features


class Flatten(Encoder):
    """No encoder: the flattened input, so that the classifier is linear."""

    def __init__(self, n_inputs: int) -> None:
        """Initialize the encoder.

        Args:
            n_inputs: Numbers in one input.
        """
        super().__init__()
        self.n_features = n_inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the input as one vector per example."""
        return input.flatten(1)


class ChannelStatistics(Encoder):
    """Mean and standard deviation of each channel: what an adversary sees that may only look at colour."""

    def __init__(self, in_channels: int = 3) -> None:
        """Initialize the encoder.

        Args:
            in_channels: Channels of the images.
        """
        super().__init__()
        self.n_features = 2 * in_channels

    def forward(self, input: Tensor) -> Tensor:
        """Return means and standard deviations, ``(batch, 2 * channels)``."""
        pixels = input.flatten(2)
        return torch.cat([pixels.mean(2), pixels.std(2)], dim=1)


class MLP(Encoder):
    """A multilayer perceptron on the flattened input."""

    def __init__(self, n_inputs: int, widths: Sequence[int] = (64, 64)) -> None:
        """Initialize the encoder.

        Args:
            n_inputs: Numbers in one input.
            widths: Units of each layer; the last is the number of features.

        Raises:
            ConfigError: If no width is given.
        """
        super().__init__()
        if not widths:
            raise ConfigError("widths must hold at least one number, got none; a linear model is `Flatten`.")
        sizes = [n_inputs, *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.n_features = sizes[-1]

    def forward(self, input: Tensor) -> Tensor:
        """Return the last layer's activations."""
        features: Tensor = self.layers(input)
        return features


class SmallCNN(Encoder):
    """Two or more convolutions with stride 2 and average pooling, for images of 8 to 64 pixels."""

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (16, 32)) -> None:
        """Initialize the encoder.

        Args:
            in_channels: Channels of the images.
            widths: Channels after each convolution; the last is the number of features.

        Raises:
            ConfigError: If no width is given.
        """
        super().__init__()
        if not widths:
            raise ConfigError("widths must hold at least one number, got none.")
        sizes = [in_channels, *widths]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.n_features = sizes[-1]

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled channels of the last convolution."""
        features: Tensor = self.layers(input)
        return features


class ConvNet(Encoder):
    """Convolutions without stride or padding, one max pooling and a hidden layer: PyTorch's MNIST example."""

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (32, 64),
        n_hidden: int = 128,
        batch_norm: bool = False,
        bias: bool = True,
    ) -> None:
        """Initialize the encoder.

        Args:
            in_channels: Channels of the images.
            image_size: Height and width of the images, pixels.
            widths: Channels after each convolution.
            n_hidden: Units of the hidden layer, which are the features.
            batch_norm: Whether to normalise before each ReLU.
            bias: Whether convolutions and hidden layer have biases.

        Raises:
            ConfigError: If no width is given or the images are too small.
        """
        super().__init__()
        side = (image_size - 2 * len(widths)) // 2
        if not widths or side < 1:
            raise ConfigError(
                f"ConvNet needs a convolution and images above {2 * len(widths) + 1} pixels,"
                f" got widths {list(widths)} and image_size {image_size}."
            )
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([in_channels, *widths]):
            layers.append(nn.Conv2d(n_in, n_out, 3, bias=bias))
            layers += [nn.BatchNorm2d(n_out)] * batch_norm + [nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Flatten()]
        layers.append(nn.Linear(widths[-1] * side**2, n_hidden, bias=bias))
        layers += [nn.BatchNorm1d(n_hidden)] * batch_norm + [nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.n_features = n_hidden

    def forward(self, input: Tensor) -> Tensor:
        """Return the hidden layer's activations."""
        features: Tensor = self.layers(input)
        return features


class _CIFARBlock(nn.Module):
    """Two convolutions and a way around them without parameters (option A: zeros for new channels)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.stride, self.new_channels = stride, n_out - n_in

    def forward(self, input: Tensor) -> Tensor:
        around = input[:, :, :: self.stride, :: self.stride]
        half = self.new_channels // 2
        around = nn.functional.pad(around, (0, 0, 0, 0, half, self.new_channels - half))
        hidden = self.norm1(self.conv1(input)).relu()
        summed: Tensor = self.norm2(self.conv2(hidden)) + around
        return summed.relu()


class CIFARResNet(Encoder):
    """Residual networks for images of 32 pixels, of depth 6n + 2; 20 layers and widths 16, 32, 64 by default.

    Reference: He et al., CVPR 2016, arXiv 1512.03385, section 4.2.
    """

    def __init__(self, depth: int = 20, width: int = 16, in_channels: int = 3) -> None:
        """Initialize the encoder.

        Args:
            depth: Layers, 6n + 2.
            width: Channels of the first stage.
            in_channels: Channels of the images.

        Raises:
            ConfigError: If the depth is not of that form.
        """
        super().__init__()
        n_blocks, rest = divmod(depth - 2, 6)
        if n_blocks < 1 or rest:
            raise ConfigError(f"depth must be 6n + 2, such as 20, 32 or 56, got {depth}.")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        sizes = [width, width, 2 * width, 4 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    *(_CIFARBlock(n_out if b else n_in, n_out, 1 if b or n_in == n_out else 2) for b in range(n_blocks))
                )
                for n_in, n_out in pairwise(sizes)
            )
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        self.n_features = 4 * width

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled features of the last stage."""
        maps: Tensor = self.stages(self.stem(input))
        return maps.mean((2, 3))


def _probe(network: nn.Module, example: Any) -> Tensor:
    """Return a network's output for an example in evaluation mode; statistics and random state do not change."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features: Tensor = network(example)
    finally:
        network.train(training)
    return features


class TimmEncoder(Encoder):
    """Any image model of timm, without its classifier.

    The number of features is that of a forward pass: `num_features` of timm is another width in families with a layer
    between pooling and classifier (mobilenetv3, vgg, hgnetv2 and others).
    """

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
        import timm

        if name not in timm.list_models() and name.split(".")[0] not in timm.list_models():
            raise ConfigError(f"timm has no model {name!r}; timm.list_models('*{name[:4]}*') lists similar names.")
        given = dict(arguments or {})
        loads = pretrained and not weights_will_follow()
        passed = {k: v for k, v in given.items() if k != "checkpoint_path" or not weights_will_follow()}
        try:
            self.body = timm.create_model(name, pretrained=loads, in_chans=in_channels, num_classes=0, **passed)
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
        self.name, self.pretrained = name, pretrained or "checkpoint_path" in given
        self.image_shape = (in_channels, *_image_size(self.body, given))
        example = next(self.body.parameters()).new_zeros(1, *self.image_shape)
        try:
            features = _probe(self.body, example)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"{name} with arguments {given} cannot take images of its own shape,"
                f" {'x'.join(map(str, self.image_shape))}: {_first_line(error)}"
            ) from error
        if features.ndim != 2:
            shape = ", ".join(str(n) for n in features.shape[1:])
            raise ConfigError(
                f"{name} with arguments {given} returns (batch, {shape}), and an encoder returns one vector per image:"
                " choose a global_pool that gives one."
            )
        self.n_features = features.shape[1]

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled features.

        Raises:
            ConfigError: If the model does not take images of this size or number of channels.
        """
        try:
            features: Tensor = self.body(input)
        except (AssertionError, RuntimeError, ValueError) as error:
            if tuple(input.shape[1:]) == self.image_shape or isinstance(error, torch.OutOfMemoryError):
                raise  # the shape is not to blame
            given, own = ("x".join(map(str, s)) for s in (input.shape[1:], self.image_shape))
            raise ConfigError(
                f"{self.name} is made for images of {own} and cannot take {given} ({_first_line(error)}): set the"
                " datamodule's image_size, or the encoder's in_channels and arguments (img_size for a transformer)."
            ) from error
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


class TransformersEncoder(Encoder):
    """Any text encoder of transformers; the features are the first token's last hidden state."""

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

    def forward(self, input: Mapping[str, Tensor]) -> Tensor:
        """Return the first token's last hidden state from ``input_ids`` and ``attention_mask``, ``(batch, seq)``."""
        hidden: Tensor = self.body(**input).last_hidden_state
        return hidden[:, 0]
