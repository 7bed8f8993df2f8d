"""Losses of linear models whose per-example gradients are known in closed form: residual times input.

The gradient of example i is ``x_i r_i^T``, so its norm is ``|x_i| |r_i|`` and the sum of clipped gradients is ``X^T (c
* R)``: two products with the data, and no gradient of a single example is ever made.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import ConfigError, DataError

__all__ = (
    "ClippedSum",
    "LinearLoss",
    "check_finite_examples",
    "clipped_gradient_sum",
    "linear_losses",
    "linear_residuals",
    "n_outputs",
)

LinearLoss = Literal["squared", "logistic", "softmax"]


def n_outputs(loss: LinearLoss, n_classes: int | None) -> int:
    """Return the number of outputs of a linear model: 1, or the number of classes for ``softmax``.

    Raises:
        ConfigError: If there is no such loss, or the classes do not fit it.
    """
    if loss not in ("squared", "logistic", "softmax"):
        raise ConfigError(f"loss must be squared, logistic or softmax, got {loss!r}.")
    if loss == "logistic" and n_classes not in (None, 2):
        raise ConfigError(f"logistic needs two classes, got {n_classes}; take softmax.")
    if loss == "softmax" and (n_classes is None or n_classes < 2):
        raise ConfigError(f"softmax needs at least two classes, got {n_classes}.")
    return int(n_classes or 1) if loss == "softmax" else 1


def check_finite_examples(tensors: Mapping[str, Tensor | None], name: str) -> None:
    """Raise unless every number is finite.

    Args:
        tensors: What the examples consist of, ``(examples, ...)`` each.
        name: Where they are, for the message.

    Raises:
        DataError: If a value is NaN or infinite.
    """
    for kind, values in tensors.items():
        if values is not None and values.is_floating_point():
            wrong = ~values.isfinite().reshape(len(values), -1).all(1)
            if wrong.any():
                raise DataError(
                    f"{int(wrong.sum())} of {len(values)} rows of {kind} in {name} are NaN or infinite: mend the data,"
                    " or leave these rows out."
                )


def linear_residuals(
    outputs: Float[Tensor, "batch outputs"], target: Tensor, loss: LinearLoss
) -> Float[Tensor, "batch outputs"]:
    """Return the derivative of the loss by the outputs.

    Losses: ``(z - y)^2 / 2``; ``log(1 + exp(-s z))`` with s = 2y - 1 for y in {0, 1}; cross-entropy.
    """
    if loss == "squared":
        return outputs - target.to(outputs)[:, None]
    if loss == "logistic":
        return outputs.sigmoid() - target.to(outputs)[:, None]
    return outputs.softmax(1) - F.one_hot(target, outputs.shape[1]).to(outputs)


def linear_losses(outputs: Float[Tensor, "batch outputs"], target: Tensor, loss: LinearLoss) -> Float[Tensor, " batch"]:
    """Return the loss per example, see `linear_residuals`."""
    if loss == "squared":
        return (outputs[:, 0] - target.to(outputs)) ** 2 / 2
    if loss == "logistic":
        return F.softplus(torch.where(target == 1, -outputs[:, 0], outputs[:, 0]))
    return F.cross_entropy(outputs, target, reduction="none")


class ClippedSum(NamedTuple):
    """A sum of clipped gradients, and how often they were clipped."""

    gradient: Float[Tensor, "features outputs"]
    n_clipped: Float[Tensor, ""]


def clipped_gradient_sum(
    weight: Float[Tensor, "features outputs"],
    inputs: Float[Tensor, "batch features"],
    target: Tensor,
    loss: LinearLoss,
    clip: float,
    input_norms: Tensor | None = None,
) -> ClippedSum:
    """Sum the examples' gradients, each clipped to a norm of ``clip``; one that is NaN or infinite adds nothing.

    Args:
        weight: Weights, ``(features, outputs)``.
        inputs: Inputs, ``(batch, features)``; the batch may be empty.
        target: Targets, ``(batch,)``.
        loss: See `linear_residuals`.
        clip: Largest norm of a gradient; infinite for none.
        input_norms: Norm of each input ``(batch,)``, where it is known.

    Returns:
        The sum (zeros for an empty batch) and the number of clipped gradients.
    """
    residuals = linear_residuals(inputs @ weight, target, loss)
    if input_norms is None:
        input_norms = torch.linalg.vector_norm(inputs, dim=1)
    norms = input_norms * torch.linalg.vector_norm(residuals, dim=1)
    finite = norms.isfinite()
    if not finite.all():  # no factor bounds them: they add nothing, which is private
        inputs, residuals, norms = inputs[finite], residuals[finite], norms[finite]
    factors = (clip / norms.clamp_min(1e-30)).clamp_max(1)
    return ClippedSum(inputs.T @ (factors[:, None] * residuals), (norms > clip).sum().float())
