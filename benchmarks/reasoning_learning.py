"""What reinforcement and rejection-sampling fine-tuning add to a fine-tuned start, on held-out arithmetic, over seeds.

python benchmarks/reasoning_learning.py --seeds 3 --out benchmarks/results/reasoning_learning.json
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

from surefoot.cli import main as surefoot
from surefoot.runs import describe_environment
from surefoot.statistics import mean_interval
from surefoot.storage.json_files import write_json

ROOT = Path(__file__).parents[1]
METHODS = ("sft", "grpo", "rft")


def run(method: str, seed: int, runs: Path) -> dict[str, float]:
    """Train one method through its shipped config and test it on 1,000 held-out problems, greedily."""
    start = runs / f"sft-{seed}/latest/model"
    flags = [
        "--runs_root",
        str(runs),
        "--trainer.enable_progress_bar",
        "false",
        "--seed_everything",
        str(seed),
    ]
    flags += ["--data.init_args.seed", str(seed)]
    if method == "sft":
        flags += ["--model.init_args.language_model.init_args.seed", str(seed)]
    else:
        flags += ["--model.init_args.language_model.init_args.name", str(start)]
    config = str(ROOT / f"configs/reasoning/{method}_arithmetic.yaml")
    surefoot(["fit", "--config", config, *flags, "--experiment", f"{method}-{seed}"])
    checkpoint = runs / f"{method}-{seed}/latest/checkpoints/last.ckpt"
    test = ["--experiment", f"{method}-{seed}-test", "--ckpt_path", str(checkpoint)]
    surefoot(["test", "--config", config, *flags, *test])
    with (runs / f"{method}-{seed}-test/latest/metrics.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r.get("test/accuracy"))
    return {"accuracy": float(row["test/accuracy"])}


def measure(seeds: int, runs: Path) -> dict[str, object]:
    """Return every run's accuracy, and gains over the start with their 95% intervals over seeds."""
    table = {m: [run(m, s, runs) for s in range(seeds)] for m in METHODS}
    starts = [r["accuracy"] for r in table["sft"]]
    gains = {
        m: mean_interval([r["accuracy"] - s for r, s in zip(table[m], starts, strict=True)])._asdict()
        for m in METHODS[1:]
    }
    return {"runs": table, "start": mean_interval(starts)._asdict(), "gains": gains}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=None, help="keep the runs here, and resume them")
    parser.add_argument("--out", type=Path, default=Path("reasoning_learning.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(arguments.seeds, arguments.runs or Path(temporary))
    write_json(arguments.out, result | {"environment": describe_environment()})
    print(json.dumps({k: result[k] for k in ("start", "gains")}, indent=2), file=sys.stdout)


if __name__ == "__main__":
    main()
