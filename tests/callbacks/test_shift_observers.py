"""The observers of shifted sets: what they report equals a loop over predictions, and they change nothing."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.metrics import roc_auc_score
from small_datasets import write_fashion_mnist, write_madlibs

from callbacks import ConstantSolutionAnalysis, GroupMetrics, OODDetection, SelectiveRisk
from datamodules import (
    Corruption,
    DigitsDataModule,
    FashionMNISTDataModule,
    HeldOut,
    MadlibsDataModule,
    OtherDataset,
    TrainingSet,
)
from lightning_modules import BRDRO, ERM, JTT, LfF
from surefoot.classification.adversaries import LinearAdversary
from surefoot.classification.networks import MLP, ConvNet, Flatten
from surefoot.classification.pretrained_encoders import TransformersEncoder
from surefoot.errors import ConfigError
from surefoot.losses.prediction import (
    AbsoluteError,
    CrossEntropy,
    GaussianNLL,
    PredictionLoss,
    RewardPrediction,
    SquaredError,
)
from surefoot.metrics.selective_risk import fit_temperatures

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
SHIFTS = (Corruption("noise", [0.1, 0.5]), Corruption("rotation", [45]))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def digits(**settings: Any) -> DigitsDataModule:
    settings = {"target": "digit", "confounding": None, "imbalance": 3.0, "shifts": SHIFTS} | settings
    return DigitsDataModule(**settings)


def make(loss: PredictionLoss | None = None, **settings: Any) -> ERM:
    torch.manual_seed(0)
    return ERM(MLP(192, (16, 12)), adam, n_classes=10, loss=loss, **settings)


def trainer(folder: Path, callbacks: list[Any], **settings: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    return Trainer(**(quiet | {"max_epochs": 3, "default_root_dir": folder} | settings), callbacks=callbacks)


def evaluate(
    folder: Path, module: LightningModule, data: Any, callbacks: list[Any], verb: str = "test"
) -> dict[str, float]:
    run = trainer(folder, callbacks)
    getattr(run, verb)(module, datamodule=data, verbose=False)
    return {k: float(v) for k, v in run.callback_metrics.items()}


def predictions(module: LightningModule, data: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return outputs and targets of every set, one after the other."""
    found = {}
    with torch.no_grad():
        for name, loader in zip(data.evaluated("test"), data.test_dataloader(), strict=True):
            batches = [data.on_after_batch_transfer(b, 0) for b in loader]
            outputs = torch.cat([module.eval()(b["input"]) for b in batches])
            found[name] = outputs, torch.cat([b["target"] for b in batches])
    return found


