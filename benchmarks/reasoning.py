"""Speed and memory of the reasoning half beside TRL 1.16: same model, data, batch and token budget, steps in turn.

python benchmarks/reasoning.py --peers PYTHON_WITH_TRL --out benchmarks/results/reasoning.json

TRL runs in an environment of its own (`pip install trl==1.16.0 torch==2.13.0`). Both sides are the real trainers: a
step of one waits while the other takes its own. Tokens are counted without padding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m-instruct"
CASES: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft", "n_rows": 8},
    "dpo": {"method": "dpo", "n_rows": 4},
    "grpo-32": {"method": "grpo", "n_rows": 1, "max_tokens": 32},
    "grpo-256": {"method": "grpo", "n_rows": 1, "max_tokens": 256},
}


def peak_gib() -> float:
    """Return this process's own peak memory; getrusage would count that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 2**20


def rows(n: int) -> list[dict[str, str]]:
    """Return real GSM8K problems with their solution, and another problem's as the rejected one, as plain text."""
    from datamodules import GSM8KDataModule

    problems = GSM8KDataModule(n_val=0, contamination="off").problems("train")[: n + 1]
    return [
        {
            "prompt": f"Question: {p.question}\nAnswer:",
            "chosen": f" {p.solution}",
            "rejected": f" {q.solution}",
        }
        for p, q in pairwise(problems)
    ]


def ours(task: dict[str, Any]) -> None:
    """Train with Surefoot, one step for each line on stdin."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # surefoot lets torchvision be imported beside a CPU build of torch: it comes before lightning
    import surefoot as _  # noqa: F401

    # isort: split
    import torch
    from lightning.pytorch import Callback, Trainer

    class Paced(Callback):
        def on_train_batch_start(self, *arguments: object) -> None:
            print(json.dumps({"ready": True}), file=replies, flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            self.began = time.perf_counter()

        def on_train_batch_end(self, trainer: object, module: Any, *arguments: object) -> None:
            reply = {"seconds": time.perf_counter() - self.began, "peak_gib": peak_gib()}
            reply["generated"] = sum(len(t.completion) for t in module.rollout)
            print(json.dumps(reply), file=replies, flush=True)

    torch.set_num_threads(task["threads"])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=10_000,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="bf16-mixed" if task["bf16"] else "32-true",
        callbacks=[Paced()],
    )
    trainer.fit(our_module(task), our_data(task))


def our_module(task: dict[str, Any]) -> Any:
    """Return a case's module."""
    import torch

    from lightning_modules import DPO, GRPO, SFT
    from surefoot.reasoning.language_models import PretrainedLanguageModel
    from surefoot.reasoning.problems import Problem
    from surefoot.reasoning.prompts import PlainPrompt
    from surefoot.reasoning.rewards import Rewards
    from surefoot.reasoning.rollouts import Sampling, VLLMEngine

    class Plain(PlainPrompt):
        def target_ids(self, problem: Problem, model: Any) -> list[int]:
            return [*model.encode(problem.solution), model.eos_token_id]

    def reward(completions: list[str], **columns: object) -> list[float]:
        return [float(len(set(c)) % 7) for c in completions]

    arguments: dict[str, Any] = {
        "language_model": PretrainedLanguageModel(MODEL),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-6, fused=True),
        "prompt": Plain("{question}"),
        "max_tokens_per_pack": 2048,
    }
    if task["method"] != "grpo":
        return {"sft": SFT, "dpo": DPO}[task["method"]](**arguments)
    # a cache of 5,800 tokens in float32; the larger shape needs 4,300
    engine = VLLMEngine(max_model_length=512, dtype="bfloat16" if task["bf16"] else "auto", cache_gib=0.25)
    sampling = Sampling(n=16, max_tokens=task["max_tokens"])
    return GRPO(**arguments, engine=engine, sampling=sampling, rewards=Rewards([reward]))


