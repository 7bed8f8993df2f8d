"""Every policy loss against a short reference on padded batches, however the batch is cut into packs."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.losses import MismatchCorrection, PolicyLoss, sequence_mean
from surefoot.losses.policy import LOSS_KINDS, LossKind

LENGTHS = [3, 1, 5, 2]
MAX_TOKENS = 6


def batch(seed: int) -> tuple[Tensor, ...]:
    """Return padded log-probabilities, old ones, references and advantages, all ``(4, 5)``, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(4)]
    logprobs = -draw[0].abs()
    old, reference = logprobs + 0.3 * draw[1], logprobs + 0.4 * draw[2]
    mask = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    return logprobs.requires_grad_(), old.detach(), reference.detach(), draw[3], mask


def reference_loss(
    kind: LossKind,
    lp: Tensor,
    old: Tensor,
    ref: Tensor,
    adv: Tensor,
    mask: Tensor,
    low: float,
    high: float,
    beta: float,
) -> Tensor:
    """The losses as the papers write them, on a padded batch, one sequence and token at a time."""
    total = torch.zeros((), dtype=torch.float64)
    n_tokens = sum(LENGTHS)
    for i, n in enumerate(LENGTHS):
        mean_log_ratio = sum(lp[i, t] - old[i, t] for t in range(n)) / n
        for t in range(n):
            ratio = torch.exp(mean_log_ratio if kind == "gspo" else lp[i, t] - old[i, t])
            if kind == "cispo":
                loss = -ratio.detach().clamp(max=1 + high) * adv[i, t] * lp[i, t]
            else:
                loss = -torch.min(ratio * adv[i, t], ratio.clamp(1 - low, 1 + high) * adv[i, t])
            d = ref[i, t] - lp[i, t]
            loss = loss + beta * (torch.exp(d) - d - 1)
            if kind in ("grpo", "gspo"):
                total = total + loss / n / len(LENGTHS)
            elif kind == "dr_grpo":
                total = total + loss / (len(LENGTHS) * MAX_TOKENS)
            else:
                total = total + loss / n_tokens
    return total


def ours(
    kind: LossKind,
    lp: Tensor,
    old: Tensor,
    ref: Tensor,
    adv: Tensor,
    mask: Tensor,
    low: float,
    high: float,
    beta: float,
    packs: list[list[int]],
) -> Tensor:
    lengths = torch.tensor([float(n) for n in LENGTHS], dtype=torch.float64)
    policy_loss = PolicyLoss(kind, low, high, beta)
    weights = policy_loss.token_weights(lengths, len(LENGTHS), sum(LENGTHS), MAX_TOKENS)
    total = torch.zeros((), dtype=torch.float64)
    for members in packs:
        rows = torch.tensor([i for i in members for _ in range(LENGTHS[i])])
        columns = torch.tensor([t for i in members for t in range(LENGTHS[i])])
        at = (rows, columns)
        result = policy_loss(lp[at], old[at], adv[at], rows, ref[at])
        total = total + (weights[rows] * result.losses).sum()
    return total


@pytest.mark.parametrize("packs", [[[0, 1, 2, 3]], [[2, 0], [3, 1]], [[0], [1], [2], [3]]], ids=str)
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_equals_the_reference(kind: LossKind, beta: float, packs: list[list[int]]) -> None:
    for seed in range(3):
        values = batch(seed)
        expected = reference_loss(kind, *values, 0.1, 0.25, beta)
        found = ours(kind, *values, 0.1, 0.25, beta, packs)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        (a,) = torch.autograd.grad(expected, values[0])
        (b,) = torch.autograd.grad(found, values[0])
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)


def test_golden_numbers() -> None:
    """Ratio e^.5 = 1.6487 is cut at 1.2: loss -1.2 for advantage 1 and -1.6487 * -1 for advantage -1."""
    lp, old = torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -1.5])
    result = PolicyLoss("grpo", clip_high=0.2)(lp, old, torch.tensor([1.0, -1.0]), torch.tensor([0, 1]))
    assert result.losses.tolist() == pytest.approx([-1.2, 1.6487213])
    assert result.clipped_high.tolist() == [True, False]
    assert result.clipped_low.tolist() == [False, False]
    assert result.ratios.tolist() == pytest.approx([math.exp(0.5)] * 2)


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_no_advantage_no_gradient(kind: LossKind) -> None:
    lp = torch.randn(6, requires_grad=True)
    result = PolicyLoss(kind)(lp, lp.detach() - 0.1, torch.zeros(6), torch.arange(6) // 2)
    result.losses.sum().backward()
    assert lp.grad is not None
    assert not lp.grad.any()


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_on_policy_all_kinds_are_the_policy_gradient(kind: LossKind) -> None:
    lp = torch.randn(6, requires_grad=True, dtype=torch.float64)
    advantages = torch.tensor([1.0, 1.0, -2.0, -2.0, 0.5, 0.5], dtype=torch.float64)
    PolicyLoss(kind)(lp, lp.detach(), advantages, torch.arange(6) // 2).losses.sum().backward()
    torch.testing.assert_close(lp.grad, -advantages, rtol=1e-9, atol=1e-12)


def test_a_bound_stops_the_gradient_only_where_it_should() -> None:
    lp = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    PolicyLoss("grpo")(lp, torch.zeros(4), advantages, torch.arange(4)).losses.sum().backward()
    assert (lp.grad == 0).tolist() == [True, False, False, True]  # type: ignore[union-attr]


def test_sequence_mean() -> None:
    found = sequence_mean(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0, 2, 0]))
    assert found.tolist() == [2.0, 5.0, 2.0]
    assert sequence_mean(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_mismatch_weights() -> None:
    """Token ratios 1, e and e^-1; sequence 0's product is e, sequence 1's e^-1."""
    trainer, engine = torch.tensor([0.0, 1.0, -1.0]), torch.zeros(3)
    sequences = torch.tensor([0, 0, 1])
    e = math.e

    def found(correction: str, cap: float) -> list[float]:
        return MismatchCorrection(correction, cap)(trainer, engine, sequences).tolist()  # type: ignore[arg-type]

    assert found("none", 2.0) == [1, 1, 1]
    assert found("token_truncate", 2.0) == pytest.approx([1, 2, 1 / e])
    assert found("token_mask", 2.0) == pytest.approx([1, 0, 1 / e])
    assert found("sequence_truncate", 2.0) == pytest.approx([2, 2, 1 / e])
    assert found("sequence_mask", 2.0) == pytest.approx([0, 0, 1 / e])
    assert found("sequence_mask", 3.0) == pytest.approx([e, e, 1 / e])


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(1)
    with pytest.raises(ValueError, match="needs the reference"):
        PolicyLoss(kl_coefficient=0.1)(x, x, x, x.long())
    for name in ("clip_low", "clip_high", "kl_coefficient"):
        with pytest.raises(ConfigError, match=f"{name} must not be negative, got -1"):
            PolicyLoss(**{name: -1.0})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{name} must not be negative, got nan"):
            PolicyLoss(**{name: math.nan})  # type: ignore[arg-type]
    # What a checked signature refuses in tests, the constructor refuses everywhere.
    with pytest.raises((ConfigError, TypeCheckError), match="ppo"):
        PolicyLoss("ppo")  # type: ignore[arg-type]
    with pytest.raises((ConfigError, TypeCheckError), match="clip"):
        MismatchCorrection("clip")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"positive cap .* got 0.0 and"):
        MismatchCorrection(cap=0.0)
