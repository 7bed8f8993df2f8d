"""Private linear models through configs: what they learn, what they spend, and what a resumed run may not change."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from logged import metric_values
from small_datasets import write_cifar10
from tiny_private import SEEDED, descent, tiny_private
from torch import Tensor

from surefoot.cli import main
from surefoot.cli.loading import build_datamodule, load_module
from surefoot.errors import DataError
from surefoot.privacy import (
    Budget,
    DescentSettings,
    Ledger,
    LinearLoss,
    Mechanism,
    NoisyGradientDescent,
    PrivateFit,
    SeededNoise,
    calibrate_noise,
    clipped_gradient_sum,
    epsilon_of,
    private_descent,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def perturbation(kind: str, **settings: Any) -> dict[str, Any]:
    """Return the config of output or objective perturbation."""
    return {"class_path": f"{kind}Perturbation", "init_args": settings}


def trained(run: Path) -> Any:
    """Return the module of a run with its weights."""
    return load_module(run / "checkpoints/last.ckpt")


@pytest.mark.parametrize("subspace", [None, {"class_path": "TasksSVD", "init_args": {"n_directions": 2}}])
def test_a_run_is_the_algorithm_and_spends_what_it_says(subspace: Any, fit: Fit) -> None:
    run = fit(tiny_private(subspace=subspace))
    module = trained(run)
    data: Any = build_datamodule(tiny_private()["data"])
    data.setup("fit")
    examples = data.splits["train"].tensors
    given = DescentSettings(NoisyGradientDescent(2.0, 0.5), Budget(2.0, 1e-5), 20, 0.2)
    multiplier = calibrate_noise(2.0, 1e-5, 0.2, 20)
    basis = module.basis if subspace else None
    expected = private_descent(examples["input"], examples["target"], "squared", given, SeededNoise(0), basis)
    torch.testing.assert_close(module.full_weight(), expected, rtol=1e-4, atol=1e-6)
    (noise,) = set(metric_values(run, "privacy/noise_multiplier"))
    assert noise == pytest.approx(multiplier, rel=1e-5)
    spent = metric_values(run, "privacy/epsilon")
    assert spent[-1] == pytest.approx(epsilon_of(multiplier, 0.2, 20, 1e-5), rel=1e-4)
    assert spent[0] < spent[-1] <= 2.0
    risk = float((expected[:, 0] - data.true_weight).square().sum())
    assert metric_values(run, "val/excess_risk")[-1] == pytest.approx(risk, rel=1e-3)


def test_without_noise_the_same_code_nears_least_squares(fit: Fit) -> None:
    free = {"epsilon": math.inf, "delta": 1e-5}
    config = tiny_private(budget=free, mechanism=descent(clip=1e6, average_last=0.1))
    config["data"]["init_args"] |= {"sampling_rate": 1.0, "steps_per_epoch": 40}
    run = fit(config)
    data: Any = build_datamodule(config["data"])
    data.setup("fit")
    examples = data.splits["train"].tensors
    best = torch.linalg.lstsq(examples["input"], examples["target"][:, None]).solution
    torch.testing.assert_close(trained(run).full_weight(), best, rtol=1e-3, atol=1e-4)
    assert "privacy/epsilon" not in (run / "metrics.csv").read_text(), "nothing finite is spent"


def test_kill_and_resume_are_bit_for_bit(fit: Fit, tmp_path: Path) -> None:
    whole = trained(fit(tiny_private(), name="whole"))
    fit(tiny_private(), "--checkpoint_every_n_steps", "7", "--trainer.max_steps", "20", name="parts")

    class Stop(Exception):
        pass

    from lightning_modules import PrivateLinear

    step = PrivateLinear.training_step
    seen = []

    def stopping(self: Any, batch: Any, batch_idx: int) -> None:
        seen.append(batch_idx)
        if len(seen) == 13:
            raise Stop
        step(self, batch, batch_idx)

    PrivateLinear.training_step = stopping  # type: ignore[method-assign]
    try:
        with pytest.raises(Stop):
            fit(tiny_private(), "--checkpoint_every_n_steps", "4", name="stopped")
    finally:
        PrivateLinear.training_step = step  # type: ignore[method-assign]
    run = fit(tiny_private(), "--checkpoint_every_n_steps", "4", name="stopped")
    resumed = trained(run)
    assert resumed.full_weight().equal(whole.full_weight())
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["privacy_ledger"]["n_steps"] == 20


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [
        ("--model.init_args.mechanism.init_args.clip", "1.0", "clip"),
        ("--model.init_args.budget.epsilon", "8.0", "noise_multiplier"),
        ("--data.init_args.sampling_rate", "0.4", "noise_multiplier"),
    ],
)
def test_a_resumed_run_cannot_change_the_mechanism(
    flag: str, value: str, name: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny_private())
    config, checkpoint = tmp_path / "tiny.yaml", run / "checkpoints/last.ckpt"
    given = ["--config", str(config), "--ckpt_path", str(checkpoint), flag, value]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *given, "--runs_root", str(tmp_path / "other")])
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the checkpoint was trained with {name}" in line


def test_classifiers_and_one_shot_mechanisms(fit: Fit, tmp_path: Path) -> None:
    write_cifar10(tmp_path, 200)
    inner = {"class_path": "CIFAR10DataModule", "init_args": {"root": str(tmp_path)}}
    for mechanism, loss, classes, steps in (
        ("NoisyGradientDescent", "softmax", [0, 1, 2], 5),
        ("OutputPerturbation", "logistic", [0, 1], 1),
        ("ObjectivePerturbation", "logistic", [0, 1], 1),
    ):
        config = tiny_private(mechanism={"class_path": mechanism}, loss=loss)
        config["trainer"]["max_epochs"] = 1
        config["data"] = {
            "class_path": "FrozenFeaturesDataModule",
            "init_args": {
                "source": SEEDED,
                "data": inner,
                "encoder": {"class_path": "Flatten", "init_args": {"n_inputs": 3072}},
                "private_classes": classes,
                "steps_per_epoch": steps,
            },
        }
        run = fit(config, name=f"{mechanism}")
        assert 0 <= metric_values(run, "val/accuracy")[-1] <= 1
        module = trained(run)
        assert module.full_weight().shape == (3072, 3 if loss == "softmax" else 1)
        assert bool((module.full_weight() != 0).any())
        main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--runs_root", str(run)])


class RandomWeights(Mechanism):
    """A mechanism of one's own: weights that no example has any part in, so that nothing is spent."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def check(self, loss: LinearLoss, budget: Budget) -> None:
        pass

    def ledger(self, fit: PrivateFit) -> Ledger:
        return Ledger(1.0, fit.sampling_rate, 1.0)

    def step(self, fit: PrivateFit, ledger: Ledger, weight: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        return self.scale * fit.source.normal(tuple(weight.shape), ledger.n_steps)

    def spent(self, ledger: Ledger, budget: Budget) -> float:
        return 0.0

    def n_averaged(self, n_steps: int) -> int:
        return 3


def test_a_mechanism_of_ones_own_is_a_class_path(fit: Fit) -> None:
    own = {"class_path": f"{__name__}.RandomWeights", "init_args": {"scale": 2.0}}
    run = fit(tiny_private(mechanism=own))
    drawn = torch.stack([2 * SeededNoise(0).normal((12, 1), step) for step in (17, 18, 19)]).float()
    torch.testing.assert_close(trained(run).full_weight(), drawn.mean(0))
    assert metric_values(run, "privacy/epsilon") == [0.0, 0.0]


def test_empty_samples_train_on_noise_alone(fit: Fit) -> None:
    config = tiny_private()
    config["data"]["init_args"]["sampling_rate"] = 0.01
    assert bool(trained(fit(config)).full_weight().isfinite().all())


def test_secure_noise_does_not_repeat(fit: Fit) -> None:
    secure = {"class_path": "SecureNoise"}
    weights = []
    for name in ("one", "two"):
        config = tiny_private(noise=secure)
        config["data"]["init_args"]["source"] = secure
        weights.append(trained(fit(config, name=name)).full_weight())
    assert not weights[0].equal(weights[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"mechanism": descent(clip=0.0)}}, "clip, learning_rate and radius must be above 0"),
        ({"model": {"mechanism": descent(l2=0.1)}}, "Option 'l2' is not accepted"),
        ({"model": {"mechanism": {"class_path": "OutputPerturbation"}}}, "defined for the logistic loss"),
        ({"model": {"mechanism": perturbation("Output", clip=1.0)}}, "Option 'clip' is not accepted"),
        ({"model": {"mechanism": perturbation("Output", l2=0.0)}}, "needs a finite l2 above 0"),
        ({"model": {"mechanism": perturbation("Objective", l2=-1.0)}}, "a finite l2 of at least 0"),
        ({"model": {"mechanism": perturbation("Output"), "loss": "logistic"}}, "solves once, on all examples"),
        ({"model": {"loss": "softmax"}}, "softmax needs at least two classes"),
        ({"model": {"budget": {"epsilon": 1.0, "delta": 1.0}}}, "delta must be in"),
        ({"model": {"budget": {"epsilon": 0.0, "delta": 1e-5}}}, "epsilon must be above 0"),
        ({"data": {"sampling_rate": 0.0}}, "sampling_rate must be in"),
        ({"data": {"problem": {"d": 12, "k": 13}}}, "1 <= k <= d"),
        ({"data": {"problem": {"misalignment": 2.0}}}, "misalignment must be in"),
        ({"data": {"problem": {"dimensions": 3}}}, "Group 'problem' does not accept option 'dimensions'"),
        ({"data": {"private_task": 1}}, "private_task must be in"),
        (
            {"model": {"subspace": {"class_path": "TasksSVD", "init_args": {"n_directions": 50}}}},
            "1 to 12 directions, got 50",
        ),
    ],
)
def test_wrong_settings_end_in_one_line(
    change: dict[str, Any], message: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_private()
    for part, values in change.items():
        config[part]["init_args"] |= values
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_nothing_private_is_logged_in_training(fit: Fit) -> None:
    run = fit(tiny_private())
    with (run / "metrics.csv").open() as file:
        logged = set(next(csv.reader(file))) - {"epoch", "step"}
    assert not any(key.startswith("train/") for key in logged)


def test_an_example_that_overflows_adds_nothing() -> None:
    inputs = torch.tensor([[1.0, 0.0], [1e30, 1e30], [float("nan"), 0.0], [0.0, float("inf")]])
    weight, target = torch.full((2, 1), 1e10), torch.zeros(4)
    summed = clipped_gradient_sum(weight, inputs, target, "squared", 1.0)
    torch.testing.assert_close(summed.gradient, torch.tensor([[1.0], [0.0]]))
    given = DescentSettings(NoisyGradientDescent(1.0, 0.1), Budget(1.0, 1e-5), 2)
    with pytest.raises(DataError, match="2 of 4 rows of inputs in the private data"):
        private_descent(inputs, target, "squared", given, SeededNoise(0))


def test_a_delta_of_one_over_the_number_of_examples_is_warned_of(fit: Fit) -> None:
    with pytest.warns(UserWarning, match="delta 0.01 is not below 1/300"):
        fit(tiny_private(budget={"epsilon": 2.0, "delta": 0.01}))
