"""Private probes on real features: an encoder of public classes, private classes, few directions or many."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.privacy import (
    Budget,
    DescentSettings,
    NoisyGradientDescent,
    SeededNoise,
    principal_directions,
    private_descent,
)
from surefoot.reproduce.jobs import QUIET, Job, component
from surefoot.reproduce.results import Rows

__all__ = ("DIRECTIONS", "EPSILONS", "N_PRIVATE", "encoder_job", "probe_rows")

#: CIFAR-10: airplane, automobile, bird, cat and ship are public; deer, dog, frog, horse and truck are private.
PUBLIC, PRIVATE = (0, 1, 2, 3, 8), (4, 5, 6, 7, 9)
DIRECTIONS = (1, 2, 5, 10, 20, 40, 80, 128)
EPSILONS = (0.25, 0.5, 1.0, 2.0, 8.0)
N_PRIVATE = 2000
DELTA = 1e-5
#: Fixed in advance for all k and epsilon: full batches, unit features, clip 1.
_STEPS, _RATE, _CLIP = 30, 10.0, 1.0
_ENCODER = component("SmallCNN", widths=[32, 64, 128])
_DATA = "CIFAR10DataModule"

Labelled = tuple[Tensor, Tensor]  # inputs and labels


def encoder_job(seed: int, quick: bool = False) -> Job:
    """Return the run that trains an encoder on the public classes."""
    arguments = {"classes": list(PUBLIC), "n_train": 600 if quick else None}
    return Job(
        f"encoder-{seed}",
        {
            "seed_everything": seed,
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 1 if quick else 10,
                **QUIET,
                "limit_val_batches": 0,
            },
            "model": component("ERM", encoder=_ENCODER, optimizer=component("torch.optim.Adam", lr=2e-3)),
            "data": component(_DATA, **arguments),
        },
    )


def _settings(epsilon: float) -> DescentSettings:
    return DescentSettings(NoisyGradientDescent(_CLIP, _RATE), Budget(epsilon, DELTA), _STEPS)


def _accuracy(
    train: Labelled,
    test: Labelled,
    epsilon: float,
    seed: int,
    basis: Tensor | None,
) -> float:
    weight = private_descent(*train, "softmax", _settings(epsilon), SeededNoise(seed), basis, len(PRIVATE))
    return float(((test[0] @ weight).argmax(1) == test[1]).float().mean())


def probe_rows(
    run_folder: str,
    encoder_seed: int,
    seeds: Sequence[int],
    epsilons: Sequence[float] = EPSILONS,
    n_images: int | None = None,
) -> Rows:
    """Return test accuracies of private probes for every number of directions, and of controls, for several seeds.

    Args:
        run_folder: Run of `encoder_job`.
        encoder_seed: Its seed.
        seeds: Seeds of which private examples are drawn and of the noise.
        epsilons: Budgets.
        n_images: Images of each split to read; all by default.
    """
    features, pixels, public = _features(run_folder, n_images)
    bases = {k: principal_directions(public, k) for k in DIRECTIONS}
    rows: Rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randperm(len(features["train"][1]), generator=generator)[:N_PRIVATE]
        train, raw = ((source["train"][0][kept], source["train"][1][kept]) for source in (features, pixels))
        for epsilon in (*epsilons, math.inf):
            drawn = {"epsilon": epsilon, "encoder": encoder_seed, "seed": seed}
            for k, basis in bases.items():
                found = _accuracy(train, features["test"], epsilon, seed, basis)
                rows.append({"kind": "public features", "directions": k, **drawn, "accuracy": found})
            found = _accuracy(raw, pixels["test"], epsilon, seed, None)
            rows.append({"kind": "pixels", "directions": raw[0].shape[1], **drawn, "accuracy": found})
    return rows


def _features(run_folder: str, n_images: int | None) -> tuple[dict[str, Labelled], dict[str, Labelled], Tensor]:
    """Return the private classes' features and pixels by split, and the public examples' features."""
    from surefoot.cli.loading import build_datamodule

    settings = component(
        "FrozenFeaturesDataModule",
        source=component("SeededNoise", seed=0),
        data=component(_DATA, n_train=n_images, n_eval=n_images),
        encoder=component("CheckpointEncoder", encoder=_ENCODER, weights=run_folder),
        private_classes=list(PRIVATE),
    )
    data: Any = build_datamodule(settings)
    data.setup("fit")
    features = {n: (s.tensors["input"], s.tensors["target"]) for n, s in data.splits.items()}
    return features, {n: _pixels(data.data, n) for n in ("train", "test")}, data.public().inputs


def _pixels(data: Any, split: str) -> tuple[Tensor, Tensor]:
    """Return the private classes' pixels, standardised and scaled to length 1, and their labels."""
    tensors = data.splits[split].examples.tensors
    renumbered = torch.full((10,), -1)
    renumbered[list(PRIVATE)] = torch.arange(len(PRIVATE))
    target = renumbered[tensors["target"]]
    private = target >= 0
    pixels = data.on_after_batch_transfer({"input": tensors["input"][private]}, 0)["input"]
    return torch.nn.functional.normalize(pixels.flatten(1)), target[private]
