"""BR-DRO: its limits are other methods, its players leave each other alone, its importance enters as it says."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_classifiers import assert_same_weights, build_classifier, quiet_trainer, weights_after

from datamodules import DigitsDataModule
from lightning_modules import BRDRO
from lightning_modules.br_dro import Observation, Tail
from surefoot.classification.adversaries import (
    Adversary,
    ConstantAdversary,
    LinearAdversary,
    UnrestrictedAdversary,
)
from surefoot.classification.networks import ChannelStatistics, Flatten, SmallCNN
from surefoot.losses import AdversaryUpdate, NoRegretUpdate, SoftUpdate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_br_dro_with_a_constant_adversary_is_erm() -> None:
    assert_same_weights(
        weights_after(build_classifier("ERM")), weights_after(build_classifier("BRDRO", adversary=ConstantAdversary))
    )


@pytest.mark.parametrize("normalisation", ["batch", "level"])
def test_br_dro_with_an_unrestricted_adversary_is_cvar(normalisation: str) -> None:
    # Whole batches of 100 and a level of 0.1: ten examples in the tail, no remainder. A linear model: dead hidden
    # units would give examples equal losses, and ties are broken differently.
    data = {"limit_train_batches": 10}
    cvar = weights_after(build_classifier("CVaRDRO", level=0.1, encoder=Flatten(192)), **data)
    settings = {
        "encoder": Flatten(192),
        "adversary": UnrestrictedAdversary,
        "tail": Tail(0.1, normalisation, floor=0.0),  # type: ignore[arg-type]
    }
    assert_same_weights(cvar, weights_after(build_classifier("BRDRO", **settings), **data))


class StopWithinWarmUp(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 1


def test_br_dro_warm_up_is_erm() -> None:
    settings = {"max_epochs": 3, "callbacks": [StopWithinWarmUp()]}
    erm = weights_after(build_classifier("ERM"), **settings)
    assert_same_weights(erm, weights_after(build_classifier("BRDRO", update=SoftUpdate(warmup_epochs=2)), **settings))


def test_the_players_leave_each_other_alone() -> None:
    module = build_classifier("BRDRO", adversary=LinearAdversary, observation=Observation(ChannelStatistics()))
    data = DigitsDataModule(batch_size=100)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    quiet_trainer(limit_train_batches=1, limit_val_batches=0, max_epochs=1).fit(module, datamodule=data)
    assert isinstance(module, BRDRO)
    assert module.adversary.weight.abs().sum() > 0, "the adversary has stepped"  # type: ignore[operator,union-attr]
    module.zero_grad()
    network = {k: v.clone() for k, v in module.network.state_dict().items()}
    examples = module.run_network(batch)
    losses, threshold = examples.losses.detach(), module.update_threshold(examples.losses.detach())
    module.log = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    module.adversary_step(ChannelStatistics()(batch["input"]), batch["target"], losses, threshold)
    assert all(p.grad is None for p in module.network.parameters()), "its gradient never reaches the network"
    assert all(v.equal(network[k]) for k, v in module.network.state_dict().items())
    adversary = [p.clone() for p in module.adversary.parameters()]
    module.zero_grad()
    weights = module.adversary.respond(ChannelStatistics()(batch["input"]), batch["target"], losses, threshold)
    (weights.detach() * examples.losses).sum().backward()
    assert all(p.grad is None for p in module.adversary.parameters())
    assert all(p.equal(q) for p, q in zip(module.adversary.parameters(), adversary, strict=True))


@pytest.mark.parametrize("update", [SoftUpdate(n_steps=2), NoRegretUpdate(0.05, n_steps=2)])
def test_br_dros_observation_may_be_a_trained_backbone(update: AdversaryUpdate) -> None:
    observation = SmallCNN(3, (4,))
    before = [p.clone() for p in observation.parameters()]
    settings = {"observation": Observation(observation), "update": update, "tail": Tail(threshold_decay=0.9)}
    module = build_classifier("BRDRO", **settings)
    weights_after(module)
    assert any(not p.equal(q) for p, q in zip(observation.parameters(), before, strict=True))
    if update.hedge_step:
        assert isinstance(module, BRDRO)
        assert float(module.log_importance.min()) > 0, "every example was visited"


def test_hedge_grows_by_the_weight_at_each_visit() -> None:
    module = build_classifier("BRDRO", update=NoRegretUpdate(0.5))
    assert isinstance(module, BRDRO)
    module.register_buffer("log_importance", torch.zeros(4))
    module.register_buffer("draw_frequency", torch.tensor([1.0, 0.1, 1.0, 2.0]))
    module.update_importance(torch.tensor([1, 3, 3]), torch.tensor([1.0, 0.2, 0.6]))
    # Example 1 is drawn less often than at first and counts once; 3 is drawn twice as often: 0.5 (0.2 + 0.6) / 2.
    expected = torch.exp(torch.tensor([0.0, 0.5, 0.0, 0.2]))
    torch.testing.assert_close(module.relative_importance(), expected / expected.mean())


@pytest.mark.parametrize("importance", ["loss", "sampling"])
def test_importance_enters_by_the_loss_or_by_the_draws(importance: str) -> None:
    """By the loss every example is drawn once an epoch; by sampling the important ones are drawn more often."""
    module = build_classifier(
        "BRDRO",
        adversary=UnrestrictedAdversary,
        update=NoRegretUpdate(3.0, importance),  # type: ignore[arg-type]
        tail=Tail(0.2),
    )
    assert isinstance(module, BRDRO)
    n_train = 1079
    drawn = torch.zeros(2, n_train)
    before: list[torch.Tensor] = []
    step = module.training_step

    def spy(batch: dict[str, torch.Tensor], batch_idx: int) -> Any:
        if batch_idx == 0:
            before.append(module.relative_importance())
        drawn[module.current_epoch].index_add_(0, batch["index"], torch.ones(len(batch["index"])))
        return step(batch, batch_idx)

    module.training_step = spy  # type: ignore[method-assign]
    weights_after(module)
    assert float(before[1].max() / before[1].min()) > 2
    if importance == "loss":
        assert bool((drawn == 1).all())
        torch.testing.assert_close(module.draw_frequency, torch.ones(n_train))
    else:
        torch.testing.assert_close(module.draw_frequency, before[1])
        often = before[1] > before[1].mean()
        assert float(drawn[1][often].mean()) > 1.5 * float(drawn[1][~often].mean())


def test_a_new_adversary_is_one_class() -> None:
    class ByLabel(Adversary):
        def __init__(self, n_features: int, n_classes: int) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(n_classes))

        def forward(self, observation: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.logits[target]

        def complexity(self, observation: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.logits.square().sum()

    weights_after(build_classifier("BRDRO", adversary=ByLabel), max_epochs=1)
