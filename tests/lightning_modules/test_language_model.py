"""A value head on a language model, as a method of a user's own: trained, clipped, saved, and rebuilt."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from safetensors.torch import load_file
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main
from surefoot.cli.loading import load_module
from surefoot.reasoning.language_models import TinyLanguageModel

pytestmark = pytest.mark.filterwarnings("ignore")


def settings(**model: Any) -> dict[str, Any]:
    config = tiny_reasoning("SFT", **model)
    init = config["model"]["init_args"]
    del init["engine"], init["evaluation"]
    config["model"]["class_path"] = "value_regression.ValueRegression"
    config["trainer"]["callbacks"] = [{"class_path": "ModelExporter"}]
    return config


def column(run: Path, key: str) -> list[float]:
    import csv

    with (run / "metrics.csv").open() as file:
        return [float(r[key]) for r in csv.DictReader(file) if r.get(key)]


def test_values_are_learned_from_tokens_that_nothing_predicts_from(fit: Fit) -> None:
    """The answer's last digit is no token's predictor; a head that is not trained stays at ln 2."""
    config = settings()
    config["trainer"]["max_epochs"] = 6
    run = fit(config)
    losses = column(run, "train/loss")
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.15
    assert column(run, "val/loss")[-1] < 0.15


def test_one_norm_bounds_the_step_of_model_and_head(fit: Fit) -> None:
    """With SGD at a rate of 1 the step of all weights together is as long as the norm allows."""
    config = settings(optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}, max_gradient_norm=0.01)
    config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0}
    module: Any = load_module(fit(config) / "checkpoints/last.ckpt")
    config["trainer"]["limit_train_batches"] = 1
    first: Any = load_module(fit(config, name="first") / "checkpoints/last.ckpt")
    old, new = (torch.cat([p.detach().flatten() for p in m.trained_parameters()]) for m in (first, module))
    assert float((new - old).norm()) == pytest.approx(0.01, rel=1e-4)
    names = {n.split(".")[0] for n, p in module.named_parameters() if not p.equal(first.get_parameter(n))}
    assert names == {"language_model", "value_head"}


def test_a_checkpoint_rebuilds_model_and_head_when_their_source_is_gone(fit: Fit, tmp_path: Path) -> None:
    """And the run folder hands the model on as a folder, and the head beside it as weights."""
    folder = tmp_path / "start"
    TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128, seed=5).save(folder)
    model = {"class_path": "PretrainedLanguageModel", "init_args": {"name": str(folder)}}
    run = fit(settings(language_model=model))
    shutil.rmtree(folder)
    checkpoint = run / "checkpoints/last.ckpt"
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    rebuilt = load_module(checkpoint).state_dict()
    assert rebuilt.keys() == stored.keys()
    head = load_file(run / "weights.safetensors")
    assert head.keys() == {"value_head.linear.weight", "value_head.linear.bias"}
    assert all(value.equal(rebuilt[name]) for name, value in head.items())
    assert (run / "model/model.safetensors").is_file()
    assert all(value.equal(stored[name]) for name, value in rebuilt.items())
    quiet = ["--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu"]
    main(["validate", "--ckpt_path", str(checkpoint), "--runs_root", str(tmp_path / "again"), *quiet])
    (again,) = (tmp_path / "again").rglob("metrics.csv")
    assert column(again.parent, "val/loss") == pytest.approx(column(run, "val/loss")[-1:], rel=1e-6)
