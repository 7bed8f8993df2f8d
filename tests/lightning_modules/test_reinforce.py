"""REINFORCE: what a token is compared with, where gradients go, and that it learns."""

import csv
from typing import Any

import pytest
import torch
from conftest import Fit
from tiny_reasoning import tiny_reasoning

from lightning_modules import Reinforce
from lightning_modules.reasoning.grpo import CreditedRollout
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import pack_sequences
from surefoot.reasoning.trajectories import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore")


def settings(**model: Any) -> dict[str, Any]:
    config = tiny_reasoning("GRPO", **model)
    config["model"]["class_path"] = "Reinforce"
    return config


def test_tokens_are_compared_with_the_head_and_its_gradient_stays_there() -> None:
    model = TinyLanguageModel(width=16, n_layers=1, n_heads=2, max_length=32)
    module = Reinforce(language_model=model, optimizer=torch.optim.SGD, engine=None)
    torch.nn.init.normal_(module.value_head.linear.weight)
    rollout = [
        Trajectory(Problem(str(i), "1+1=", "2"), i, [1, 2, 3], ids, [-1.0] * len(ids), "stop", 0)
        for i, ids in enumerate(([4, 5, 6], [7, 8]))
    ]
    worth = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.5])]
    (pack,) = pack_sequences([t.sequence for t in rollout], 100)
    credited = CreditedRollout(rollout, worth, worth, None, None)
    (logprobs, _), advantages, added = module.scores_and_advantages(pack, credited)
    expected = module.value_head(pack.at_predictors(model.hidden_states(pack)))
    torch.testing.assert_close(logprobs, model.score(pack).logprobs)
    torch.testing.assert_close(advantages, torch.tensor([1.0, 2.0, 3.0, -1.0, 0.5]) - expected)
    torch.testing.assert_close(added, (advantages).square())
    assert not advantages.requires_grad
    added.sum().backward()
    assert module.value_head.linear.weight.grad is not None
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_it_learns_from_one_completion_of_each_problem(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward for every text with a digit below five; no group, no values, a baseline that follows."""
    plain = {"class_path": "EffectiveRewardAdvantage", "init_args": {"alpha": 0.0, "baseline": "none"}}
    config = settings(credit=plain, sampling={"n": 1, "max_tokens": 10})
    config["trainer"] |= {"max_epochs": 1, "limit_val_batches": 0, "callbacks": []}
    config["data"]["init_args"] |= {"n_train": 1600, "batch_size": 32}
    run = fit(config)
    with (run / "metrics.csv").open() as file:
        rewards = [float(row["rollout/reward"]) for row in csv.DictReader(file) if row["rollout/reward"]]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert bool(state["value_head.linear.weight"].any())
    assert "compared with the others" not in capsys.readouterr().err


def test_effective_rewards_of_sampled_values(fit: Fit) -> None:
    values = {"class_path": "MonteCarloValues", "init_args": {"sampling": {"n": 2, "max_tokens": 10}}}
    config = settings(values=values, rewards={"step_separator": "1"}, sampling={"n": 1, "max_tokens": 10})
    run = fit(config)
    assert (run / "finished.json").is_file()


def test_what_is_refused(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    for init, message in (
        ({"baseline_weight": 0.0}, "baseline_weight must be positive"),
        ({"sampling": {"n": 1, "max_tokens": 10}}, "reads values of steps: set model.init_args.values"),
    ):
        with pytest.raises(SystemExit):
            fit(settings(**init))
        assert message in capsys.readouterr().err
