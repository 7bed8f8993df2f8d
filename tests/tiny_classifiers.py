"""Small classifiers of every method, trained on digits without a run folder."""

from typing import Any

import torch
from lightning.pytorch import Trainer

from datamodules import DigitsDataModule
from lightning_modules import BRDRO, ERM, JTT, CVaRDRO, GroupDRO, LfF
from lightning_modules.classification import ClassifierModule
from surefoot.classification.adversaries import VIBAdversary
from surefoot.classification.networks import MLP

__all__ = ("assert_same_weights", "build_classifier", "quiet_trainer", "sgd", "weights_after")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """An `OptimizerCallable`."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def build_classifier(kind: str, **settings: Any) -> ClassifierModule:
    """Return a method on a small network for two classes, with the same weights each time."""
    torch.manual_seed(0)
    encoder, common = settings.pop("encoder", None) or MLP(192, (16,)), {"n_classes": 2}
    if kind == "JTT":
        return JTT(encoder, sgd, **({"identification_epochs": 1, "upweight": 5.0} | settings), **common)
    if kind == "GroupDRO":
        return GroupDRO(encoder, sgd, **({"n_groups": 4} | settings), **common)
    if kind == "BRDRO":
        adversary = settings.pop("adversary", VIBAdversary)
        return BRDRO(encoder, sgd, adversary, sgd, **settings, **common)
    return {"ERM": ERM, "CVaRDRO": CVaRDRO, "LfF": LfF}[kind](encoder, sgd, **settings, **common)


def quiet_trainer(**settings: Any) -> Trainer:
    """Return a trainer that logs and keeps nothing."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(quiet | {"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0} | settings))


def weights_after(
    module: ClassifierModule, data: DigitsDataModule | None = None, **settings: Any
) -> dict[str, torch.Tensor]:
    """Return the network's weights after training."""
    torch.manual_seed(1)
    quiet_trainer(**settings).fit(module, datamodule=data or DigitsDataModule(batch_size=100))
    return {k: v.clone() for k, v in module.network.state_dict().items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-7)