def our_data(task: dict[str, Any]) -> Any:
    """Return a case's datamodule: the same few rows in every step."""
    from datamodules import PreferencesDataModule
    from datamodules.reasoning.loaders import RecordsDataModule
    from surefoot.reasoning.problems import Problem

    class Repeated(RecordsDataModule):
        def collate(self, records: Any) -> dict[str, Any]:
            return {"problem": list(records)}

        def train_dataloader(self) -> Any:
            given = [Problem(str(i), r["prompt"], "0", r["chosen"]) for i, r in enumerate(task["rows"])]
            return self.training_loader(given)

    n = len(task["rows"])
    if task["method"] != "dpo":
        return Repeated(batch_size=n)
    path = Path(tempfile.mkdtemp()) / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in task["rows"]))
    return PreferencesDataModule(pairs=path, batch_size=n)


class Side:
    """One trainer in a process of its own."""

    def __init__(self, command: list[str]) -> None:
        """Start the process and wait until it is ready."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        self.read()

    def read(self) -> dict[str, object]:
        """Return the process's next reply."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(Path(self.log.name).read_text()[-3000:])
        reply: dict[str, object] = json.loads(line)
        return reply

    def step(self) -> dict[str, object]:
        """Let the process take one step."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        reply = self.read()
        self.read()  # ready for the next
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def non_pad_tokens(case: dict[str, Any]) -> int:
    """Return the tokens of a step's sequences, prompts and completions, without padding."""
    from surefoot.reasoning.language_models import load_tokenizer

    tokenizer = load_tokenizer(MODEL)

    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    total = 0
    for row in rows(case["n_rows"]):
        total += count(row["prompt"]) + count(row["chosen"]) + 1
        if case["method"] == "dpo":
            total += count(row["prompt"]) + count(row["rejected"]) + 1
    return total


def compare(name: str, peers: str, bf16: bool, rounds: int, threads: int) -> dict[str, object]:
    """Return medians of both sides' steps, taken in turn, the first one dropped."""
    from surefoot.reasoning.language_models.pretrained import model_folder

    case = CASES[name]
    task = case | {
        "rows": rows(case["n_rows"]),
        "model": model_folder(MODEL),
        "threads": threads,
        "bf16": bf16,
    }
    sides = {
        "surefoot": Side([sys.executable, __file__, "--worker", json.dumps(task)]),
        "trl": Side([peers, str(ROOT / "benchmarks/peers/trl_speed.py"), json.dumps(task | {"bf16": False})]),
    }
    found: dict[str, list[dict[str, Any]]] = {s: [] for s in sides}
    try:
        for _ in range(rounds + 1):
            for side, process in sides.items():
                found[side].append(process.step())
    finally:
        for process in sides.values():
            process.close()
    seconds = {s: [r["seconds"] for r in f[1:]] for s, f in found.items()}
    ratios = [t / o for t, o in zip(seconds["trl"], seconds["surefoot"], strict=True)]
    result: dict[str, Any] = {
        "case": name,
        "surefoot_precision": "bf16" if bf16 else "float32",
        "trl_precision": "float32",
        "rounds": rounds,
        "seconds": {s: statistics.median(v) for s, v in seconds.items()},
        "all_seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "peak_gib": {s: f[-1]["peak_gib"] for s, f in found.items()},
    }
    if case["method"] != "grpo":
        tokens = non_pad_tokens(case)
        result |= {
            "tokens": tokens,
            "tokens_per_second": {s: tokens / v for s, v in result["seconds"].items()},
        }
    else:
        result["generated_tokens"] = [r["generated"] for r in found["surefoot"][1:]]
    return result


