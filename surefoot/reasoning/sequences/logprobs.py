"""Log-probabilities and entropies of tokens, without ever holding all logits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ("TokenScores", "module_token_scores", "token_scores", "weighted_logprob_sum")

#: Elements of one chunk of logits: 64 MiB in float32.
_CHUNK_ELEMENTS = 2**24


class TokenScores(NamedTuple):
    """What a policy says about the tokens it is asked about."""

    logprobs: Tensor  # nats, (scored,)
    entropies: Tensor  # of the next-token distribution, nats, (scored,)


def token_scores(
    hidden: Float[Tensor, "scored width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " scored"],
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int | None = None,
    scale: float = 1.0,
) -> TokenScores:
    """Return each target's log-probability and its distribution's entropy under a linear head.

    Forward and backward compute the logits of one chunk at a time and drop them; the backward pass computes them again.
    Under autocast the products run in its precision; softmax and sums are float32 (float64 for float64 input).

    Args:
        hidden: Last hidden states, one for each scored token.
        weight: The head's matrix.
        targets: Token ids.
        temperature: Divides the logits, as in sampling.
        softcap: Bound c of ``c tanh(logits / c)``, applied before the temperature; none for most models.
        chunk_size: Tokens whose logits are held at once; by default as many as fit into 64 MiB.
        scale: Multiplies the head's output, before the soft cap; 1 for most models.

    Returns:
        Log-probabilities and entropies, ``(scored,)`` each, in nats, differentiable in ``hidden`` and ``weight``.
    """
    if chunk_size is None:
        chunk_size = max(1, _CHUNK_ELEMENTS // weight.shape[0])
    logprobs, entropies = _ChunkedScores.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, temperature, softcap, chunk_size, scale
    )
    return TokenScores(logprobs, entropies)


def weighted_logprob_sum(
    hidden: Float[Tensor, "scored width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " scored"],
    token_weights: Float[Tensor, " scored"],
    softcap: float | None = None,
    chunk_size: int | None = None,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the weighted sum of the targets' log-probabilities; the weights have no gradient.

    As the weights are known in the forward pass, so is the gradient: each chunk's logits are computed once, not twice
    as by `token_scores`.

    Args:
        hidden: Last hidden states, one for each scored token.
        weight: The head's matrix.
        targets: Token ids.
        token_weights: Weight of each token in the sum.
        softcap: Bound of the logits, as in `token_scores`.
        chunk_size: Tokens whose logits are held at once; by default as many as fit into 64 MiB.
        scale: Multiplies the head's output, as in `token_scores`.
    """
    if chunk_size is None:
        chunk_size = max(1, _CHUNK_ELEMENTS // weight.shape[0])
    total: Tensor = _FusedSum.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, token_weights, softcap, chunk_size, scale
    )
    return total


