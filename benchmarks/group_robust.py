"""Speed of every group-robust method beside a bare PyTorch ERM loop: same network, same batches, one process, in turn.

Run: ``python benchmarks/group_robust.py``; writes ``benchmarks/results/group_robust.json`` and ``.md``.

Each round times every case once, the bare loop first; a ratio is a case's time over the bare loop's in the same round.
The medians over rounds and their quartiles are reported. Lightning's own cost is measured apart, per step.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surefoot.runs import describe_environment

# isort: split
# surefoot lets torchvision be imported beside a CPU build of torch: it comes before lightning
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.nn import functional as F

from callbacks import ExampleWeightMonitor, GroupMetrics
from datamodules.classification import ClassificationDataModule
from datamodules.splits import Split, TensorExamples
from lightning_modules import BRDRO, ERM, CVaRDRO, GroupDRO, LfF
from surefoot.classification.adversaries import LinearAdversary, VIBAdversary
from surefoot.classification.networks import Classifier
from surefoot.classification.pretrained_encoders import TimmEncoder

RESULTS = Path(__file__).parent / "results"
#: What the project promises, in times of the bare loop.
LIMITS = {"Group DRO": 1.05, "CVaR-DRO": 1.05, "BR-DRO (linear)": 1.15, "BR-DRO (VIB)": 1.15}


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Return the optimizer that every case uses."""
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


class RandomImages(ClassificationDataModule):
    """Random images in memory, with four groups."""

    n_classes = 2

    def __init__(self, n_train: int, size: int, batch_size: int) -> None:
        """Draw the images."""
        super().__init__(batch_size=batch_size, evaluate_test_during_fit=False)
        self.group_names = self.eval_group_names = ["a", "b", "c", "d"]
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(n_train, 3, size, size, generator=generator)
        self.group = torch.arange(n_train) % 4

    def build(self) -> dict[str, Split]:
        """Return the same images as every split."""
        target = self.group // 2
        examples = TensorExamples(input=self.images, target=target, group=self.group)
        return dict.fromkeys(("train", "val", "test"), Split(examples, target, self.group, self.group))


def bare_step(network: Classifier, optimizer: torch.optim.Optimizer) -> Callable[[dict[str, Tensor]], None]:
    """Return one step of the loop that anybody would write."""

    def step(batch: dict[str, Tensor]) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(batch["input"])[0], batch["target"]).backward()
        optimizer.step()

    return step


def method_step(module: Any) -> Callable[[dict[str, Tensor]], None]:
    """Return one step of a method without Lightning around it."""
    module.log = lambda *a, **k: None
    optimizer = sgd(module.trained().parameters())

    def step(batch: dict[str, Tensor]) -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0)["loss"].backward()
        optimizer.step()

    return step


def cases(n_train: int) -> dict[str, Callable[[dict[str, Tensor]], None]]:
    """Return all cases by name, the bare loop first; every network starts from the same weights."""

    def encoder() -> TimmEncoder:
        torch.manual_seed(0)
        return TimmEncoder("resnet18")

    bare = Classifier(encoder(), 2)
    lff = LfF(encoder(), sgd, n_classes=2)
    for name in ("biased_losses", "debiased_losses"):
        lff.register_buffer(name, torch.full((n_train,), float("nan")))
    lff.register_buffer("targets", torch.zeros(n_train))

    def br_dro(adversary: Any) -> BRDRO:
        return BRDRO(encoder(), sgd, adversary, lambda p: torch.optim.Adam(p, lr=0.05), n_classes=2)

    return {
        "bare PyTorch ERM": bare_step(bare, sgd(bare.parameters())),
        "ERM": method_step(ERM(encoder(), sgd, n_classes=2)),
        "Group DRO": method_step(GroupDRO(encoder(), sgd, n_groups=4, n_classes=2)),
        "CVaR-DRO": method_step(CVaRDRO(encoder(), sgd, n_classes=2)),
        "BR-DRO (linear)": method_step(br_dro(LinearAdversary)),
        "BR-DRO (VIB)": method_step(br_dro(VIBAdversary)),
        "LfF (two networks)": method_step(lff),
    }


