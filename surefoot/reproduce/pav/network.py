"""The policy of the didactic task: masked autoregressive networks, several side by side."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from surefoot.training.seeds import derive_seed

__all__ = ("AutoregressiveNetworks",)


class AutoregressiveNetworks(nn.Module):
    """Several masked autoregressive networks (MADE): each gives the probabilities of all tokens of a sequence.

    A hidden unit of degree d reads the first d tokens and units of at most its degree; the output of a position reads
    units of lower degree. Units are sorted by degree, so that sampling computes every unit once, as soon as the tokens
    that it reads are there.

    Reference: Germain et al. 2015, arXiv 1502.03509.
    """

    def __init__(
        self, seeds: Sequence[int], length: int = 10, n_tokens: int = 15, widths: Sequence[int] = (128,) * 3
    ) -> None:
        """Initialize the networks.

        Args:
            seeds: Of each network's weights.
            length: Tokens of a sequence.
            n_tokens: Size of the vocabulary.
            widths: Hidden units of each layer.
        """
        super().__init__()
        self.length, self.n_tokens = length, n_tokens
        self.degrees = [torch.arange(length).repeat_interleave(n_tokens) + 1]
        self.degrees += [(torch.arange(width) * (length - 1)) // width + 1 for width in widths]
        self.degrees.append(torch.arange(length).repeat_interleave(n_tokens))
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (inputs, outputs) in enumerate(pairwise(self.degrees)):
            mask = (inputs[:, None] <= outputs).float()
            self.register_buffer(f"mask_{layer}", mask)
            bound = 1 / math.sqrt(len(inputs))
            drawn = [torch.Generator().manual_seed(derive_seed(seed, layer)) for seed in seeds]
            self.weights.append(_uniform((len(inputs), len(outputs)), bound, drawn))
            self.biases.append(_uniform((1, len(outputs)), bound, drawn))

    @property
    def n_networks(self) -> int:
        """Number of networks."""
        return len(self.weights[0])

    def forward(self, tokens: Int[Tensor, "networks batch length"]) -> Float[Tensor, "networks batch length tokens"]:
        """Return the log-probabilities of all tokens at every position, given those before it."""
        hidden = nn.functional.one_hot(tokens, self.n_tokens).flatten(2).float()
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            masked = weight * self.get_buffer(f"mask_{layer}")
            hidden = torch.baddbmm(bias, hidden if layer == 0 else hidden.relu(), masked)
        logits: Tensor = hidden.unflatten(2, (self.length, self.n_tokens))
        return logits.log_softmax(-1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Int[Tensor, "networks n length"]:
        """Return n sequences of each network."""
        shape = (self.n_networks, n)
        units = [torch.zeros(*shape, len(degrees)) for degrees in self.degrees[:-1]]
        tokens = torch.zeros(*shape, self.length, dtype=torch.long)
        for position in range(self.length):
            if position > 0:
                self._compute(units, position)
            known = int((self.degrees[-2] <= position).sum())
            own = slice(position * self.n_tokens, (position + 1) * self.n_tokens)
            logits = torch.baddbmm(self.biases[-1][..., own], units[-1][..., :known], self.weights[-1][:, :known, own])
            drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).view(shape)
            tokens[..., position] = drawn
            units[0][..., own] = nn.functional.one_hot(drawn, self.n_tokens).float()
        return tokens

    def _compute(self, units: list[Tensor], degree: int) -> None:
        """Fill in the hidden units of a degree."""
        for layer in range(1, len(units)):
            known = int((self.degrees[layer - 1] <= degree).sum())
            new = (self.degrees[layer] == degree).nonzero().squeeze(1)
            own = slice(int(new[0]), int(new[-1]) + 1) if len(new) else slice(0, 0)
            weight, bias = self.weights[layer - 1][:, :known, own], self.biases[layer - 1][..., own]
            units[layer][..., own] = torch.baddbmm(bias, units[layer - 1][..., :known], weight).relu()


def _uniform(shape: tuple[int, int], bound: float, generators: Sequence[torch.Generator]) -> nn.Parameter:
    """Return numbers in ``[-bound, bound]``, ``(generators, *shape)``."""
    return nn.Parameter(torch.stack([(2 * torch.rand(shape, generator=g) - 1) * bound for g in generators]))
