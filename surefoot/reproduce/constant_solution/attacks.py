"""Inputs on which predictions do not revert: adversarial ones, made for each network."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.classification.layer_statistics import LayerProbe, weight_layers

__all__ = ("adversarial", "adversarial_rows")


def adversarial(
    network: torch.nn.Module, inputs: Tensor, target: Tensor, n_rounds: int = 11, step: float = 0.1
) -> Tensor:
    """Return inputs moved several times by the sign of the cross-entropy's gradient, which rises (the paper's attack).

    Args:
        network: From inputs to logits.
        inputs: Standardised pixels, ``(batch, ...)``.
        target: True classes, ``(batch,)``.
        n_rounds: Rounds.
        step: Length of a round's step, per pixel.
    """
    moved = inputs.clone()
    for _ in range(n_rounds):
        moved.requires_grad_(True)
        loss = F.cross_entropy(network(moved), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = (moved + step * gradient.sign()).detach()
    return moved


def adversarial_rows(run_folder: Path, test_folder: Path) -> list[dict[str, object]]:
    """Return distance to the constant and norms of a trained run, on test images and on adversarial ones.

    Args:
        run_folder: Folder of the training run.
        test_folder: Folder of its test, for the settings of the data.
    """
    import yaml

    from surefoot.cli.loading import build_datamodule, load_module

    module: Any = load_module(run_folder / "checkpoints" / "last.ckpt").eval()
    settings = yaml.safe_load((test_folder / "config.yaml").read_text())["data"]
    settings["init_args"]["shifts"] = []
    data: Any = build_datamodule(settings)
    data.setup("test")
    constant = module.prediction_loss.constant(data.train_set.target, data.n_classes)
    (loader,) = data.test_dataloader()
    probe = LayerProbe(weight_layers(module))
    rows = []
    for kind in ("test", "adversarial"):
        distances, correct = [], []
        for raw in loader:
            batch = data.on_after_batch_transfer(raw, 0)
            inputs = batch["input"]
            if kind == "adversarial":
                inputs = adversarial(module, inputs, batch["target"])
            probe.attach()
            probe.watch(kind)
            with torch.no_grad():
                outputs = module(inputs).float()
            probe.detach()
            distances.append(module.prediction_loss.distances(outputs, constant))
            correct.append(outputs.argmax(1) == batch["target"])
        row: dict[str, object] = {
            "set": kind,
            "distance": float(torch.cat(distances).mean()),
            "accuracy": float(torch.cat(correct).float().mean()),
        }
        for layer, sums in probe.sums[kind].items():
            row[f"norm/{layer}"] = float(sums.norms / sums.n_examples)
        rows.append(row)
    return rows