@pytest.mark.parametrize(
    "loss",
    [CrossEntropy(0.1), RewardPrediction(), SquaredError(), AbsoluteError(), GaussianNLL()],
    ids=lambda x: type(x).__name__,
)
def test_sets_equal_a_loop_over_the_predictions(loss: PredictionLoss, tmp_path: Path) -> None:
    module, data, analysis = make(loss), digits(), ConstantSolutionAnalysis(figures=False)
    trainer(tmp_path, []).fit(module, datamodule=data)
    logged = evaluate(tmp_path, module, data, [analysis])
    constant = loss.constant(data.train_set.target, 10)
    torch.testing.assert_close(analysis.constant, constant.float())
    found = predictions(module, data)
    assert [row["set"] for row in analysis.sets] == list(found)
    first = float(loss.distances(found["test"][0], constant).mean())
    for row in analysis.sets:
        outputs, target = found[row["set"]]
        distances = loss.distances(outputs, constant)
        assert row["distance"] == pytest.approx(float(distances.mean()), rel=1e-4)
        half = 1.96 * float(distances.std(correction=0)) / len(distances) ** 0.5
        assert row["distance_high"] - row["distance"] == pytest.approx(half, rel=1e-3)
        assert row["normalised_distance"] == pytest.approx(row["distance"] / first, rel=1e-4)
        assert row["loss"] == pytest.approx(float(loss.losses(outputs, target).mean()), rel=1e-4)
        scores, confidences = loss.class_scores(outputs), loss.confidences(outputs)
        if scores is None:
            assert row["accuracy"] is None
        else:
            right = (scores.argmax(1) == target).float().mean()
            assert row["accuracy"] == pytest.approx(float(right))
        if confidences is None:
            assert row["confidence"] is None
        else:
            assert row["confidence"] == pytest.approx(float(confidences.mean()), rel=1e-5)
        assert logged[f"shift/{row['set']}/distance"] == pytest.approx(row["distance"], rel=1e-5)
    for table in ("sets", "layers", "constants"):
        with (tmp_path / f"constant_solution/{table}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(getattr(analysis, table))


def test_layers_and_constants_equal_those_computed_by_hand(tmp_path: Path) -> None:
    module, data = make(), digits()
    trainer(tmp_path, []).fit(module, datamodule=data)
    analysis = ConstantSolutionAnalysis(figures=False)
    evaluate(tmp_path, module, data, [analysis])
    encoder, head = module.network.encoder.layers, module.network.head  # type: ignore[union-attr]
    with torch.no_grad():
        inner = head(encoder[3](torch.zeros(1, 16)).relu())[0]  # type: ignore[index,operator]
        reference = None
        for name, loader in zip(data.evaluated("test"), data.test_dataloader(), strict=True):
            inputs = torch.cat([b["input"] for b in loader])
            features = module.network.encoder(inputs)
            norms = (head(features) - head.bias).norm(dim=1).mean()
            reference = norms if reference is None else reference
            (row,) = [r for r in analysis.layers if r["set"] == name and r["layer"] == "head"]
            assert row["norm"] == pytest.approx(float(norms), rel=1e-5)
            assert row["relative_norm"] == pytest.approx(float(norms / reference), rel=1e-5)
            outputs = head(features)
            signal, bias = outputs - outputs.mean(1, keepdim=True), inner - inner.mean()
            share = bias.norm() / (bias.norm() + (signal - bias).norm(dim=1))
            (row,) = [r for r in analysis.sets if r["set"] == name]
            assert row["bias_share"] == pytest.approx(float(share.mean()), rel=1e-4)
            unit = torch.nn.functional.normalize(features)
            if name == "test":
                values, vectors = torch.linalg.eigh((unit.T @ unit).double())
                order = values.flip(0).cumsum(0) / values.sum()
                basis = vectors.flip(1)[:, : int((order < 0.95).sum()) + 1].float()
            (row,) = [r for r in analysis.layers if r["set"] == name and r["layer"] == "head"]
            within = (unit @ basis).square().sum(1).mean()
            assert row["in_distribution_share"] == pytest.approx(float(within), rel=1e-4)
    predicted = [r["prediction"] for r in analysis.constants if r["signal_cut_before"] == "encoder.layers.3"]
    torch.testing.assert_close(torch.tensor(predicted), inner.softmax(0))


def test_the_constant_is_that_of_the_examples_drawn(tmp_path: Path) -> None:
    analysis = ConstantSolutionAnalysis(figures=False)
    evaluate(tmp_path, make(), digits(training=TrainingSet(sampling="class_balanced")), [analysis], "validate")
    torch.testing.assert_close(analysis.constant, torch.full((10,), 0.1))
    assert analysis.sets[0]["set"] == "val"


def test_observers_change_nothing_and_leave_no_hook(tmp_path: Path) -> None:
    def final(callbacks: list[Any]) -> dict[str, torch.Tensor]:
        module, data = make(), digits()
        run = trainer(tmp_path, callbacks, max_epochs=2)
        run.fit(module, datamodule=data)
        run.test(module, datamodule=data, verbose=False)
        run.fit_loop.epoch_progress.reset()
        run.fit_loop.max_epochs = 2
        run.fit(module, datamodule=data)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        return module.state_dict()

    observers = [ConstantSolutionAnalysis(figures=False), SelectiveRisk(figures=False)]
    without, with_them = final([]), final([*observers, OODDetection()])
    assert all(v.equal(with_them[k]) for k, v in without.items())


def test_figures_one_per_mechanism_and_an_ood_score(tmp_path: Path) -> None:
    analysis = ConstantSolutionAnalysis(score_encoder=Flatten(192), score_repeats=2)
    evaluate(tmp_path, make(), digits(), [analysis, SelectiveRisk()])
    scores = {row["set"]: row["ood_score"] for row in analysis.sets}
    assert scores["test"] == 0.5
    assert scores["noise_2"] > scores["noise_1"] > 0.5
    drawn = {p.stem for p in (tmp_path / "constant_solution").glob("*.svg")}
    assert drawn == {
        *("distance", "normalised_distance", "confidence", "accuracy", "bias_share"),
        *("relative_norm", "in_distribution_share", "row_space_share"),
    }
    assert (tmp_path / "selective_risk/reward_oracle.svg").is_file()


def test_sets_without_labels_are_measured_but_not_scored(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    fashion = FashionMNISTDataModule(tmp_path, confounding=None, n_eval=40)
    data = digits(shifts=[OtherDataset(fashion, "fashion")])
    analysis, risk, groups = ConstantSolutionAnalysis(), SelectiveRisk(), GroupMetrics()
    logged = evaluate(tmp_path, make(), data, [analysis, risk, groups, OODDetection()])
    row = analysis.sets[1]
    assert row["set"] == "fashion"
    assert row["n_examples"] == 40
    assert row["accuracy"] is None
    assert row["loss"] is None
    assert row["distance"] > 0
    earned = {r["policy"]: r["reward"] for r in risk.results if r["set"] == "fashion"}
    assert earned["always_act"] == -4.0, "no answer is right"
    assert earned["oracle"] == 0.0
    assert "test/worst_group_accuracy" in logged
    assert not any(k.startswith("fashion/") for k in logged)
    assert 0 <= logged["shift/fashion/auroc_knn"] <= 1


def test_decisions_equal_a_loop(tmp_path: Path) -> None:
    module, data, risk = make(), digits(), SelectiveRisk(wrong=-2.0, figures=False)
    trainer(tmp_path, []).fit(module, datamodule=data)
    evaluate(tmp_path, module, data, [risk])
    found = predictions(module, data)
    factors = fit_temperatures(*found["test"])
    for name, (logits, target) in found.items():
        for policy, scaled in (
            ("max_softmax", logits),
            ("calibrated_max_softmax", logits * factors),
        ):
            total = abstained = 0.0
            for probabilities, true in zip(scaled.softmax(1), target, strict=True):
                if float(probabilities.max()) > 2 / 3:  # c / (1 + c) with c = 2
                    total += 1.0 if int(probabilities.argmax()) == int(true) else -2.0
                else:
                    abstained += 1
            (row,) = [r for r in risk.results if r["set"] == name and r["policy"] == policy]
            assert row["reward"] == pytest.approx(total / len(target), abs=1e-6)
            assert row["abstention"] == pytest.approx(abstained / len(target))
    rewards = {(r["set"], r["policy"]): r["reward"] for r in risk.results}
    for name in found:
        assert rewards[name, "oracle"] >= rewards[name, "always_act"]


def test_a_predictor_of_rewards_learns_to_abstain(tmp_path: Path) -> None:
    module, data, risk = make(RewardPrediction()), digits(), SelectiveRisk(figures=False)
    trainer(tmp_path, [], max_epochs=80).fit(module, datamodule=data)
    evaluate(tmp_path, module, data, [risk])
    table = {(r["set"], r["policy"]): r for r in risk.results}
    cautious, bold = (table["noise_2", p] for p in ("reward_prediction", "always_act"))
    assert cautious["reward"] > bold["reward"]
    assert cautious["abstention"] > table["test", "reward_prediction"]["abstention"]
    assert bold["abstention"] == 0


def test_detection_equals_scikit_learns(tmp_path: Path) -> None:
    module, data, detection = make(), digits(), OODDetection(n_training_examples=300)
    trainer(tmp_path, []).fit(module, datamodule=data)
    evaluate(tmp_path, module, data, [detection])
    found = predictions(module, data)
    inside = found["test"][0]
    for name in ("noise_1", "noise_2", "rotation_1"):
        outside = found[name][0]
        labels = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
        scores = torch.cat([inside, outside])
        for score, values in (
            ("max_softmax", -scores.softmax(1).amax(1)),
            ("energy", -scores.logsumexp(1)),
        ):
            (row,) = [r for r in detection.results if r["set"] == name and r["score"] == score]
            assert row["auroc"] == pytest.approx(roc_auc_score(labels, values), abs=1e-4)
    assert {r["score"] for r in detection.results} == {*("max_softmax", "energy", "mahalanobis", "knn")}


def test_texts_under_a_transformer(tmp_path: Path) -> None:
    write_madlibs(tmp_path)
    torch.manual_seed(0)
    config = {"vocab_size": 64, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    encoder = TransformersEncoder("distilbert", pretrained=False, config=config)
    module = ERM(encoder, adam, n_classes=2)
    data = MadlibsDataModule(tmp_path, shifts=[HeldOut()])
    analysis = ConstantSolutionAnalysis(figures=False)
    evaluate(tmp_path, module, data, [analysis, SelectiveRisk(figures=False)])
    assert [row["set"] for row in analysis.sets] == ["test", "template_you_are_adj"]
    layers = {row["layer"] for row in analysis.layers}
    assert "head" in layers
    assert any("ffn.lin1" in layer for layer in layers)
    assert analysis.constants[-1]["signal_cut_before"] == "head"


def test_a_convolutional_network_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ERM(ConvNet(3, 8, (4,), 6, batch_norm=True), adam, n_classes=10)
    analysis = ConstantSolutionAnalysis(figures=False)
    run = trainer(tmp_path, [analysis], precision="bf16-mixed")
    run.test(module, datamodule=digits(), verbose=False)
    full = ConstantSolutionAnalysis(figures=False)
    evaluate(tmp_path, module, digits(), [full])
    for half, whole in zip(analysis.sets, full.sets, strict=True):
        assert half["distance"] == pytest.approx(whole["distance"], rel=0.05, abs=1e-3)


def test_any_group_robust_method_can_be_analysed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for module in (
        LfF(MLP(192, (8,)), adam, n_classes=10),
        BRDRO(MLP(192, (8,)), adam, LinearAdversary, adam, n_classes=10),
    ):
        analysis = ConstantSolutionAnalysis(figures=False)
        evaluate(tmp_path, module, digits(), [analysis])
        assert all(row["distance"] > 0 for row in analysis.sets)
        assert not any("biased" in row["layer"] for row in analysis.layers), "never run"


def test_regressors_and_classifiers_train_on_the_same_batches(tmp_path: Path) -> None:
    for loss in (SquaredError(), AbsoluteError(), GaussianNLL(warmup_epochs=5)):
        module, data = make(loss), digits(shifts=())
        torch.manual_seed(0)
        trainer(tmp_path, [], max_epochs=60).fit(module, datamodule=data)
        outputs, target = predictions(module, data)["test"]
        constant = loss.constant(data.train_set.target, 10)
        error = (outputs[:, 0] - target).abs().mean()
        guess = (float(constant[0]) - target.float()).abs().mean()
        assert float(error) < 0.7 * float(guess), "better than the constant"


def test_predictions_of_a_regressor(tmp_path: Path) -> None:
    module, data = make(GaussianNLL()), digits(shifts=())
    batches = trainer(tmp_path, []).predict(module, datamodule=data)
    assert batches is not None
    predicted: Any = batches[0]
    assert set(predicted) == {"predictions", "index"}
    assert bool((predicted["predictions"][:, 1] > 0).all()), "mean and deviation"


class Foreign(LightningModule):
    """A module that says nothing of its loss."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Return nothing."""


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Foreign has none"):
        evaluate(tmp_path, Foreign(), digits(), [ConstantSolutionAnalysis()])
    with pytest.raises(ConfigError, match="no convolution or linear layer nose"):
        evaluate(tmp_path, make(), digits(), [ConstantSolutionAnalysis(layers=["nose"])])
    with pytest.raises(ConfigError, match="needs a classifier or a predictor of rewards"):
        evaluate(tmp_path, make(SquaredError()), digits(), [SelectiveRisk()])
    with pytest.raises(ConfigError, match="returns logits and features"):
        evaluate(tmp_path, make(SquaredError()), digits(), [OODDetection()])
    with pytest.raises(ConfigError, match="ordered wrong < abstain < right"):
        SelectiveRisk(wrong=2.0)
    with pytest.raises(ConfigError, match="must be at least 1, got 5000 and 0"):
        OODDetection(neighbour=0)
    with pytest.raises(ConfigError, match="must be at least 1, got 576, 0 and 30"):
        ConstantSolutionAnalysis(n_inputs=0)
    with pytest.raises(ConfigError, match="JTT is defined for CrossEntropy, got SquaredError"):
        JTT(
            MLP(4, (2,)),
            adam,
            identification_epochs=1,
            upweight=2,
            n_classes=2,
            loss=SquaredError(),
        )
