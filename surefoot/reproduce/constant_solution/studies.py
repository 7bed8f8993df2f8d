"""The runs of the study of reversion: networks, data, shifts and losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from surefoot.reproduce.claims import Scale
from surefoot.reproduce.jobs import QUIET, Job, changed, component

__all__ = (
    "CROSS_ENTROPY",
    "FAMILIES",
    "GAUSSIAN_NLL",
    "LOSSES",
    "LOW_DIMENSION",
    "NO_BATCH_NORM",
    "REWARD",
    "SQUARED_ERROR",
    "VARIANTS",
    "ShiftStudy",
    "TrainingRecipe",
    "job",
    "studies",
)

#: Corruptions that keep the pixels in [0, 1], each at five levels.
FAMILIES = ("rotation", "noise", "blur", "contrast", "occlusion", "impulse")
CROSS_ENTROPY, REWARD = "cross-entropy", "reward prediction"
SQUARED_ERROR, GAUSSIAN_NLL = "squared error", "Gaussian NLL"
NO_BATCH_NORM = "no batch norm"


@dataclass(frozen=True)
class TrainingRecipe:
    """A loss and how it is trained."""

    loss: Mapping[str, Any]
    optimizer: Mapping[str, object]
    epochs: int
    encoder: Mapping[str, object] = field(default_factory=dict)  # changes to the study's encoder
    lr_scheduler: Mapping[str, Any] | None = None


def _sgd(rate: float, weight_decay: float) -> dict[str, object]:
    return component("torch.optim.SGD", lr=rate, momentum=0.9, weight_decay=weight_decay)


def _adamw(weight_decay: float) -> dict[str, object]:
    return component("torch.optim.AdamW", lr=1e-3, weight_decay=weight_decay)


#: The paper's recipes scaled down: SGD with momentum and batch normalisation for classifiers (rate x decay x steps is
#: 0.18, the paper's about 0.4), Adam for regression, after squared errors where the loss is Gaussian. Chosen on seed 0
#: of an exploration.
LOSSES: Mapping[str, TrainingRecipe] = {
    CROSS_ENTROPY: TrainingRecipe(component("CrossEntropy"), _sgd(0.05, 5e-3), 30),
    REWARD: TrainingRecipe(component("RewardPrediction"), _sgd(0.05, 5e-3), 30),
    SQUARED_ERROR: TrainingRecipe(component("SquaredError"), _adamw(1.0), 30),
    GAUSSIAN_NLL: TrainingRecipe(component("GaussianNLL", warmup_epochs=10), _adamw(1.0), 30),
}

#: Changes of one thing in the training with cross-entropy.
VARIANTS: Mapping[str, TrainingRecipe] = {
    NO_BATCH_NORM: TrainingRecipe(component("CrossEntropy"), _sgd(0.05, 5e-3), 30, {"batch_norm": False}),
    "no weight decay": TrainingRecipe(component("CrossEntropy"), _sgd(0.05, 0.0), 30),
    "a third of the epochs": TrainingRecipe(component("CrossEntropy"), _sgd(0.05, 5e-3), 10),
    "twice the epochs": TrainingRecipe(component("CrossEntropy"), _sgd(0.05, 5e-3), 60),
}


_CLASSIFIERS = {k: replace(LOSSES[k], epochs=15) for k in (CROSS_ENTROPY, REWARD)}
_SUBCLASSES = {CROSS_ENTROPY: _CLASSIFIERS[CROSS_ENTROPY]}
#: A transformer, trained as transformers are.
_TEXTS = {CROSS_ENTROPY: TrainingRecipe(component("CrossEntropy"), _adamw(0.01), 3)}
#: The paper's own training of ResNet-20 on CIFAR-10: 200 epochs, the rate divided by ten after 100 and 150.
_PAPER = {
    name: TrainingRecipe(
        LOSSES[name].loss,
        _sgd(0.1, 1e-4),
        200,
        lr_scheduler=component("torch.optim.lr_scheduler.MultiStepLR", milestones=[100, 150]),
    )
    for name in (CROSS_ENTROPY, REWARD)
}


@dataclass(frozen=True)
class ShiftStudy:
    """Data with shifts, and a network."""

    name: str
    data: Mapping[str, Any]
    encoder: Mapping[str, Any]
    families: Sequence[str]  # of corruptions, or perturbations of texts
    other_shifts: Sequence[Mapping[str, Any]] = ()
    trainings: Mapping[str, TrainingRecipe] = field(default_factory=lambda: LOSSES)
    scored: bool = True  # whether sets have an OOD score, from their pixels
    traced: bool = True  # whether signals can be followed from layer to layer

    def shifts(self) -> list[dict[str, object]]:
        """Return the shifts as a config names them."""
        kind = "TextPerturbation" if self.name == "madlibs" else "Corruption"
        graded = [component(kind, kind=k) for k in self.families]
        return [*graded, *(dict(s) for s in self.other_shifts)]


def _other(name: str, datamodule: str, n: int, **arguments: object) -> dict[str, object]:
    return component("OtherDataset", name=name, n_examples=n, data=component(datamodule, **arguments))


_FASHION = {"confounding": None, "n_train": 100, "n_eval": 500}
_CONV = component("ConvNet", in_channels=3, image_size=28, widths=[16, 32], batch_norm=True)
#: Imbalanced, so that the optimal constant differs from what an untrained network predicts.
_MNIST = component("MNIST5kDataModule", imbalance=5.0, standardise=True)

#: 64 inputs instead of 784 pixels, and noise that leaves [0, 1]: where predictions do not revert.
LOW_DIMENSION = ShiftStudy(
    name="digits_8x8",
    data=component("DigitsDataModule", target="digit", confounding=None, imbalance=5.0, standardise=True),
    encoder=component("MLP", n_inputs=192, widths=[128, 128]),
    families=("rotation", "unclipped_noise"),
    scored=False,
    trainings={
        GAUSSIAN_NLL: TrainingRecipe(component("GaussianNLL", warmup_epochs=15), _adamw(0.0), 60),
    },
)


_FASHION_TRAINED = {"confounding": None, "n_train": 4000, "n_eval": 500, "standardise": True}
_HELD_OUT = {"class_path": "HeldOut"}


def studies(scale: Scale, has_data: bool) -> dict[str, ShiftStudy]:
    """Return a scale's studies; those on files only where there are any."""
    families = FAMILIES[:2] if scale == "quick" else FAMILIES
    fashion = [_other("fashion_mnist", "FashionMNISTDataModule", 500, **_FASHION)]
    mnist = ShiftStudy("mnist", data=_MNIST, encoder=_CONV, families=families, other_shifts=fashion if has_data else [])
    if scale == "quick":
        kept = (CROSS_ENTROPY, REWARD, GAUSSIAN_NLL)
        return {"mnist": replace(mnist, trainings={k: LOSSES[k] for k in kept})}
    if not has_data:
        return {"mnist": mnist}
    found = {study.name: study for study in (mnist, _fashion_mnist(), _subclasses(), _madlibs())}
    if scale == "paper":
        data = component("CIFAR10DataModule", augmentation={"class_path": "ShiftFlip"})
        resnet = component("CIFARResNet")
        found["cifar10"] = ShiftStudy("cifar10", data=data, encoder=resnet, families=families, trainings=_PAPER)
    return found


