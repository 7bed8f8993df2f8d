"""A step of private regression beside opacus' per-sample gradients on the same batches and the floor of two products.

Run in an environment that has opacus (1.6) and jaxtyping:
``PYTHONPATH=. /tmp/opacus/bin/python benchmarks/private_linear.py``; writes ``benchmarks/results/private_linear.json``
and ``.md``.

100,000 examples of 1,000 features, 1,000 steps in rounds of 100; each round times every case on the same batches, one
after the other. Ratios are taken within a round; medians and quartiles over rounds are reported. Two sizes of batches:
samples of 1,000, and all examples. Memory is the peak of a process of its own for each case, less that of one that only
holds data and batch.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.privacy.descent import noisy_gradient
from surefoot.privacy.linear_models import clipped_gradient_sum

RESULTS = Path(__file__).parent / "results"
N, D, CLIP, NOISE = 100_000, 1000, 1.0, 1.0
#: Name -> examples of a batch, steps of a round.
BATCHES = {"samples of 1,000": (1000, 100), "all 100,000": (N, 5)}
Step = Callable[[Tensor, Tensor], None]


def ours() -> Step:
    """Return a step of closed-form clipping."""
    weight = torch.zeros(D, 1)

    def step(x: Tensor, y: Tensor) -> None:
        summed = clipped_gradient_sum(weight, x, y, "squared", CLIP).gradient
        weight.sub_(0.1 * noisy_gradient(summed, torch.randn(D, 1), NOISE, CLIP, len(x)))

    return step


def opacus() -> Step:
    """Return a step of opacus: per-sample gradients of a linear layer, its own clipping, noise and optimizer."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module = GradSampleModule(nn.Linear(D, 1, bias=False), loss_reduction="sum")
    nn.init.zeros_(module._module.weight)
    optimizers: dict[int, Any] = {}

    def step(x: Tensor, y: Tensor) -> None:
        if len(x) not in optimizers:
            optimizers[len(x)] = DPOptimizer(
                torch.optim.SGD(module.parameters(), lr=0.1),
                noise_multiplier=NOISE,
                max_grad_norm=CLIP,
                expected_batch_size=len(x),
                loss_reduction="mean",
            )
        optimizer = optimizers[len(x)]
        optimizer.zero_grad()
        ((module(x)[:, 0] - y) ** 2 / 2).sum().backward()
        optimizer.step()

    return step


def floor() -> Step:
    """Return two products with the data, which no gradient can do without."""
    weight = torch.zeros(D, 1)

    def step(x: Tensor, y: Tensor) -> None:
        x.T @ (x @ weight - y[:, None])

    return step


CASES: dict[str, Callable[[], Step]] = {"floor": floor, "surefoot": ours, "opacus": opacus}


def make_data(n: int) -> tuple[Tensor, Tensor]:
    """Draw inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=generator)
    return x, torch.randn(n, generator=generator)


def summary(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low_quartile": low, "high_quartile": high}


def compare(batch: int, n_rounds: int, n_steps: int) -> dict[str, object]:
    """Time all cases in turn on the same batches."""
    x, y = make_data(N)
    steps = {name: make() for name, make in CASES.items()}
    first = x[:batch], y[:batch]
    for step in steps.values():
        step(*first)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for r in range(n_rounds):
        starts = [(r * n_steps + i) * batch % (N - batch + 1) for i in range(n_steps)]
        for name, step in steps.items():
            began = time.perf_counter()
            for start in starts:
                step(x[start : start + batch], y[start : start + batch])
            seconds[name].append((time.perf_counter() - began) / n_steps)
    fast = seconds["surefoot"]
    return {
        "milliseconds": {n: 1000 * statistics.median(v) for n, v in seconds.items()},
        "opacus_over_surefoot": summary([a / b for a, b in zip(seconds["opacus"], fast, strict=True)]),
        "surefoot_over_floor": summary([a / b for a, b in zip(fast, seconds["floor"], strict=True)]),
    }


def peak_megabytes(case: str, batch: int) -> float:
    """Return the peak of a process that runs three steps of a case, or holds the data only (``none``)."""
    command = [sys.executable, __file__, "--case", case, "--batch", str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run_case(case: str, batch: int) -> None:
    """Print this process's peak in megabytes after three steps."""
    import opacus as _

    x, y = make_data(max(batch, 1000))
    if case != "none":
        step = CASES[case]()
        for _ in range(3):
            step(x[:batch], y[:batch])
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's peak too
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.case:
        run_case(options.case, options.batch)
        return
    result = environment()
    for name, (batch, n_steps) in BATCHES.items():
        found = compare(batch, options.rounds, n_steps)
        held = peak_megabytes("none", batch)
        found["peak_megabytes"] = {a: peak_megabytes(a, batch) - held for a in CASES}
        result[name] = found
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "private_linear.json").write_text(json.dumps(result, indent=2) + "\n")
    text = page(result, options.rounds)
    (options.out / "private_linear.md").write_text(text)
    print(text)


def environment() -> dict[str, Any]:
    """Return the machine and the versions."""
    import opacus as peer

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return {
        "device": f"{model}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opacus": peer.__version__,
    }


def page(result: dict[str, Any], n_rounds: int) -> str:
    """Return the results as a Markdown page."""
    lines = [
        "# A step of private regression, 1,000 features, beside opacus",
        "",
        (
            f"{result['device']}, torch {result['torch']}, opacus {result['opacus']}; {n_rounds} rounds in turn,"
            " medians with quartiles."
        ),
        "",
        (
            "| batch | Surefoot, ms | opacus over Surefoot (at least 3) | over two products | peak MB, Surefoot /"
            " opacus (at most half) |"
        ),
        "|---|---|---|---|---|",
    ]
    for name in BATCHES:
        r = result[name]
        ratio, over, peak = r["opacus_over_surefoot"], r["surefoot_over_floor"], r["peak_megabytes"]
        lines.append(
            f"| {name} | {r['milliseconds']['surefoot']:.2f} | {ratio['median']:.2f} ({ratio['low_quartile']:.2f} to"
            f" {ratio['high_quartile']:.2f}) | {over['median']:.2f} | {peak['surefoot']:.1f} / {peak['opacus']:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
