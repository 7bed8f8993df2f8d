"""Greedy accuracy of SmolLM2-135M-Instruct on the first GSM8K test problems, with two engines on the same prompts.

python benchmarks/smollm2_gsm8k.py --out benchmarks/results/smollm2_gsm8k.json
"""

import argparse
import json
import tempfile
from pathlib import Path

from surefoot.cli import main as surefoot
from surefoot.reasoning.completions.store import read_completions
from surefoot.runs import describe_environment
from surefoot.statistics import paired_difference
from surefoot.storage.json_files import read_json, write_json

ROOT = Path(__file__).parents[1]
ENGINES = {
    "HFEngine": {"max_sequences": 50},
    "VLLMEngine": {"max_model_length": 1024},
}


def run(engine: str, out: Path, n_problems: int) -> list[dict[str, object]]:
    """Sample with one engine and return the rows."""
    config = ROOT / "configs/pipelines/stages/sample_gsm8k_smollm2.yaml"
    settings = {"class_path": engine, "init_args": ENGINES[engine]}
    flags = ["--split", "test", "--limit", str(n_problems), "--problems_per_shard", "50"]
    flags += ["--engine", json.dumps(settings), "--sampling.n", "1", "--sampling.temperature", "0"]
    surefoot(["generate", "--config", str(config), "--out", str(out), *flags])
    return [dict(r) for r in read_completions(out)]


def measure(folder: Path, n_problems: int) -> dict[str, object]:
    """Return both engines' accuracies and how far they agree."""
    rows = {e: run(e, folder / e, n_problems) for e in ENGINES}
    correct = {e: [float(r["status"] == "correct") for r in rs] for e, rs in rows.items()}
    pairs = list(zip(*rows.values(), strict=True))
    return {
        "n_problems": n_problems,
        "engines": {e: read_json(folder / e / "summary.json") for e in ENGINES},
        "difference": paired_difference(*correct.values())._asdict(),
        "share_same_tokens": sum(a["completion_ids"] == b["completion_ids"] for a, b in pairs) / len(pairs),
        "share_same_grade": sum(a["status"] == b["status"] for a, b in pairs) / len(pairs),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None, help="keep the completions here")
    parser.add_argument("--out", type=Path, default=Path("smollm2_gsm8k.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(given.folder or Path(temporary), given.problems)
    write_json(given.out, result | {"environment": describe_environment()})
    print(json.dumps({k: v for k, v in result.items() if k != "engines"}, indent=2))


if __name__ == "__main__":
    main()