def _fashion_mnist() -> ShiftStudy:
    others = [
        _other("mnist", "MNIST5kDataModule", 500),
        _other("cifar10", "CIFAR10DataModule", 500, n_train=100, n_eval=500),
    ]
    return ShiftStudy(
        "fashion_mnist",
        data=component("FashionMNISTDataModule", **_FASHION_TRAINED, imbalance=5.0),
        encoder=_CONV,
        families=FAMILIES,
        other_shifts=others,
        trainings=_CLASSIFIERS,
    )


def _subclasses() -> ShiftStudy:
    inner = component("FashionMNISTDataModule", **_FASHION_TRAINED)
    return ShiftStudy(
        "subclasses",
        data=component("SubclassShiftDataModule", data=inner),
        encoder=_CONV,
        families=(),
        other_shifts=[_HELD_OUT],
        trainings=_SUBCLASSES,
        scored=False,
    )


def _madlibs() -> ShiftStudy:
    size = {"vocab_size": 400, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 32}
    transformer = component("TransformersEncoder", name="distilbert", pretrained=False, config=size)
    return ShiftStudy(
        "madlibs",
        data=component("MadlibsDataModule", n_examples=4000),
        encoder=transformer,
        families=("scramble",),
        other_shifts=[_HELD_OUT],
        trainings=_TEXTS,
        scored=False,
        traced=False,
    )


def _with_data_seed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a datamodule with seed 0, in its parts and shifts too: all seeds of a network share the data.

    OOD scores are computed once for all seeds.
    """

    def inner(name: str, value: Any) -> object:
        if name == "data":
            return _with_data_seed(value)
        if name == "shifts":
            return [
                {**shift, "init_args": {k: inner(k, v) for k, v in shift["init_args"].items()}}
                if "init_args" in shift
                else shift
                for shift in value
            ]
        return value

    return {**data, "init_args": {k: inner(k, v) for k, v in data["init_args"].items()} | {"seed": 0}}


def job(study: ShiftStudy, name: str, training: TrainingRecipe, seed: int, quick: bool = False) -> Job:
    """Return a run: training, then a test with the shifted sets under the observers."""
    classifies = training.loss["class_path"] in ("CrossEntropy", "RewardPrediction")
    observers: list[dict[str, object]] = [component("ConstantSolutionAnalysis", figures=False)]
    if classifies:
        observers.append(component("SelectiveRisk", figures=False))
    if training.loss["class_path"] == "CrossEntropy":
        observers.append({"class_path": "OODDetection"})
    shortened = {"warmup_epochs": 1} if quick and "warmup_epochs" in training.loss["init_args"] else {}
    model = component(
        "ERM",
        encoder=changed(study.encoder, **training.encoder),
        optimizer=dict(training.optimizer),
        lr_scheduler=training.lr_scheduler,
        loss=changed(training.loss, **shortened),
    )
    return Job(
        f"{study.name}-{name.replace(' ', '_')}-{seed}",
        {
            "seed_everything": seed,
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2 if quick else training.epochs,
                **QUIET,
                "limit_val_batches": 0,
                "log_every_n_steps": 20,
                "callbacks": observers,
            },
            "model": model,
            "data": _with_data_seed(changed(study.data, shifts=study.shifts())),
        },
        test=True,
    )
