"""Small encoders, from inputs to features, and the classifier that puts a linear head on one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import ConfigError

__all__ = (
    "MLP",
    "CIFARResNet",
    "ChannelStatistics",
    "Classifier",
    "ConvNet",
    "Encoder",
    "Flatten",
    "SmallCNN",
)


class Encoder(nn.Module, ABC):
    """A network from inputs to features ``(batch, n_features)``."""

    n_features: int
    #: Whether it began with weights that were trained on other data.
    pretrained: bool = False

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

    def forward(self, input: object) -> tuple[Tensor, Tensor]:
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