def module_token_scores(
    hidden: Float[Tensor, "scored width"],
    head: Callable[[Tensor], Tensor],
    targets: Int[Tensor, " scored"],
    temperature: float = 1.0,
    softcap: float | None = None,
    chunk_size: int = 512,
    scale: float = 1.0,
) -> TokenScores:
    """Return what `token_scores` returns for a head that is more than a matrix: with a bias, adapters, or quantised.

    Each chunk is computed again in the backward pass, by autograd.

    Args:
        hidden: Last hidden states, one for each scored token.
        head: The module that turns hidden states into its output, ``(chunk, vocabulary)``.
        targets: Token ids.
        temperature: Divides the logits, as in sampling.
        softcap: Bound of the logits, as in `token_scores`.
        chunk_size: Tokens whose logits are held at once.
        scale: Multiplies the head's output, as in `token_scores`.
    """

    def chunk(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        logits, _ = _scaled_logits(head(h), temperature, softcap, scale)
        logprobs = logits.log_softmax(1)
        return logprobs.gather(1, t[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(1)

    parts = []
    for h, t in zip(hidden.split(chunk_size), targets.split(chunk_size), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(chunk, h, t, use_reentrant=False))
        else:
            parts.append(chunk(h, t))
    logprobs, entropies = zip(*parts, strict=True)
    return TokenScores(torch.cat(logprobs), torch.cat(entropies))


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """Return the precision of the matrix products: autocast's where it is on."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


def _scaled_logits(
    product: Tensor, temperature: float, softcap: float | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Return logits over the temperature, ``(chunk, vocabulary)``, from the head's output, and the soft cap's slope."""
    logits = product if product.dtype == torch.float64 else product.float()
    if scale != 1.0:
        logits = logits * scale
    slope = None
    if softcap is not None:
        squashed = torch.tanh(logits / softcap)
        logits, slope = softcap * squashed, 1 - squashed * squashed
    if temperature != 1.0:
        logits = logits / temperature
    return logits, slope


class _ChunkedScores(torch.autograd.Function):
    """Forward keeps two numbers per token; backward recomputes each chunk's logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        softcap: float | None,
        chunk_size: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        dtype = _product_dtype(hidden)
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        logprobs, entropies, normalizers = [], [], []
        for h, t in zip(low_hidden.split(chunk_size), targets.split(chunk_size), strict=True):
            logits, _ = _scaled_logits(h @ low_weight.T, temperature, softcap, scale)
            normalizer = logits.logsumexp(1)
            logprobs.append(logits.gather(1, t[:, None])[:, 0] - normalizer)
            probabilities = (logits - normalizer[:, None]).exp_()
            entropies.append(normalizer - probabilities.mul_(logits).sum(1))
            normalizers.append(normalizer)
        empty = hidden.new_zeros(0, dtype=torch.promote_types(dtype, torch.float32))
        entropy = torch.cat([empty, *entropies])
        ctx.save_for_backward(hidden, weight, targets, torch.cat([empty, *normalizers]), entropy.clone())
        ctx.settings = dtype, temperature, softcap, chunk_size, scale
        return torch.cat([empty, *logprobs]), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normalizers, entropies = ctx.saved_tensors
        dtype, temperature, softcap, chunk_size, scale = ctx.settings
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        columns = (low_hidden, targets, normalizers, entropies, *gradients)
        start = 0
        for h, t, normalizer, entropy, g_logprob, g_entropy in zip(
            *(c.split(chunk_size) for c in columns), strict=True
        ):
            logits, slope = _scaled_logits(h @ low_weight.T, temperature, softcap, scale)
            logits.sub_(normalizer[:, None])  # log-probabilities
            probabilities = logits.exp()
            # d logprob / d logit = onehot - p;  d entropy / d logit = -p (log p + entropy)
            if bool(g_entropy.any()):
                inner = g_logprob[:, None] + g_entropy[:, None] * logits.add_(entropy[:, None])
            else:
                inner = g_logprob[:, None]
            grad_logits = probabilities.mul_(inner).neg_()
            grad_logits.scatter_add_(1, t[:, None], g_logprob[:, None].to(grad_logits.dtype))
            if slope is not None:
                grad_logits.mul_(slope)
            low_gradient = grad_logits.mul_(scale / temperature).to(dtype)
            grad_hidden[start : start + len(h)] = low_gradient @ low_weight
            if grad_weight is not None and dtype == wide:
                grad_weight.addmm_(low_gradient.T, h)
            elif grad_weight is not None:
                grad_weight.add_(low_gradient.T @ h)
            start += len(h)
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None, None


class _FusedSum(torch.autograd.Function):
    """Forward computes the sum and its gradients chunk by chunk; backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        token_weights: Tensor,
        softcap: float | None,
        chunk_size: int,
        scale: float,
    ) -> Tensor:
        dtype = _product_dtype(hidden)
        wide = torch.promote_types(dtype, torch.float32)
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        needed = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needed[0] else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
        total = hidden.new_zeros((), dtype=wide)
        start = 0
        columns = (low_hidden, targets, token_weights.to(wide))
        for h, t, w in zip(*(c.split(chunk_size) for c in columns), strict=True):
            logits, slope = _scaled_logits(h @ low_weight.T, 1.0, softcap, scale)
            normalizer = logits.logsumexp(1)
            total += (w * (logits.gather(1, t[:, None])[:, 0] - normalizer)).sum()
            if grad_hidden is not None or grad_weight is not None:
                gradient = logits.sub_(normalizer[:, None]).exp_().mul_(-w[:, None])
                gradient.scatter_add_(1, t[:, None], w[:, None])
                if slope is not None:
                    gradient.mul_(slope)
                low_gradient = (gradient if scale == 1.0 else gradient.mul_(scale)).to(dtype)
                if grad_hidden is not None:
                    grad_hidden[start : start + len(h)] = low_gradient @ low_weight
                if grad_weight is not None and dtype == wide:
                    grad_weight.addmm_(low_gradient.T, h)
                elif grad_weight is not None:
                    grad_weight.add_(low_gradient.T @ h)
            start += len(h)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = gradients
        hidden, weight = ctx.saved_tensors
        hidden = None if hidden is None else hidden * scale.to(hidden.dtype)
        weight = None if weight is None else (weight * scale).to(ctx.dtype)
        return hidden, weight, None, None, None, None, None
