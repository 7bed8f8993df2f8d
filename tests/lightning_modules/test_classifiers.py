"""One step changes what it should; limits of the methods are each other."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_classifiers import assert_same_weights, build_classifier, quiet_trainer, sgd, weights_after
from torch.utils.data import DataLoader

from callbacks import GroupMetrics
from datamodules import DigitsDataModule, TrainingSet
from lightning_modules import DFR, ERM, JTT, GroupDRO, LfF
from lightning_modules.br_dro import Tail
from lightning_modules.classification import AllExamples, Examples
from surefoot.classification.checkpoint_encoder import CheckpointEncoder
from surefoot.classification.confounders import Confounding
from surefoot.classification.networks import MLP, ConvNet
from surefoot.classification.pretrained_encoders import TimmEncoder
from surefoot.errors import ConfigError, NonFiniteLossError
from surefoot.losses import NoRegretUpdate, SoftUpdate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

KINDS = ("ERM", "GroupDRO", "CVaRDRO", "LfF", "JTT", "BRDRO")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 3}],
    ids=["plain", "bf16", "accumulate"],
)
def test_trains_and_changes_every_weight(kind: str, settings: dict[str, Any]) -> None:
    module = build_classifier(kind)
    before = {k: v.clone() for k, v in module.network.state_dict().items()}
    after = weights_after(module, **settings)
    assert all(not before[k].equal(after[k]) for k in before)
    assert all(bool(v.isfinite().all()) for v in after.values())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_equals_plain(kind: str) -> None:
    settings = {"limit_train_batches": 2, "limit_val_batches": 0}
    plain = weights_after(build_classifier(kind), **settings)
    compiled = weights_after(build_classifier(kind, compile=True), **settings)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-6)


def test_group_dro_with_one_group_is_erm() -> None:
    class OneGroup(DigitsDataModule):
        def collate_training(self, examples: Any) -> Any:
            batch = super().collate_training(examples)
            return batch | {"group": torch.zeros_like(batch["group"])}

        def train_group_counts(self) -> torch.Tensor:
            return torch.tensor([self.n_train])

    assert_same_weights(
        weights_after(build_classifier("ERM")),
        weights_after(build_classifier("GroupDRO", n_groups=1), OneGroup(batch_size=100)),
    )


def test_cvar_at_level_one_is_erm() -> None:
    assert_same_weights(weights_after(build_classifier("ERM")), weights_after(build_classifier("CVaRDRO", level=1.0)))


def test_jtt_retrains_from_the_first_weights_with_the_errors_drawn_more_often() -> None:
    module = build_classifier("JTT", upweight=50.0)
    assert isinstance(module, JTT)
    first = {k: v.clone() for k, v in module.network.state_dict().items()}
    data = DigitsDataModule(batch_size=100)
    seen: list[torch.Tensor] = []
    at_switch: dict[str, torch.Tensor] = {}
    step = module.training_step

    def spy(batch: dict[str, torch.Tensor], batch_idx: int) -> Any:
        if module.retraining:
            if not at_switch:
                at_switch.update({k: v.clone() for k, v in module.network.state_dict().items()})
            seen.append(batch["index"])
        return step(batch, batch_idx)

    module.training_step = spy  # type: ignore[method-assign]
    quiet_trainer(max_epochs=3).fit(module, datamodule=data)
    assert all(v.equal(first[k]) for k, v in at_switch.items())
    draws = torch.bincount(torch.cat(seen), minlength=data.n_train).float()
    ratio = float(draws[module.errors].mean() / draws[~module.errors].mean())
    assert ratio == pytest.approx(51, rel=0.5)
    assert module.selectable


def test_jtt_says_when_its_error_set_is_degenerate() -> None:
    module = build_classifier("JTT", identification_epochs=1)
    module.misclassified.__func__  # noqa: B018  (it is the method under test)
    with pytest.raises(ConfigError, match="max_epochs is 1 and must exceed identification_epochs, 1"):
        quiet_trainer(max_epochs=1).fit(module, datamodule=DigitsDataModule())

    class Separable(DigitsDataModule):
        def load(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
            parts = super().load()
            return {k: (t[:, None, None].float().expand(-1, 8, 8), t) for k, (_, t) in parts.items()}

    easy = build_classifier("JTT", identification_epochs=8)
    with pytest.raises(ConfigError, match="no training example is misclassified after 8 epochs"):
        quiet_trainer(max_epochs=10, limit_val_batches=0).fit(
            easy, datamodule=Separable(confounding=Confounding(minority_fraction=0.0))
        )


def test_lff_weights_are_shares_and_its_memory_is_by_example() -> None:
    module = build_classifier("LfF")
    weights_after(module)
    assert isinstance(module, LfF)
    assert bool(module.biased_losses.isfinite().all())
    assert module.targets.long().equal(_targets())
    fresh = build_classifier("LfF")
    fresh.on_load_checkpoint({"random_states": None, "state_dict": module.state_dict()})


def _targets() -> torch.Tensor:
    data = DigitsDataModule()
    data.setup("fit")
    return data.train_set.target


def test_dfr_refits_the_last_layer_alone(tmp_path: Any) -> None:
    erm = ERM(MLP(192, (16,)), sgd, n_classes=2)
    run = quiet_trainer(max_epochs=8, limit_val_batches=0)
    run.fit(erm, datamodule=DigitsDataModule(training=TrainingSet(group_labels="hidden")))
    run.save_checkpoint(tmp_path / "erm.ckpt")
    module = DFR(CheckpointEncoder(MLP(192, (16,)), tmp_path / "erm.ckpt"), n_classes=2, n_subsets=3)
    encoder = {k: v.clone() for k, v in module.network.encoder.state_dict().items()}
    assert all(v.equal(encoder[f"encoder.{k}"]) for k, v in erm.network.encoder.state_dict().items())
    head = module.network.head.weight.clone()
    metrics, data = GroupMetrics(), DigitsDataModule(training=TrainingSet(split="val"))
    run = quiet_trainer(max_epochs=1, callbacks=[metrics], default_root_dir=tmp_path)
    run.fit(module, datamodule=data)
    split = data.splits["test"]
    with torch.no_grad():
        right = module.eval()(split.examples.tensors["input"]).argmax(1) == split.target  # type: ignore[attr-defined]
    assert metrics.history[0]["test/accuracy"] == pytest.approx(float(right.float().mean())), (
        "the evaluation sees the new layer"
    )
    assert all(v.equal(encoder[k]) for k, v in module.network.encoder.state_dict().items())
    assert not module.network.head.weight.equal(head)


def test_group_methods_say_that_they_need_groups() -> None:
    with pytest.raises(ConfigError, match="needs a group per training example"):
        quiet_trainer().fit(
            build_classifier("GroupDRO"), datamodule=DigitsDataModule(training=TrainingSet(group_labels="hidden"))
        )


def test_adjustment_moves_small_groups_up() -> None:
    module = build_classifier("GroupDRO", adjustment=3.0)
    assert isinstance(module, GroupDRO)
    weights_after(module)
    data = DigitsDataModule()
    data.setup("fit")
    torch.testing.assert_close(module.adjustments, 3 / data.train_group_counts().float().sqrt())


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_groups_absent_from_train_have_no_weight(adjustment: float) -> None:
    """Two of the four groups are empty: the run is that of two groups, with whole weights."""

    class TwoGroups(DigitsDataModule):
        def __init__(self) -> None:
            unmixed = Confounding(minority_fraction=0.0)
            super().__init__(batch_size=100, confounding=unmixed, evaluate_test_during_fit=False)
            self.group_names = ["y=0", "y=1"]

        def build(self) -> Any:
            splits = super().build()
            return {k: replace(s, group=s.group // 2) for k, s in splits.items()}

    given = {"adjustment": adjustment, "step_size": 0.5}
    module, two = build_classifier("GroupDRO", **given), build_classifier("GroupDRO", n_groups=2, **given)
    after = weights_after(module, DigitsDataModule(batch_size=100, confounding=Confounding(minority_fraction=0.0)))
    assert_same_weights(after, weights_after(two, TwoGroups(), limit_val_batches=0))
    assert isinstance(module, GroupDRO)
    weights = module.log_group_weights.exp()
    assert float(weights.sum()) == pytest.approx(1, rel=1e-5)
    assert weights[[1, 2]].tolist() == [0, 0]
    assert isinstance(two, GroupDRO)
    torch.testing.assert_close(weights[[0, 3]], two.log_group_weights.exp())


def test_a_group_that_a_batch_lacks_is_not_raised_by_its_adjustment() -> None:
    module = build_classifier("GroupDRO", n_groups=3, step_size=1.0)
    assert isinstance(module, GroupDRO)
    module.adjustments = torch.tensor([0.0, 0.0, 9.0])
    module.log = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    losses, group = torch.tensor([math.log(2.0), 0.0]), torch.tensor([0, 1])
    examples = AllExamples(Examples(losses, torch.zeros(2, 2), torch.zeros(2, 2), {"group": group}))
    weights = module.example_weights(examples)
    # q = (1/3, 1/3, 1/3) becomes (2, 1, 1) / 4; the third group has no example in the batch.
    torch.testing.assert_close(module.log_group_weights.exp(), torch.tensor([0.5, 0.25, 0.25]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25]))


def test_a_wrong_number_of_groups_is_named() -> None:
    with pytest.raises(ConfigError, match="n_groups is 3 and DigitsDataModule has 4 groups"):
        quiet_trainer().fit(build_classifier("GroupDRO", n_groups=3), datamodule=DigitsDataModule())


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_one_work(kind: str) -> None:
    module = build_classifier(kind)
    epochs = 2 if kind == "JTT" else 1
    settings = {"max_epochs": epochs, "limit_train_batches": 3, "limit_val_batches": 0}
    after = weights_after(module, DigitsDataModule(batch_size=1), **settings)
    assert all(bool(v.isfinite().all()) for v in after.values())


@pytest.mark.parametrize("kind", [*KINDS, "timm"])
def test_batch_normalisation_says_that_one_example_is_too_few(kind: str) -> None:
    def fit(**data: Any) -> None:
        encoder = (
            TimmEncoder("test_resnet", pretrained=False)  # images of 160 pixels, which 8 are too few for in training
            if kind == "timm"
            else ConvNet(3, 8, (4,), 8, batch_norm=True)
        )
        module = build_classifier("ERM" if kind == "timm" else kind, encoder=encoder)
        run = quiet_trainer(limit_val_batches=0)
        run.fit(module, datamodule=DigitsDataModule(batch_size=1078, **data))

    with pytest.raises(ConfigError, match=r"a batch of one example: set data\.init_args\.training\.drop_last"):
        fit()  # 1,079 examples: the last batch holds one
    fit(training=TrainingSet(drop_last=True))


def test_drop_last_is_of_training_alone() -> None:
    data = DigitsDataModule(batch_size=500, eval_batch_size=500, training=TrainingSet(drop_last=True))
    data.setup("fit")
    assert [len(b["target"]) for b in data.train_dataloader()] == [500, 500]
    assert [len(b["target"]) for b in data.test_dataloader()[0]] == [359]
    data = DigitsDataModule(batch_size=2000, training=TrainingSet(drop_last=True))
    data.setup("fit")
    with pytest.raises(ConfigError, match="1079 training examples and batch_size is 2000"):
        data.train_dataloader()


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_stops_training_with_a_word_where(kind: str) -> None:
    module = build_classifier(kind)

    class Poisoned(DigitsDataModule):
        def collate_training(self, examples: Any) -> Any:
            batch = super().collate_training(examples)
            return batch | {"input": batch["input"] * float("nan")}

    with pytest.raises(NonFiniteLossError, match="NaN or infinite at epoch 0, optimizer step 0"):
        quiet_trainer().fit(module, datamodule=Poisoned())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ERM(MLP(4), sgd), "n_classes must be at least 2, got None"),
        (lambda: build_classifier("GroupDRO", n_groups=None), "n_groups must be at least 1, got None"),
        (lambda: build_classifier("GroupDRO", step_size=-1.0), "step_size and adjustment must be at least 0"),
        (lambda: build_classifier("CVaRDRO", level=0.0), r"level must be in \(0, 1\], got 0.0"),
        (lambda: Tail(level=2.0), r"level must be in \(0, 1\]"),
        (lambda: build_classifier("BRDRO", penalty=-1.0), "penalty must be at least 0"),
        (lambda: SoftUpdate(n_steps=0), "n_steps must be at least 1 and warmup_epochs at least 0, got 0 and 0"),
        (lambda: NoRegretUpdate(-0.1), "hedge_step must be at least 0"),
        (lambda: NoRegretUpdate(importance="sampling"), "needs a hedge_step above 0"),
        (lambda: build_classifier("JTT", upweight=-1.0), "upweight at least 0"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_dfr_fits_on_every_example_once() -> None:
    """Two ranks repeat an example to even out their shares, and draws by weight repeat many."""

    def fitted(order: list[int]) -> torch.Tensor:
        module = DFR(MLP(3, (4,)), n_classes=2, n_subsets=1)
        torch.manual_seed(0)
        features, target = torch.randn(12, 4), torch.arange(12) % 2
        module.log = module.count_step = lambda *_: None  # type: ignore[assignment,method-assign]
        rows, group = torch.tensor(order), torch.arange(12) // 3
        module.collected = [(features[rows], target[rows], group[rows], rows)]
        module.refit()
        return module.network.head.weight.detach().clone()

    once = list(range(12))
    assert fitted([*once, 0, 5]).equal(fitted(once))


def test_a_loader_that_cannot_draw_by_weight_is_refused_in_one_line() -> None:
    """Of the datamodule's own loader the sampler takes the weights."""
    data = DigitsDataModule()
    data.setup("fit")
    loader, weights = data.train_dataloader(), torch.ones(data.n_train)
    module = build_classifier("JTT")
    for sampled in (loader, DataLoader(loader.dataset, shuffle=True)):
        module._trainer = SimpleNamespace(train_dataloader=sampled)
        if sampled is loader:
            module.draw_by(weights)
            assert torch.equal(loader.sampler.weights, weights.double())
        else:
            with pytest.raises(ConfigError, match=r"JTT draws training examples by weight.* not a DataLoader"):
                module.draw_by(weights)
