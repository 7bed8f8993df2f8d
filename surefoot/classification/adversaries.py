"""BR-DRO's adversaries: from an observation and a label to a weight in [0, 1], at a cost.

Each one bounds how finely examples can be distinguished. A new one is one class here or anywhere on the path.

Reference: Setlur et al., ICLR 2023, arXiv 2302.02931, sections 3 and 5.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.training.seeds import numbered_seed

__all__ = (
    "Adversary",
    "ConstantAdversary",
    "LinearAdversary",
    "MLPAdversary",
    "UnrestrictedAdversary",
    "VIBAdversary",
    "gaussian_bits",
    "select_label",
    "standardise",
)

Norm = Literal["l1", "l2"]


def select_label(per_label: Float[Tensor, "batch labels"], target: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Pick each row's entry of its label, ``(batch,)``."""
    return per_label.gather(1, target[:, None])[:, 0]


def standardise(
    observation: Float[Tensor, "batch features"],
) -> Float[Tensor, "batch features"]:
    """Return the batch's features at mean zero and variance one; constant ones and a batch of one become zero."""
    centred = observation - observation.mean(0)
    return centred / (centred.square().mean(0) + 1e-8).sqrt()


def gaussian_bits(mean: Float[Tensor, "batch code"], scale: Float[Tensor, "batch code"]) -> Float[Tensor, ""]:
    """Return the mean over the batch of KL(N(mean, scale^2) || N(0, I)), in nats (0.693 nats are one bit)."""
    return 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(1).mean()


def _norm(parameters: list[Tensor], norm: Norm) -> Tensor:
    """Return the sum of absolute values or of squares."""
    terms = [p.abs().sum() if norm == "l1" else p.square().sum() for p in parameters]
    return torch.stack(terms).sum()


class Adversary(nn.Module, ABC):
    """Chooses the weight of an example from what it observes of it and from its label."""

    temperature: float = 1.0

    @abstractmethod
    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return logits of the weights, ``(batch,)``, from ``(batch, features)`` and labels ``(batch,)``."""

    @abstractmethod
    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return what the penalty multiplies: a norm of the parameters, or nats."""

    def respond(self, observation: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> Tensor:
        """Return weights in [0, 1], ``(batch,)``; only an unrestricted adversary looks at the losses."""
        logits: Tensor = self(observation, target)
        return (self.temperature * logits).sigmoid()


class ConstantAdversary(Adversary):
    """The same weight for every example: BR-DRO becomes ERM."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        """Initialize the adversary.

        Args:
            n_features: Ignored.
            n_classes: Ignored.
        """
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the one logit for every example."""
        return self.logit.expand(len(target))

    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(self.logit)


class UnrestrictedAdversary(Adversary):
    """The best response over all weights in [0, 1]: BR-DRO becomes CVaR-DRO."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        """Initialize the adversary.

        Args:
            n_features: Ignored.
            n_classes: Ignored.
        """
        super().__init__()

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return zero logits; the response comes from the losses alone."""
        return torch.zeros(len(target), device=target.device)

    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros((), device=target.device)

    def respond(self, observation: Tensor, target: Tensor, losses: Tensor, threshold: Tensor) -> Tensor:
        """Return one where the loss exceeds the threshold, zero elsewhere."""
        return (losses > threshold).to(losses.dtype)


class LinearAdversary(Adversary):
    """One linear map per label, without bias, started at zero, under an l1 or l2 penalty."""

    def __init__(self, n_features: int, n_classes: int, norm: Norm = "l2", temperature: float = 1.0) -> None:
        """Initialize the adversary.

        Args:
            n_features: Length of an observation; filled in.
            n_classes: Number of labels; filled in.
            norm: ``l2`` (sum of squares) or ``l1`` (sum of absolute values) of all weights.
            temperature: Factor of the logits inside the sigmoid; the authors' code takes 10 with ``l1``.
        """
        super().__init__()
        self.norm, self.temperature = norm, temperature
        self.weight = nn.Parameter(torch.zeros(n_classes, n_features))

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the label's linear map of the observation."""
        return (observation * self.weight[target]).sum(1)

    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the norm of the weights."""
        return _norm([self.weight], self.norm)


class MLPAdversary(Adversary):
    """A small multilayer perceptron with one output per label, under an l1 or l2 penalty."""

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        width: int = 32,
        norm: Norm = "l2",
        temperature: float = 1.0,
    ) -> None:
        """Initialize the adversary.

        Args:
            n_features: Length of an observation; filled in.
            n_classes: Number of labels; filled in.
            width: Units of the hidden layer.
            norm: ``l2`` (sum of squares) or ``l1`` (sum of absolute values) of all weights.
            temperature: Factor of the logits inside the sigmoid.
        """
        super().__init__()
        self.norm, self.temperature = norm, temperature
        self.layers = nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_classes))

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the label's output."""
        return select_label(self.layers(observation), target)

    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the norm of all weights and biases."""
        return _norm(list(self.layers.parameters()), self.norm)


class VIBAdversary(Adversary):
    """A stochastic code of few nats per example between the observation and the weight.

    The penalty multiplies the information rate itself, E[KL(q(z|x) || N(0, I))].
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        width: int = 32,
        code: int = 16,
        n_samples: int = 8,
        seed: int | None = None,
    ) -> None:
        """Initialize the adversary.

        Args:
            n_features: Length of an observation; filled in.
            n_classes: Number of labels; filled in.
            width: Units of the encoder's hidden layer.
            code: Length of the code z.
            n_samples: Codes drawn per example, whose weights are averaged (100 in the authors' notebook).
            seed: Seed of the codes' noise, the run's ``seed_everything`` by default; the draws depend on it and on the
                count of calls, not on other code.
        """
        super().__init__()
        self.n_samples, self.seed = n_samples, seed or 0
        self.encoder = nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, 2 * code))
        self.decoder = nn.Linear(code, n_classes)
        self.n_calls = 0

    def encode(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the code's mean and standard deviation, ``(batch, code)`` each."""
        mean, raw = self.encoder(observation).chunk(2, dim=1)
        return mean, F.softplus(raw - 5) + 1e-6

    def forward(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the logit of the weight averaged over sampled codes."""
        mean, scale = self.encode(observation)
        generator = torch.Generator().manual_seed(numbered_seed(self.seed, self.n_calls))
        self.n_calls += 1
        noise = torch.randn(self.n_samples, *mean.shape, generator=generator).to(mean)
        scores = self.decoder(mean + scale * noise)  # (samples, batch, classes)
        weights = scores.sigmoid().mean(0)
        return torch.logit(select_label(weights, target), eps=1e-6)

    def get_extra_state(self) -> int:
        """Return the count of calls, so that a resumed run draws the same noise."""
        return self.n_calls

    def set_extra_state(self, state: int) -> None:
        """Restore the count of calls."""
        self.n_calls = state

    def complexity(self, observation: Tensor, target: Tensor) -> Tensor:
        """Return the information rate of the code, in nats per example."""
        return gaussian_bits(*self.encode(observation))
