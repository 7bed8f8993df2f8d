"""What an encoder with a vector per token offers: to a classifier its features, to a pretext task its tokens."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from surefoot.classification.networks import Encoder

__all__ = ("Replacement", "TokenEncoder", "Tokens", "replacing")


class Tokens(NamedTuple):
    """Last hidden states of a batch, one a token."""

    features: Tensor  # (batch, tokens, width)
    mask: Tensor  # True where a token counts, not padding, (batch, tokens)


class Replacement(NamedTuple):
    """What some tokens' embeddings are replaced with before positions are added, as a mask token's."""

    mask: Tensor  # True where replaced, (batch, tokens of the input), padding included
    embedding: Tensor  # with gradient, (embedding_width,)


class TokenEncoder(Encoder, ABC):
    """An encoder with a vector per token, a piece of a text or a patch of an image, from which the features are pooled.

    The same network serves a classifier (`forward`) and a task on its tokens, such as masked language modelling (masked
    ids in, ``tokens`` out) or masked image modelling (``replaced`` patches).
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of a token's vector.

        Raises:
            ConfigError: If the network has no tokens.
        """

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """Length of a token's embedding, which a `Replacement` has."""

    @property
    @abstractmethod
    def n_prefix_tokens(self) -> int:
        """Tokens before those of the input, such as an image's class token."""

    @abstractmethod
    def tokens(self, input: Any, replaced: Replacement | None = None) -> Tokens:
        """Return the last hidden states of a batch.

        Args:
            input: What `forward` takes.
            replaced: Tokens of the input whose embeddings are replaced.
        """

    @abstractmethod
    def pool(self, tokens: Tokens) -> Tensor:
        """Return the features, ``(batch, n_features)``, which `forward` returns of the same input."""


@contextmanager
def replacing(embedder: nn.Module, replaced: Replacement | None) -> Iterator[None]:
    """Replace some of what a module embeds, ``(batch, ..., embedding_width)``.

    Raises:
        ValueError: If the mask does not have one value per token.
    """

    def replace(module: nn.Module, given: object, embedded: Tensor) -> Tensor:
        assert replaced is not None
        n_batch, width = embedded.shape[0], embedded.shape[-1]
        expected = ((n_batch, embedded.numel() // (n_batch * width)), (width,))
        given_shapes = (tuple(replaced.mask.shape), tuple(replaced.embedding.shape))
        if given_shapes != expected:
            raise ValueError(
                f"a replacement needs a mask {expected[0]} and an embedding {expected[1]}, got {given_shapes[0]} and"
                f" {given_shapes[1]}."
            )
        mask = replaced.mask.reshape(*embedded.shape[:-1], 1)
        return torch.where(mask, replaced.embedding.to(embedded.dtype), embedded)

    if replaced is None:
        yield
        return
    handle = embedder.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
