"""The datasets on which methods are compared, and every method with what it is tuned over."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surefoot.reproduce.jobs import QUIET, Job, changed, component

__all__ = (
    "AVERAGE",
    "BITS",
    "DIGITS",
    "FASHION",
    "FEATURES",
    "PRACTICAL",
    "WATERBIRDS",
    "WORST",
    "ImageStudy",
    "TunedMethod",
    "job",
    "methods",
)

#: The form that the paper recommends in practice, and the objective itself with two adversaries.
PRACTICAL = "BR-DRO (no-regret, Hedge)"
BITS, FEATURES = "BR-DRO (VIB, simple observation)", "BR-DRO (l2, features)"

#: Logged accuracies by which methods are compared.
WORST, AVERAGE = "test/worst_group_accuracy", "test/train_weighted_accuracy"
#: How far Hedge may raise the logarithm of an importance in a whole run: the authors' 0.05 in 300 epochs on Waterbirds.
_HEDGE_GROWTH = 15.0


@dataclass(frozen=True)
class ImageStudy:
    """One dataset on which every method is tuned alike and compared."""

    name: str
    data: Mapping[str, Any]
    encoder: Mapping[str, object]
    optimizer: Mapping[str, Any]  # the same weight decay for every method
    epochs: int
    n_tuning_seeds: int
    adversary_optimizer: Mapping[str, object]
    trainer: Mapping[str, object]


_ADAM = component("torch.optim.Adam", lr=3e-3, weight_decay=1e-3)


_CPU = {"accelerator": "cpu"}


DIGITS = ImageStudy(
    name="digits",
    data=component("DigitsDataModule", confounding={"strength": 0.3}),
    encoder=component("SmallCNN", widths=[32, 64]),
    optimizer=_ADAM,
    epochs=60,
    n_tuning_seeds=2,
    adversary_optimizer=component("torch.optim.Adam", lr=0.05),
    trainer=_CPU,
)


FASHION = ImageStudy(
    name="fashion_mnist",
    data=component("FashionMNISTDataModule", classes=[5, 7], n_train=2000, n_eval=1500, confounding={"strength": 0.1}),
    encoder=component("SmallCNN", widths=[16, 32, 64]),
    optimizer=_ADAM,
    epochs=30,
    n_tuning_seeds=1,
    adversary_optimizer=component("torch.optim.Adam", lr=0.05),
    trainer=_CPU,
)


#: The paper's own setting, for a GPU: Waterbirds, ResNet-50, weight decay 1.
WATERBIRDS = ImageStudy(
    name="waterbirds",
    data=component(
        "WILDSDataModule", dataset="waterbirds", batch_size=128, augmentation={"class_path": "ResizedCropFlip"}
    ),
    encoder=component("TimmEncoder", name="resnet50", pretrained=True),
    optimizer=component("torch.optim.SGD", lr=1e-5, momentum=0.9, weight_decay=1.0),
    epochs=300,
    n_tuning_seeds=1,
    adversary_optimizer=component("torch.optim.Adam", lr=0.05),
    trainer={"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"},
)


@dataclass(frozen=True)
class TunedMethod:
    """A method with the settings that it may be tuned over, as many for each method."""

    name: str
    class_path: str
    candidates: tuple[Mapping[str, object], ...]
    groups: bool = False  # sees group labels in training


def methods(study: ImageStudy) -> tuple[TunedMethod, ...]:
    """Return all methods with their tuning candidates."""
    return published_methods() if study is WATERBIRDS else small_methods(study)


def published_methods() -> tuple[TunedMethod, ...]:
    """Return the methods with the settings and search spaces published for Waterbirds (baselines, sections 2 to 5)."""
    authors = {
        "adversary": component("LinearAdversary", norm="l1", temperature=10.0),
        "adversary_optimizer": dict(WATERBIRDS.adversary_optimizer),
        "update": {"class_path": "NoRegretUpdate"},
        "tail": {"level": 0.05},
    }
    vib = {**authors, "adversary": {"class_path": "VIBAdversary"}, "observation": {"standardise": True}}
    hedge = component("NoRegretUpdate", hedge_step=0.05, importance="sampling")
    rates = tuple({"lr": lr} for lr in (1e-5, 1e-4, 1e-3))
    return (
        TunedMethod("ERM", "ERM", rates),
        TunedMethod("CVaR-DRO", "CVaRDRO", tuple({"level": v} for v in (0.1, 0.2, 0.5))),
        TunedMethod("LfF", "LfF", rates),
        TunedMethod("JTT", "JTT", tuple({"identification_epochs": 60, "upweight": u} for u in (20, 50, 100))),
        TunedMethod(
            PRACTICAL,
            "BRDRO",
            tuple({**authors, "penalty": p, "update": hedge} for p in (0.02, 0.05, 0.1)),
        ),
        TunedMethod(BITS, "BRDRO", tuple({**vib, "penalty": p} for p in (0.02, 0.1, 0.2))),
        TunedMethod(FEATURES, "BRDRO", tuple({**authors, "penalty": p} for p in (0.02, 0.05, 0.1))),
        TunedMethod(
            "Group DRO",
            "GroupDRO",
            tuple({"step_size": s} for s in (0.001, 0.01, 0.1)),
            groups=True,
        ),
    )


def small_methods(study: ImageStudy) -> tuple[TunedMethod, ...]:
    """Return the methods of a study for a CPU, four candidates each."""
    vib = {
        "adversary": {"class_path": "VIBAdversary"},
        "adversary_optimizer": changed(study.adversary_optimizer, lr=5e-3),
        "tail": {"level": 0.1},
        "observation": {"encoder": {"class_path": "ChannelStatistics"}, "standardise": True},
    }
    linear = {
        "adversary": component("LinearAdversary", norm="l2", temperature=10.0),
        "adversary_optimizer": dict(study.adversary_optimizer),
        "tail": {"level": 0.1},
    }
    growth = _HEDGE_GROWTH / study.epochs
    updates = [
        component("NoRegretUpdate", hedge_step=growth, importance=importance) for importance in ("loss", "sampling")
    ]
    base = study.optimizer["init_args"]["lr"]

    def grid(*own: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
        return tuple({**settings, "lr": rate * base} for settings in own for rate in (1, 3))

    rates = tuple({"lr": rate * base} for rate in (1 / 3, 1, 3, 10))
    return (
        TunedMethod("ERM", "ERM", rates),
        TunedMethod("CVaR-DRO", "CVaRDRO", grid({"level": 0.1}, {"level": 0.5})),
        TunedMethod("LfF", "LfF", rates),
        TunedMethod("JTT", "JTT", grid(*({"identification_epochs": 5, "upweight": u} for u in (20, 50)))),
        TunedMethod(
            PRACTICAL,
            "BRDRO",
            grid(*({**vib, "penalty": 1e-3, "update": update} for update in updates)),
        ),
        TunedMethod(BITS, "BRDRO", grid(*({**vib, "penalty": p} for p in (3e-4, 1e-3)))),
        TunedMethod(FEATURES, "BRDRO", grid(*({**linear, "penalty": p} for p in (1e-4, 1e-3)))),
        TunedMethod("Group DRO", "GroupDRO", grid({"step_size": 0.01}, {"step_size": 0.1}), groups=True),
    )


def job(
    study: ImageStudy,
    method: TunedMethod,
    candidate: Mapping[str, object],
    seed: int,
    name: str,
    data: Mapping[str, object] | None = None,
) -> Job:
    """Return the training run of a method on a study's data."""
    own = dict(candidate)
    optimizer = changed(study.optimizer, **({"lr": own.pop("lr")} if "lr" in own else {}))
    training = {"sampling": "group_balanced"} if method.groups else {"group_labels": "hidden"}
    return Job(
        name,
        {
            "seed_everything": seed,
            "trainer": {
                **study.trainer,
                "max_epochs": study.epochs,
                **QUIET,
                "log_every_n_steps": 1000,
                "enable_checkpointing": False,
                "callbacks": [{"class_path": "GroupMetrics"}, {"class_path": "ExampleWeightMonitor"}],
            },
            "model": component(method.class_path, encoder=dict(study.encoder), optimizer=optimizer, **own),
            "data": changed(study.data, training=training, **(data or {}), seed=seed),
        },
    )
