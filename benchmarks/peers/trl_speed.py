"""TRL's trainers, one step at a time, for `benchmarks/reasoning.py`, which runs this in an environment with TRL 1.16.

Each line on stdin lets one optimizer step happen; its seconds and the process's peak memory come back on stdout.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

TASK = json.loads(sys.argv[1])
REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
torch.set_num_threads(TASK["threads"])


def peak_gib() -> float:
    """Return this process's own peak memory; getrusage would count that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 2**20


class Paced(TrainerCallback):
    """Waits for a line before each step and reports after it."""

    def on_step_begin(self, *arguments: object, **named: object) -> None:
        """Wait."""
        print(json.dumps({"ready": True}), file=REPLIES, flush=True)
        if not sys.stdin.readline():
            os._exit(0)
        self.began = time.perf_counter()

    def on_step_end(self, *arguments: object, **named: object) -> None:
        """Report."""
        reply = {"seconds": time.perf_counter() - self.began, "peak_gib": peak_gib()}
        print(json.dumps(reply), file=REPLIES, flush=True)


def _reward(completions: list[str], **columns: object) -> list[float]:
    """Return rewards that differ within a group."""
    return [float(len(set(c)) % 7) for c in completions]


def settings_of_all() -> dict[str, object]:
    """Return the settings that all trainers share."""
    return {
        "report_to": "none",
        "use_cpu": True,
        "bf16": TASK["bf16"],
        "gradient_checkpointing": False,
        "max_steps": 10_000,
        "output_dir": tempfile.mkdtemp(),
        "save_strategy": "no",
        "learning_rate": 1e-6,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def make_trainer() -> SFTTrainer | DPOTrainer | GRPOTrainer:
    """Return the task's trainer."""
    tokenizer = AutoTokenizer.from_pretrained(TASK["model"])
    model = AutoModelForCausalLM.from_pretrained(TASK["model"], dtype=torch.float32)
    rows, common = TASK["rows"], settings_of_all()
    given = {"processing_class": tokenizer, "callbacks": [Paced()]}
    if TASK["method"] == "sft":
        data = Dataset.from_list([{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows])
        settings = SFTConfig(per_device_train_batch_size=len(rows), max_length=None, **common)
        return SFTTrainer(model, settings, train_dataset=data, **given)
    if TASK["method"] == "dpo":
        settings = DPOConfig(
            per_device_train_batch_size=len(rows), max_length=None, precompute_ref_log_probs=True, **common
        )
        return DPOTrainer(model, None, settings, train_dataset=Dataset.from_list(rows), **given)
    settings = GRPOConfig(
        per_device_train_batch_size=16,
        num_generations=16,
        max_completion_length=TASK["max_tokens"],
        temperature=1.0,
        beta=0.0,
        **common,
    )
    data = Dataset.from_list([{"prompt": rows[0]["prompt"]}] * 8)
    return GRPOTrainer(model, _reward, settings, train_dataset=data, **given)


# The driver ends the process.
make_trainer().train()
