"""Private examples and public data: features, what a run's record and an encoder's history say of them, bad values."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Fit, tiny
from small_datasets import write_cifar10
from tiny_private import SEEDED, tiny_private

from datamodules import CIFAR10DataModule, FrozenFeaturesDataModule, SharedSubspaceDataModule
from surefoot.classification.checkpoint_encoder import CheckpointEncoder
from surefoot.classification.networks import MLP, Flatten
from surefoot.errors import ConfigError
from surefoot.privacy import SeededNoise
from surefoot.privacy.shared_subspace import SubspaceProblem

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_features_are_those_of_public_statistics(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 200)
    data = FrozenFeaturesDataModule(SeededNoise(0), CIFAR10DataModule(tmp_path), Flatten(3072), [9, 1], n_train=20)
    data.setup("fit")
    inner = CIFAR10DataModule(tmp_path)
    inner.setup("fit")
    split = inner.splits["train"]
    raw = inner.on_after_batch_transfer({"input": split.examples.tensors["input"]}, 0)["input"]  # type: ignore[attr-defined]
    flat, public = raw.flatten(1), (split.target != 9) & (split.target != 1)
    centred = torch.nn.functional.normalize(flat - flat[public].mean(0))
    torch.testing.assert_close(data.public().inputs, centred[public])
    assert data.n_train == 20
    assert set(data.splits["train"].tensors["target"].tolist()) == {0, 1}
    test = data.splits["test"].tensors
    expected = (inner.splits["test"].target == 1)[
        (inner.splits["test"].target == 9) | (inner.splits["test"].target == 1)
    ]
    assert test["target"].bool().equal(expected)
    for wrong in ([0], [0, 0], list(range(10)), [0, 12]):
        with pytest.raises(ConfigError, match="private_classes must be at least two"):
            FrozenFeaturesDataModule(SeededNoise(0), CIFAR10DataModule(tmp_path), Flatten(3072), wrong)


def test_users_share_a_subspace_and_a_run_learns_one() -> None:
    first, second = (
        SharedSubspaceDataModule(SeededNoise(0), SubspaceProblem(n_private_tasks=3, n_private=50), t) for t in (0, 2)
    )
    for data in (first, second):
        data.setup("fit")
    assert not first.true_weight.equal(second.true_weight)
    assert first.public().inputs.equal(second.public().inputs)
    basis = first.public().basis
    assert basis is not None
    for data in (first, second):
        off = data.true_weight - basis @ (basis.T @ data.true_weight)
        assert float(off.norm()) < 1e-5


def test_the_record_of_a_run_holds_no_hash_of_private_data(fit: Fit, tmp_path: Path) -> None:
    """Another private label: not a byte of what is written differs but for times and what noise has hidden."""
    records = []
    for name, label in (("one", 0), ("two", 1)):
        folder = tmp_path / name
        write_cifar10(folder, 60)
        path = folder / "train.parquet"
        table = pd.read_parquet(path)
        table.loc[1, "label"] = 1 if label else 9
        table.to_parquet(path)
        config = tiny_private(loss="softmax")
        config["trainer"]["max_epochs"] = 1
        config["data"] = {
            "class_path": "FrozenFeaturesDataModule",
            "init_args": {
                "source": SEEDED,
                "data": {"class_path": "CIFAR10DataModule", "init_args": {"root": str(folder)}},
                "encoder": {"class_path": "Flatten", "init_args": {"n_inputs": 3072}},
                "private_classes": [1, 9],
                "steps_per_epoch": 2,
            },
        }
        run = fit(config, name=name)
        environment = json.loads((run / "environment.json").read_text())
        inputs = run / "inputs.json"
        records.append((environment["data"], inputs.read_text() if inputs.exists() else ""))
    assert records[0] == records[1]
    assert records[0][0]["encoder"] == "no data: Flatten has no weights"
    assert "train" not in records[0][0]


def test_nan_and_infinity_never_reach_the_weights(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = SharedSubspaceDataModule.build

    def poisoned(self: Any) -> Any:
        splits = build(self)
        splits["train"].tensors["input"][3, 2] = float("inf")
        splits["train"].tensors["input"][7, 0] = float("nan")
        return splits

    monkeypatch.setattr(SharedSubspaceDataModule, "build", poisoned)
    with pytest.raises(SystemExit) as stop:
        fit(tiny_private())
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2 of 300 rows of input in split 'train' are NaN or infinite" in line


def test_what_the_encoder_has_seen_is_known_or_said_not_to_be(fit: Fit, tmp_path: Path) -> None:
    write_cifar10(tmp_path, 200)
    arguments = {"root": str(tmp_path), "classes": [0, 2, 4]}
    config = tiny("ERM")
    encoder = {"class_path": "MLP", "init_args": {"n_inputs": 3072, "widths": [4]}}
    config["trainer"] |= {"max_epochs": 1, "callbacks": []}
    config["model"]["init_args"]["encoder"] = encoder
    config["data"] = {"class_path": "CIFAR10DataModule", "init_args": arguments}
    run = fit(config, name="public")

    def features(private_classes: list[int], path: Path | None) -> FrozenFeaturesDataModule:
        encoder = CheckpointEncoder(MLP(3072, (4,)), path)
        return FrozenFeaturesDataModule(SeededNoise(0), CIFAR10DataModule(tmp_path), encoder, private_classes)

    for path in (run, run / "weights.safetensors", checkpoint := run / "checkpoints/last.ckpt"):
        data = features([1, 9], path)
        data.setup("fit")
        assert data.fingerprints()["encoder"] == f"public classes only: {path} was trained on the classes [0, 2, 4]"
        with pytest.raises(ConfigError, match=r"was trained on the classes \[2\], which are private"):
            features([1, 2], path).setup("fit")
    plain = tmp_path / "plain.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"state_dict": state["state_dict"]}, plain)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "weights.safetensors", alone)
    for path in (plain, alone):
        assert features([1, 9], path).encoder_history().startswith(f"not known: {path} does not say")
    assert features([1, 9], None).encoder_history() == "no data: MLP has random weights"


class Remembering(MLP):
    """An encoder that may come with weights of any data."""


def test_what_weights_were_trained_from_counts_too(fit: Fit, tmp_path: Path) -> None:
    """The encoder of a public run may itself have begun with weights that have seen private classes."""
    write_cifar10(tmp_path, 200)
    plain = {"class_path": "MLP", "init_args": {"n_inputs": 3072, "widths": [4]}}
    config = tiny("ERM")
    config["trainer"] |= {"max_epochs": 1, "callbacks": []}
    config["data"] = {"class_path": "CIFAR10DataModule", "init_args": {"root": str(tmp_path), "classes": [0, 2, 4]}}
    encoders = {
        "fresh": {"class_path": "CheckpointEncoder", "init_args": {"encoder": plain, "weights": None}},
        "own": {"class_path": f"{__name__}.Remembering", "init_args": plain["init_args"]},
    }
    found = {}
    for name in ("fresh", "own", "second"):
        config["model"]["init_args"]["encoder"] = encoders[name]
        run = fit(config, name=name)
        encoders["second"] = {"class_path": "CheckpointEncoder", "init_args": {"encoder": plain, "weights": str(run)}}
        encoder = CheckpointEncoder(MLP(3072, (4,)), run)
        data = FrozenFeaturesDataModule(SeededNoise(0), CIFAR10DataModule(tmp_path), encoder, [1, 9])
        found[name] = data.encoder_history().split(":")[0]
    assert found == {"fresh": "public classes only", "own": "not known", "second": "not known"}