def summary(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low_quartile": low, "high_quartile": high}


def compare_methods(n_rounds: int, n_steps: int, batch_size: int, size: int) -> dict[str, object]:
    """Time every case in turn."""
    n_train = batch_size * n_steps
    data = RandomImages(n_train, size, batch_size)
    data.setup("fit")
    batches = list(data.train_dataloader())
    steps = cases(n_train)
    for step in steps.values():  # warm up
        step(batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(n_rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for batch in batches:
                step(batch)
            seconds[name].append(time.perf_counter() - start)
    base = seconds["bare PyTorch ERM"]
    return {
        name: {
            "samples_per_second": n_train / statistics.median(values),
            "ratio": summary([v / b for v, b in zip(values, base, strict=True)]),
            "limit": LIMITS.get(name),
        }
        for name, values in seconds.items()
    }


def lightning_overhead(n_rounds: int, n_steps: int, folder: Path) -> dict[str, object]:
    """Time Lightning's own work per step, on a network so small that little else remains."""
    from surefoot.classification.networks import Flatten

    data = RandomImages(32 * n_steps, 8, 32)
    data.setup("fit")
    batches = list(data.train_dataloader())
    watched: tuple[object, ...] = (GroupMetrics(), ExampleWeightMonitor())

    def fit(callbacks: list[Any], logger: Any) -> float:
        torch.manual_seed(0)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=logger,
            callbacks=callbacks,
            log_every_n_steps=50,
            default_root_dir=folder,
        )
        module = ERM(Flatten(192), sgd, n_classes=2)
        start = time.perf_counter()
        trainer.fit(module, datamodule=data)
        return time.perf_counter() - start

    def bare() -> float:
        torch.manual_seed(0)
        network = Classifier(Flatten(192), 2)
        step = bare_step(network, sgd(network.parameters()))
        start = time.perf_counter()
        for batch in batches:
            step(batch)
        return time.perf_counter() - start

    rows: dict[str, list[float]] = {
        "bare loop": [],
        "Trainer": [],
        "Trainer, CSV and callbacks": [],
    }
    fit([], False)
    for _ in range(n_rounds):
        rows["bare loop"].append(bare())
        rows["Trainer"].append(fit([], False))
        rows["Trainer, CSV and callbacks"].append(fit(list(watched), CSVLogger(str(folder))))
    return {
        name: {"milliseconds_per_step": summary([1000 * v / n_steps for v in values])} for name, values in rows.items()
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    environment, setting = result["environment"], result["setting"]
    described = (
        f"{environment['device']}, torch {environment['versions']['torch']}, {environment['threads']} threads;"
        f" ResNet-18 on {setting['size']} pixels, batch {setting['batch_size']}, {setting['n_rounds']} rounds in turn;"
        " ratio to the bare loop of the same round: median (quartiles)."
    )
    lines = [
        "# Speed of the group-robust methods",
        "",
        described,
        "",
        "| method | samples/s | time against the bare loop | promised |",
        "|---|---|---|---|",
    ]
    for name, row in result["methods"].items():
        r = row["ratio"]
        limit = f"<= {row['limit']}" if row["limit"] else ""
        lines.append(
            f"| {name} | {row['samples_per_second']:.1f} | {r['median']:.3f} ({r['low_quartile']:.3f} to"
            f" {r['high_quartile']:.3f}) | {limit} |"
        )
    lines += [
        "",
        "Lightning's own cost, on a linear model with batches of 32:",
        "",
        "| loop | ms a step |",
        "|---|---|",
    ]
    for name, row in result["lightning"].items():
        m = row["milliseconds_per_step"]
        lines.append(f"| {name} | {m['median']:.2f} ({m['low_quartile']:.2f} to {m['high_quartile']:.2f}) |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2, help="steps of each case per round")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images, pixels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    methods = compare_methods(options.rounds, options.steps, options.batch_size, options.size)
    result = {
        "setting": {
            "n_rounds": options.rounds,
            "n_steps": options.steps,
            "batch_size": options.batch_size,
            "size": options.size,
        },
        "environment": describe_environment(),
        "methods": methods,
        "lightning": lightning_overhead(max(4, options.rounds // 2), 300, Path("runs/benchmark")),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "group_robust.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "group_robust.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
