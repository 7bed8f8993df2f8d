"""Chunked log-probabilities against the naive form, their gradients, and what is held in memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.reasoning.sequences import token_scores, weighted_logprob_sum


def naive(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logprobs = (logits / temperature).log_softmax(1)
    entropies = -(logprobs.exp() * logprobs).sum(1)
    return logprobs.gather(1, targets[:, None])[:, 0], entropies


def inputs(n: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + vocabulary)
    hidden = torch.randn(n, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(vocabulary, (n,), generator=generator)


@pytest.mark.parametrize("chunk_size", [1, 3, 100, None])
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.7, None), (1.0, 5.0), (2.0, 3.0)])
@pytest.mark.parametrize("n", [1, 7, 100])
def test_equals_the_naive_form(n: int, temperature: float, softcap: float | None, chunk_size: int | None) -> None:
    hidden, weight, targets = inputs(n, 6, 11, torch.float32)
    expected = naive(hidden, weight, targets, temperature, softcap)
    found = token_scores(hidden, weight, targets, temperature, softcap, chunk_size)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    factors = torch.linspace(-1, 1, n)
    for values in (expected, found):
        loss = (values[0] * factors).sum() + 0.3 * (values[1] * factors.flip(0)).sum()
        values += (torch.autograd.grad(loss, (hidden, weight)),)  # type: ignore[operator]
        if values[0] is expected[0]:
            reference = values[-1]
        else:
            for a, b in zip(values[-1], reference, strict=True):  # type: ignore[call-overload]
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradcheck() -> None:
    hidden, weight, targets = inputs(4, 3, 5, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: tuple(token_scores(h, w, targets, 0.8, 4.0, 3)), (hidden, weight))


@pytest.mark.parametrize("chunk_size", [1, 3, None])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_fused_sum_is_the_sum(softcap: float | None, chunk_size: int | None) -> None:
    hidden, weight, targets = inputs(10, 6, 11, torch.float64)
    token_weights = torch.linspace(-1, 2, 10, dtype=torch.float64)
    expected = (naive(hidden, weight, targets, 1.0, softcap)[0] * token_weights).sum()
    found = weighted_logprob_sum(hidden, weight, targets, token_weights, softcap, chunk_size)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    a = torch.autograd.grad(3 * expected, (hidden, weight))
    b = torch.autograd.grad(3 * found, (hidden, weight))
    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        alone = weighted_logprob_sum(hidden, weight, targets, token_weights, softcap)
    torch.testing.assert_close(alone, found.detach(), rtol=1e-9, atol=1e-12)


def test_golden_numbers() -> None:
    """Logits (0, ln 3): probabilities 1/4 and 3/4; entropy ln 4 - 3/4 ln 3 = 0.562335."""
    weight = torch.tensor([[0.0], [1.0986123]])
    scores = token_scores(torch.ones(1, 1), weight, torch.tensor([0]))
    assert scores.logprobs.item() == pytest.approx(-1.386294, rel=1e-5)
    assert scores.entropies.item() == pytest.approx(0.562335, rel=1e-5)


def test_no_tokens_give_no_scores_and_no_gradient() -> None:
    hidden, weight, _ = inputs(1, 3, 5, torch.float32)
    scores = token_scores(hidden[:0], weight, torch.zeros(0, dtype=torch.long))
    assert scores.logprobs.shape == scores.entropies.shape == (0,)
    scores.logprobs.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_autocast_computes_in_bfloat16_and_returns_float32() -> None:
    hidden, weight, targets = inputs(9, 16, 33, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        scores = token_scores(hidden, weight, targets)
        scores.logprobs.sum().backward()
    exact = naive(hidden, weight, targets, 1.0, None)[0]
    assert scores.logprobs.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert not scores.logprobs.equal(exact), "the product was not in bfloat16"
    torch.testing.assert_close(scores.logprobs, exact, rtol=0.02, atol=0.1)


def test_logits_of_all_tokens_are_never_held() -> None:
    """Vocabulary 20,000, 512 tokens: all logits would be 41 MB; no tensor of a chunk's step may exceed its share."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, Tensor) and value.shape[-1:] == (20_000,):
                    largest = max(largest, value.numel())
            return result

    hidden, weight, targets = inputs(512, 8, 20_000, torch.float32)
    with Watch():
        token_scores(hidden, weight, targets, chunk_size=64).logprobs.sum().backward()
    assert largest == 64 * 20_000
