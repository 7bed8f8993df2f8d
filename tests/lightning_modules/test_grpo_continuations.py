"""GRPO with continuations of prefixes: who is trained on what, at which cost; and with estimated values."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from continuations import ContinuationValues, ProgressAdvantage
from tiny_reasoning import tiny_reasoning

from lightning_modules import GRPO
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import HFEngine
from surefoot.reasoning.sequences import pack_sequences
from surefoot.reasoning.trajectories import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore")

CONTINUED = {
    "sampler": {"class_path": "continuations.ContinuationSampler"},
    "rewards": {"functions": [{"class_path": "surefoot.reasoning.rewards.AccuracyReward"}], "step_separator": "\n"},
}


def column(run: Path, key: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def trajectory(problem: str, n_given: int, last: int, mask: list[bool] | None = None) -> Trajectory:
    """Return a completion of three tokens of its own after some that were given."""
    given = [8, 9, 10, 11][:n_given]
    logprobs = [float("nan")] * n_given + [-3.0, -3.5, -2.5]
    sampled = [12, 13, last]
    return Trajectory(
        Problem(problem, "q", "1"), 0, [5, 6, 7], [*given, *sampled], logprobs, "stop", 0, n_given, mask=mask
    )


def gradient(module: GRPO, trajectories: list[Trajectory], monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, int]:
    """Return the gradient of one update with advantages of 1, and the tokens put through the model."""
    n_forward = [0]

    def update(packs: Any, loss: Any) -> torch.Tensor:
        module.zero_grad()
        for pack in packs:
            n_forward[0] += len(pack.tokens)
            loss(pack).backward()
        return torch.zeros(())

    monkeypatch.setattr(module, "update", update)
    monkeypatch.setattr(module, "log", lambda *a, **k: None)
    monkeypatch.setattr(module, "credit", lambda ts: [torch.full((len(t.completion),), 1.0) for t in ts])
    module.policy_update(module.assign_credit(trajectories))
    parts = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(parts), n_forward[0]


@pytest.fixture
def module() -> GRPO:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    model = TinyLanguageModel(width=32, n_layers=1, n_heads=2)
    return GRPO(language_model=model, optimizer=optimizer, engine=HFEngine(), max_tokens_per_pack=1000)


def test_a_prefix_is_shared_and_has_no_gradient(module: GRPO, monkeypatch: pytest.MonkeyPatch) -> None:
    continued = [trajectory("p", 4, last) for last in (14, 15, 16)]
    found, n_forward = gradient(module, continued, monkeypatch)
    assert n_forward == 3 + 4 + 3 * 2, "prompt and prefix once, and all but the last token of each continuation"
    in_prompt = [
        Trajectory(t.problem, 0, [*t.prompt, *t.completion[:4]], t.completion[4:], t.behaviour_logprobs[4:], "stop", 0)
        for t in continued
    ]
    torch.testing.assert_close(found, gradient(module, in_prompt, monkeypatch)[0], rtol=1e-4, atol=1e-7)
    assert found.isfinite().all()
    assert found.abs().max() > 0


def test_a_mask_trains_the_end_of_a_prefix_that_no_engine_sampled(
    module: GRPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the last episode of a prefix is learned too: its tokens count, with a ratio to the engine of 1."""
    mask = [False, False, True, True, True, True, True]
    found, _ = gradient(module, [trajectory("p", 4, 14, mask)], monkeypatch)
    moved = trajectory("p", 4, 14)
    with torch.no_grad():
        (pack,) = pack_sequences([moved.sequence._replace(mask=None)], 1000)
        known = module.language_model.score(pack).logprobs.tolist()
    whole = Trajectory(
        moved.problem, 0, [*moved.prompt, 8, 9], moved.completion[2:], [*known[2:4], -3.0, -3.5, -2.5], "stop", 0
    )
    torch.testing.assert_close(found, gradient(module, [whole], monkeypatch)[0], rtol=1e-4, atol=1e-7)


def test_grpo_continues_prefixes(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts: list[list[Trajectory]] = []
    original = GRPO.assign_credit

    def watched(self: GRPO, trajectories: list[Trajectory]) -> Any:
        rollouts.append(trajectories)
        return original(self, trajectories)

    monkeypatch.setattr(GRPO, "assign_credit", watched)
    run = fit(tiny_reasoning("GRPO", **CONTINUED, updates={"epochs": 2}, loss={"kl_coefficient": 0.1}))
    assert len(rollouts) == 8
    for t in (t for rollout in rollouts for t in rollout):
        assert t.spans[-1].end == len(t.completion)
        assert t.loss_mask is None or t.loss_mask[: t.n_given] == [False] * t.n_given
        if t.n_given:
            assert t.steps[0] == t.problem.solution.split("\n")[0] + "\n"
            assert t.n_sampled <= 5
    n_sampled = [sum(t.n_sampled for t in r) / len(r) for r in rollouts]
    assert column(run, "rollout/tokens") == pytest.approx(n_sampled)
    assert max(column(run, "rollout/logprob_mismatch_max")) < 1e-4


def test_values_are_estimated_checked_and_read_by_the_credit(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CONTINUED | {
        "values": {"class_path": "continuations.ContinuationValues"},
        "credit": {"class_path": "continuations.ProgressAdvantage"},
    }
    read: list[Trajectory] = []
    original = ProgressAdvantage.__call__
    monkeypatch.setattr(ProgressAdvantage, "__call__", lambda self, ts: read.extend(ts) or original(self, ts))
    run = fit(tiny_reasoning("GRPO", **model))
    assert all(len(t.values) == len(t.spans) + 1 for t in read)
    assert all(0 <= v <= 1 for t in read for v in t.values)
    assert len(column(run, "time/values_seconds")) == 8
    monkeypatch.setattr(ContinuationValues, "__call__", lambda self, policy, ts, seed_of: None)
    with pytest.raises(SystemExit):
        fit(tiny_reasoning("GRPO", **model), name="empty")
    assert "ContinuationValues gave 0 values to a completion of" in capsys.readouterr().err


def test_a_rollout_of_another_temperature_is_refused(
    fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler's continuations are at temperature 1, whatever the policy that is trained."""
    settings = tiny_reasoning("GRPO", **CONTINUED, sampling={"n": 2, "max_tokens": 8, "temperature": 0.7})
    with pytest.raises(SystemExit):
        fit(settings)
    assert "ContinuationSampler sampled at temperature 1.0, and the policy" in capsys.readouterr().err