def generation_overhead(rounds: int) -> dict[str, object]:
    """Compare `generate_completions` with a bare vLLM call on the same prompts, in turn, in one process."""
    import shutil

    from surefoot.reasoning.answers import Grader
    from surefoot.reasoning.completions.generation import generate_completions
    from surefoot.reasoning.language_models import PretrainedLanguageModel
    from surefoot.reasoning.policy import Policy
    from surefoot.reasoning.problems import Problem
    from surefoot.reasoning.prompts import PlainPrompt
    from surefoot.reasoning.rollouts import Sampling, VLLMEngine
    from surefoot.reasoning.rollouts.vllm import sampling_parameters
    from surefoot.training.seeds import derive_seed

    model, prompt = PretrainedLanguageModel(MODEL), PlainPrompt("{question}")
    problems = [Problem(str(i), r["prompt"], "1") for i, r in enumerate(rows(64))]
    sampling = Sampling(n=4, max_tokens=64)

    class Started(VLLMEngine):
        def start(self, model: Any, version: int = 0) -> None:
            if self.llm is None:
                super().start(model, version)

        def close(self) -> None:
            pass

    engine = Started(max_model_length=512)
    engine.start(model)
    prompts = [prompt.prompt_ids(p, model) for p in problems]
    times: dict[str, list[float]] = {"bare": [], "generate": []}
    for i in range(rounds + 1):
        engine.llm.reset_prefix_cache()
        began = time.perf_counter()
        parameters = [sampling_parameters(sampling, derive_seed(i, p.id)) for p in problems]
        engine.llm.generate([{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False)
        times["bare"].append(time.perf_counter() - began)
        engine.llm.reset_prefix_cache()
        folder = Path(tempfile.mkdtemp()) / "out"
        began = time.perf_counter()
        generate_completions(problems, Policy(model, prompt, engine, Grader()), sampling, folder, {}, i)
        times["generate"].append(time.perf_counter() - began)
        shutil.rmtree(folder.parent)
    ratios = [g / b for g, b in zip(times["generate"][1:], times["bare"][1:], strict=True)]
    return {
        "all_seconds": times,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def logits_memory(chunked: bool) -> dict[str, float]:
    """Return peak memory and seconds of the head at vocabulary 49,152 and 2,048 tokens, forward and backward."""
    import torch

    from surefoot.reasoning.sequences import token_scores

    hidden = torch.randn(2048, 576, requires_grad=True)
    weight = (0.02 * torch.randn(49152, 576)).requires_grad_()
    targets = torch.randint(49152, (2048,))
    before = peak_gib()
    began = time.perf_counter()
    if chunked:
        logprobs = token_scores(hidden, weight, targets).logprobs
    else:
        logprobs = (hidden @ weight.T).log_softmax(1).gather(1, targets[:, None])
    logprobs.sum().backward()
    return {"extra_mib": 1024 * (peak_gib() - before), "seconds": time.perf_counter() - began}


def main() -> None:
    """Measure what is asked for and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--logits", choices=["chunked", "naive"], default=None, help=argparse.SUPPRESS)
    parser.add_argument("--peers", default=None, help="python of an environment with TRL 1.16")
    parser.add_argument("--cases", nargs="*", default=[*CASES, "generate", "logits"])
    parser.add_argument("--precisions", nargs="*", default=["float32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("reasoning.json"))
    given = parser.parse_args()
    if given.worker is not None:
        return ours(json.loads(given.worker))
    if given.logits is not None:
        print(json.dumps(logits_memory(given.logits == "chunked")))
        return None
    from surefoot.runs import describe_environment
    from surefoot.storage.json_files import write_json

    results: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {}
    results["environment"] = describe_environment() | {"threads": given.threads}
    for name in given.cases:
        if name == "generate":
            results[name] = generation_overhead(given.rounds)
        elif name == "logits":
            command = [sys.executable, __file__, "--logits"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            results[name] = {
                kind: json.loads(subprocess.check_output([*command, kind], env=environment))
                for kind in ("chunked", "naive")
            }
        else:
            for precision in given.precisions:
                key = f"{name} ({precision})"
                results[key] = compare(name, given.peers, precision == "bf16", given.rounds, given.threads)
                print(key, {k: results[key][k] for k in ("seconds", "ratio", "peak_gib")}, flush=True)
        write_json(given.out, results)
    return None


if __name__ == "__main__":
    main()
