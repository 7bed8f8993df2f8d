"""SFT, DPO and every kind of GRPO loss give TRL 1.16's loss and gradients on the same batch.

`benchmarks/peers/trl_losses.py` has recorded them in an environment with TRL; the weights are recorded with them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_modules import GRPO
from lightning_modules.reasoning.grpo import CreditedRollout, RolloutUpdates
from surefoot.losses import MismatchCorrection, PolicyLoss, dpo_loss
from surefoot.losses.policy import LOSS_KINDS, LossKind
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.sequences import Pack, PromptCompletion, pack_sequences
from surefoot.reasoning.trajectories import Trajectory

RECORD = load_file(Path(__file__).parents[1] / "data/trl_losses.safetensors")


def model_with(prefix: str) -> TinyLanguageModel:
    model = TinyLanguageModel(width=16, n_layers=1, n_heads=2)
    weights = {k.removeprefix(prefix): v for k, v in RECORD.items() if k.startswith(prefix)}
    missing = model.base.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["lm_head.weight"], "tied to the embedding"
    return model


def sequences() -> list[PromptCompletion]:
    columns = [RECORD[f"input/{k}"] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")]
    return [
        PromptCompletion(p[pm.bool()].tolist(), c[cm.bool()].tolist()) for p, pm, c, cm in zip(*columns, strict=True)
    ]


def check(name: str, model: TinyLanguageModel, loss: Tensor) -> None:
    """Compare a loss and all gradients with the record."""
    assert loss.item() == pytest.approx(RECORD[f"{name}/loss"].item(), rel=1e-5)
    loss.backward()
    gradients = {k: p.grad for k, p in model.base.named_parameters()}
    recorded = {k: v for k, v in RECORD.items() if k.startswith(f"{name}/gradient/")}
    assert len(recorded) == len(gradients) > 5
    for key, expected in recorded.items():
        found = gradients[key.removeprefix(f"{name}/gradient/")]
        assert found is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, k=key: f"{k}: {m}")


def over_packs(max_tokens: int, loss: Callable[[Pack], Tensor], together: list[int] | None = None) -> Tensor:
    packs = pack_sequences(sequences(), max_tokens, together=together)
    return torch.stack([loss(p) for p in packs]).sum()


@pytest.mark.parametrize("max_tokens", [20, 1000])
def test_sft(max_tokens: int) -> None:
    model = model_with("weight/")
    n = sum(len(s.completion) for s in sequences())
    check(
        "sft",
        model,
        over_packs(max_tokens, lambda p: model.weighted_logprob_sum(p, torch.full(p.targets.shape, -1 / n))),
    )


@pytest.mark.parametrize("max_tokens", [25, 1000])
def test_dpo(max_tokens: int) -> None:
    """TRL takes the first half of a batch as chosen: sequence 0 against 2, which share a prompt, and 1 against 3."""
    model, reference = model_with("weight/"), model_with("reference/")
    rows = sequences()
    packs = pack_sequences([rows[0], rows[2], rows[1], rows[3]], max_tokens, together=[0, 0, 1, 1])

    def sums(policy: TinyLanguageModel, pack: Pack) -> Tensor:
        return torch.zeros(4).index_add(0, pack.sequences, policy.score(pack).logprobs)

    losses = []
    for pack in packs:
        pairs = (pack.sequences // 2).unique()
        with torch.no_grad():
            base = sums(reference, pack).view(2, 2)[pairs]
        found = sums(model, pack).view(2, 2)[pairs]
        losses.append(dpo_loss(found[:, 0], found[:, 1], base[:, 0], base[:, 1], 0.3).losses)
    check("dpo", model, torch.cat(losses).mean())


@pytest.mark.parametrize("max_tokens", [20, 1000])
@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_grpo(kind: LossKind, max_tokens: int) -> None:
    model = model_with("weight/")
    lengths = torch.tensor([float(len(s.completion)) for s in sequences()])
    policy_loss = PolicyLoss(kind, 0.1, 0.15, 0.1)
    weights = policy_loss.token_weights(lengths, 4, float(lengths.sum()), 10)
    advantages = [torch.full((int(n),), float(a)) for n, a in zip(lengths, RECORD["grpo/advantages"], strict=True)]
    old, reference = (
        [row[: int(n)] for row, n in zip(RECORD[f"grpo/{k}"], lengths, strict=True)] for k in ("old", "reference")
    )

    def loss(pack: Pack) -> Tensor:
        result = policy_loss(
            model.score(pack).logprobs,
            pack.gather(old),
            pack.gather(advantages),
            pack.sequences,
            pack.gather(reference),
        )
        return (weights[pack.sequences] * result.losses).sum()

    check(kind, model, over_packs(max_tokens, loss))


@pytest.mark.parametrize("max_tokens", [20, 1000])
@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_mismatch_correction_and_truncated_completions(
    kind: LossKind, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module's own update: sequence 1 hit the limit, ratios to the engine are capped at 1.1, with a KL term.

    The correction is on the policy's term alone; the truncated completion stays in the divisor of a mean over
    completions.
    """
    model = model_with("weight/")
    module = GRPO(
        language_model=model,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        sampling=Sampling(n=4, max_tokens=10),
        loss=PolicyLoss(kind, 0.1, 0.15, 0.1),
        correction=MismatchCorrection("token_truncate", 1.1),
        updates=RolloutUpdates(mask_truncated=True),
        max_tokens_per_pack=max_tokens,
    )
    trajectories = [
        Trajectory(Problem(str(i), "q", "a"), 0, s.prompt, s.completion, (), reason, 0)
        for i, (s, reason) in enumerate(zip(sequences(), ("stop", "length", "stop", "stop"), strict=True))
    ]
    columns = {
        k: [row[: len(t.completion)] for row, t in zip(RECORD[f"grpo/{k}"], trajectories, strict=True)]
        for k in ("old", "reference", "behaviour")
    }
    advantages = [
        torch.full((len(t.completion),), float(a)) for t, a in zip(trajectories, RECORD["grpo/advantages"], strict=True)
    ]
    credited = CreditedRollout(trajectories, advantages, columns["behaviour"], columns["old"], columns["reference"])
    losses: list[Tensor] = []
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(
        module,
        "update",
        lambda packs, loss: losses.append(torch.stack([loss(p) for p in packs]).sum()),
    )
    module.leave_out_truncated(trajectories)
    module.policy_update(credited)
    check(f"{kind}_masked", model, losses[0])
