import csv
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import ExampleWeightMonitor, GroupMetrics, OfficialEvaluation, OODDetection, SelectiveRisk
from callbacks.evaluation import check_seen
from datamodules import DigitsDataModule, TrainingSet
from lightning_modules import BRDRO, ERM, JTT, GroupDRO
from lightning_modules.br_dro import Observation, Tail
from surefoot.classification.adversaries import LinearAdversary
from surefoot.classification.confounders import LabelNoise
from surefoot.classification.networks import MLP, ChannelStatistics
from surefoot.errors import ConfigError, DataError
from surefoot.losses.prediction import GaussianNLL

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def fit(module: LightningModule, callbacks: list[Any], folder: Path, data: Any = None, **settings: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    if not any(isinstance(c, ModelCheckpoint) for c in callbacks):
        quiet["enable_checkpointing"] = False
    trainer = Trainer(**(quiet | {"max_epochs": 3, "default_root_dir": folder} | settings), callbacks=callbacks)
    trainer.fit(module, datamodule=data or DigitsDataModule())
    return trainer


def erm() -> ERM:
    torch.manual_seed(0)
    return ERM(MLP(192, (16,)), adam, n_classes=2)


def test_group_metrics_equal_a_loop_over_the_predictions(tmp_path: Path) -> None:
    module, metrics, data = erm(), GroupMetrics(worst_k=3), DigitsDataModule()
    trainer = fit(module, [metrics], tmp_path, data)
    split = data.splits["test"]
    with torch.no_grad():
        right = module.eval()(split.examples.tensors["input"]).argmax(1) == split.target  # type: ignore[attr-defined]
    per_group = [float(right[split.group == g].float().mean()) for g in range(4)]
    logged = trainer.callback_metrics
    assert float(logged["test/worst_group_accuracy"]) == pytest.approx(min(per_group), rel=1e-6)
    assert float(logged["test/worst_3_group_accuracy"]) == pytest.approx(sum(sorted(per_group)[:3]) / 3, rel=1e-6)
    assert float(logged["test/accuracy"]) == pytest.approx(float(right.float().mean()), rel=1e-6)
    shares = data.train_group_counts() / data.n_train
    expected = sum(a * float(s) for a, s in zip(per_group, shares, strict=True))
    assert float(logged["test/train_weighted_accuracy"]) == pytest.approx(expected, rel=1e-6)
    assert int(logged["test/worst_group"]) == per_group.index(min(per_group))
    for name, value in zip(data.eval_group_names, per_group, strict=True):
        assert float(logged[f"test/group_accuracy/{name}"]) == pytest.approx(value, rel=1e-6)


def test_selection_names_the_checkpoints(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(dirpath=tmp_path, monitor="val/worst_group_accuracy", mode="max", filename="best")
    metrics = GroupMetrics()
    fit(erm(), [metrics, checkpoint], tmp_path, max_epochs=5)
    with (tmp_path / "selection.csv").open() as file:
        rows = {row["rule"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"val_average", "val_worst_group", "test_oracle"}
    assert rows["val_worst_group"]["checkpoint"] == checkpoint.best_model_path
    best = max(entry["val/worst_group_accuracy"] for entry in metrics.history)
    assert float(rows["val_worst_group"]["val/worst_group_accuracy"]) == pytest.approx(best)
    assert float(checkpoint.best_model_score) == pytest.approx(best)  # type: ignore[arg-type]


def test_jtts_first_stage_cannot_be_selected(tmp_path: Path) -> None:
    """The pitfall of released JTT results: checkpoints of the identification stage winning."""
    torch.manual_seed(0)
    module = JTT(MLP(192, (16,)), adam, identification_epochs=3, upweight=5.0, n_classes=2)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, monitor="val/accuracy", mode="max", filename="{epoch}")
    metrics = GroupMetrics()
    fit(module, [metrics, checkpoint], tmp_path, max_epochs=5)
    assert [bool(e["selectable"]) for e in metrics.history] == [False] * 3 + [True] * 2
    assert all(entry["epoch"] >= 3 for entry in metrics.selection.values())
    assert checkpoint.best_model_path in {str(tmp_path / f"epoch={e}.ckpt") for e in (3, 4)}
    assert not any((tmp_path / f"epoch={e}.ckpt").exists() for e in range(3))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_callbacks_change_nothing(tmp_path: Path, precision: str) -> None:
    def final(callbacks: list[Any]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = BRDRO(MLP(192, (16,)), adam, LinearAdversary, adam, n_classes=2)
        fit(module, callbacks, tmp_path, max_epochs=2, precision=precision)
        return module.state_dict()

    without, with_them = final([]), final([GroupMetrics(), ExampleWeightMonitor()])
    assert all(v.equal(with_them[k]) for k, v in without.items() if isinstance(v, torch.Tensor))


class NoMinority(DigitsDataModule):
    """Two of the four groups have no example in val."""

    def build(self) -> Any:
        splits = super().build()
        from dataclasses import replace

        from datamodules.splits import TensorExamples

        val = splits["val"]
        keep = ~val.annotations["minority"]
        tensors = {k: v[keep] for k, v in val.examples.tensors.items() if k != "index"}  # type: ignore[attr-defined]
        splits["val"] = replace(
            val,
            examples=TensorExamples(**tensors),
            target=val.target[keep],
            group=val.group[keep],
            eval_group=val.group[keep],
        )
        return splits


def test_group_metrics_of_a_regressor_are_refused(tmp_path: Path) -> None:
    regressor = ERM(MLP(192, (16,)), adam, n_classes=2, loss=GaussianNLL())
    with pytest.raises(ConfigError, match=r"GroupMetrics needs a classifier: .* return a dict with logits"):
        fit(regressor, [GroupMetrics()], tmp_path, max_epochs=1)


def test_empty_groups_are_named_once_and_never_nan(tmp_path: Path) -> None:
    metrics = GroupMetrics()
    with pytest.warns(UserWarning, match="2 groups have no example in val and count nowhere there: y=0,colour=1"):
        trainer = fit(erm(), [metrics], tmp_path, NoMinority())
    assert not any(math.isnan(v) for entry in metrics.history for v in entry.values())
    assert "val/group_accuracy/y=0,colour=1" not in trainer.callback_metrics


def test_monitor_recovers_group_dros_weights(tmp_path: Path) -> None:
    monitor, data = ExampleWeightMonitor(), DigitsDataModule(training=TrainingSet(sampling="group_balanced"))
    torch.manual_seed(0)
    module = GroupDRO(MLP(192, (16,)), adam, n_groups=4, n_classes=2)
    trainer = fit(module, [monitor], tmp_path, data, max_epochs=2)
    assert monitor.weights is not None
    assert monitor.weights.shape == (data.n_train,)
    assert float(trainer.callback_metrics["example_weights/minority_auc"]) > 0.8
    group = data.train_set.group
    for g, name in enumerate(data.group_names):
        logged = float(trainer.callback_metrics[f"example_weights/group_mean/{name}"])
        assert logged == pytest.approx(float(monitor.weights[group == g].mean()), rel=1e-5)


def test_monitor_sees_hidden_groups_and_noise_and_is_flat_for_erm(tmp_path: Path) -> None:
    monitor = ExampleWeightMonitor()
    data = DigitsDataModule(training=TrainingSet(group_labels="hidden"), label_noise=LabelNoise(0.2))
    trainer = fit(erm(), [monitor], tmp_path, data, max_epochs=1)
    assert monitor.weights is not None
    torch.testing.assert_close(monitor.weights, torch.ones(data.n_train))
    assert float(trainer.callback_metrics["example_weights/minority_auc"]) == pytest.approx(0.5)
    assert float(trainer.callback_metrics["example_weights/noisy_auc"]) == pytest.approx(0.5)


def test_colour_statistics_give_the_minority_away(tmp_path: Path) -> None:
    torch.manual_seed(0)
    monitor = ExampleWeightMonitor()
    module = BRDRO(
        MLP(192, (32,)),
        adam,
        LinearAdversary,
        lambda p: torch.optim.Adam(p, lr=0.3),
        observation=Observation(ChannelStatistics()),
        tail=Tail(0.1),
        penalty=1e-5,
        n_classes=2,
    )
    trainer = fit(
        module, [monitor], tmp_path, DigitsDataModule(training=TrainingSet(group_labels="hidden")), max_epochs=15
    )
    assert float(trainer.callback_metrics["example_weights/minority_auc"]) > 0.8


def test_states_survive_a_checkpoint() -> None:
    metrics, monitor = GroupMetrics(), ExampleWeightMonitor()
    metrics.history, monitor.weights = [{"epoch": 1.0}], torch.ones(3)
    again, watching = GroupMetrics(), ExampleWeightMonitor()
    again.load_state_dict(metrics.state_dict())
    watching.load_state_dict(monitor.state_dict())
    assert again.history == metrics.history
    assert watching.weights is not None
    with pytest.raises(ConfigError, match="worst_k must be at least 1, got 0"):
        GroupMetrics(worst_k=0)


def test_official_scores_and_submission_file(tmp_path: Path) -> None:
    from small_datasets import write

    from datamodules import WILDSDataModule
    from surefoot.classification.networks import SmallCNN

    write("waterbirds", tmp_path)
    data = WILDSDataModule("waterbirds", tmp_path, image_size=12, batch_size=4)
    torch.manual_seed(0)
    module = ERM(SmallCNN(3, (4,)), adam, n_classes=2)
    trainer = fit(module, [OfficialEvaluation(seed=7), GroupMetrics()], tmp_path, data, max_epochs=1)
    official = float(trainer.callback_metrics["test/official/acc_wg"])
    assert official == pytest.approx(float(trainer.callback_metrics["test/worst_group_accuracy"]), rel=1e-6)
    trainer.test(module, datamodule=data, verbose=False)
    lines = (tmp_path / "predictions/waterbirds_split:test_seed:7_epoch:best_pred.csv").read_text().split()
    assert len(lines) == len(data.splits["test"].target)
    assert set(lines) <= {"0", "1"}


def test_official_scores_of_a_part_are_of_what_was_seen(tmp_path: Path) -> None:
    """A model that always predicts class 1, judged on four of eight examples: no unseen row counts as class 0."""
    from small_datasets import write

    from datamodules import WILDSDataModule
    from surefoot.classification.networks import SmallCNN

    write("waterbirds", tmp_path)
    data = WILDSDataModule("waterbirds", tmp_path, image_size=12, eval_batch_size=4)
    module = ERM(SmallCNN(3, (4,)), adam, n_classes=2)
    with torch.no_grad():
        module.network.head.bias.copy_(torch.tensor([-100.0, 100.0]))
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    for n_batches in (1, 2):
        trainer = Trainer(
            **quiet,
            callbacks=[OfficialEvaluation()],
            default_root_dir=tmp_path,
            limit_test_batches=n_batches,
        )
        trainer.test(module, datamodule=data, verbose=False)
        found = {k: float(v) for k, v in trainer.callback_metrics.items()}
        landbirds = [v for k, v in found.items() if "acc_y:landbird" in k]
        assert landbirds
        assert max(landbirds) == 0.0, "every landbird that was seen was called a waterbird"
        assert (tmp_path / "predictions").exists() == (n_batches == 2)
    with pytest.warns(UserWarning, match="4 of 8 examples of test were evaluated"):
        Trainer(
            **quiet,
            callbacks=[OfficialEvaluation()],
            default_root_dir=tmp_path,
            limit_test_batches=1,
        ).test(module, datamodule=data, verbose=False)


@pytest.mark.parametrize("observer", [GroupMetrics(), SelectiveRisk(figures=False), OODDetection()])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_sets_that_are_evaluated_in_part_are_named(observer: Callback, share: float, tmp_path: Path) -> None:
    data = DigitsDataModule(eval_batch_size=100)
    module = ERM(MLP(192, (4,)), adam, n_classes=2)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(**quiet, callbacks=[observer], limit_test_batches=share).test(module, datamodule=data, verbose=False)
    said = [str(w.message) for w in caught if "examples of test were evaluated" in str(w.message)]
    part = ": 200 of 359 examples of test were evaluated; its numbers are theirs alone."  # two of four batches of 100
    assert said == ([type(observer).__name__ + part] if share < 1 else [])


def test_the_sizes_of_groups_are_in_the_run(tmp_path: Path) -> None:
    data = DigitsDataModule()
    fit(ERM(MLP(192, (4,)), adam, n_classes=2), [GroupMetrics()], tmp_path, data, max_epochs=1)
    with (tmp_path / "group_sizes.csv").open() as file:
        sizes = {(r["split"], r["group"]): int(r["size"]) for r in csv.DictReader(file)}
    for split in ("val", "test"):
        for i, name in enumerate(data.eval_group_names):
            assert sizes[split, name] == int((data.splits[split].eval_group == i).sum()) > 0


def test_examples_that_are_evaluated_twice_are_refused() -> None:
    assert check_seen(torch.tensor([1, 0, 1]), "test").tolist() == [True, False, True]
    with pytest.raises(DataError, match="1 examples of test were evaluated more than once"):
        check_seen(torch.tensor([1, 2, 1]), "test")
