"""Cost of `ConstantSolutionAnalysis`: a test pass of ResNet-18 over CIFAR-10's test images with and without it.

Run: ``SUREFOOT_DATA=... python benchmarks/constant_solution.py``; writes ``benchmarks/results/constant_solution.json``
and ``.md``.

Cases of a round, in turn: a bare PyTorch loop over the same batches, ``Trainer.test``, ``Trainer.test`` with
the callback. Ratios are taken within a round; medians and quartiles over rounds are reported. Both stems of the network
are measured: that for small images (3x3, no pooling, 0.56 GFLOP an image) and ImageNet's own (7x7 with pooling, 0.04
GFLOP), where the rest of a pass weighs more. The data are read before the clock starts.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surefoot.runs import describe_environment

# isort: split
# surefoot lets torchvision be imported beside a CPU build of torch: it comes before lightning
import torch
from group_robust import summary
from lightning.pytorch import Trainer
from torch import nn

from callbacks import ConstantSolutionAnalysis
from datamodules import CIFAR10DataModule
from lightning_modules import ERM
from surefoot.classification.pretrained_encoders import TimmEncoder

RESULTS = Path(__file__).parent / "results"
#: What the project promises: the callback's share of a plain test pass.
LIMIT = 0.25
STEMS = ("3x3", "7x7")


def module(stem: str) -> ERM:
    """Return a classifier of ten classes on ResNet-18 with one of the two stems."""
    torch.manual_seed(0)
    encoder = TimmEncoder("resnet18")
    if stem == "3x3":
        encoder.body.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        encoder.body.maxpool = nn.Identity()
    return ERM(encoder, None, n_classes=10).eval()


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cases(stem: str, data: CIFAR10DataModule, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the cases of a round by name."""
    net = module(stem)

    @torch.inference_mode()
    def bare() -> None:
        for batch in data.test_dataloader()[0]:
            net(data.on_after_batch_transfer(batch, 0)["input"]).argmax(1)

    def test(observers: list[Any]) -> None:
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
            callbacks=observers,
        )
        trainer.test(net, datamodule=data, verbose=False)

    return {
        "bare PyTorch loop": bare,
        "Trainer.test": lambda: test([]),
        "Trainer.test with ConstantSolutionAnalysis": lambda: test([ConstantSolutionAnalysis()]),
    }


def compare(stem: str, n_rounds: int, n_images: int | None, folder: Path) -> dict[str, object]:
    """Time all cases in turn."""
    data = CIFAR10DataModule(n_train=100, n_eval=n_images, eval_batch_size=250)
    data.setup("test")
    work = cases(stem, data, folder)
    found: dict[str, list[float]] = {name: [] for name in work}
    for name in work:  # warm up
        work[name]()
    for _ in range(n_rounds):
        for name, case in work.items():
            found[name].append(seconds(case))
    bare, plain, watched = found.values()
    return {
        "n_images": len(data.splits["test"].target),
        "seconds": {name: summary(values) for name, values in found.items()},
        "callback_share": summary([w / p - 1 for w, p in zip(watched, plain, strict=True)]),
        "trainer_over_bare": summary([p / b for p, b in zip(plain, bare, strict=True)]),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    environment = result["environment"]
    lines = [
        "# ConstantSolutionAnalysis beside a plain test pass, ResNet-18 on CIFAR-10",
        "",
        (
            f"{environment['device']}, torch {environment['versions']['torch']}; {result['n_rounds']} rounds in turn,"
            " medians."
        ),
        "",
        "| stem | images | Trainer.test, s | over a bare loop | the callback adds | promised |",
        "|---|---|---|---|---|---|",
    ]
    for stem in STEMS:
        r = result["stems"][stem]
        share, over, plain = (
            r["callback_share"],
            r["trainer_over_bare"],
            r["seconds"]["Trainer.test"],
        )
        lines.append(
            f"| {stem} | {r['n_images']} | {plain['median']:.2f} | {over['median']:.3f} |"
            f" {share['median']:.1%} ({share['low_quartile']:.1%} to {share['high_quartile']:.1%}) | at most"
            f" {LIMIT:.0%} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, help="test images; all 10,000 by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    folder = Path("runs/benchmark")
    result = {
        "n_rounds": options.rounds,
        "environment": describe_environment(),
        "stems": {s: compare(s, options.rounds, options.images, folder) for s in STEMS},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "constant_solution.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "constant_solution.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
