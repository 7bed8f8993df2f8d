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


def main() -> None:
    """Train for ever; the driver ends the process."""
    tokenizer = AutoTokenizer.from_pretrained(TASK["model"])
    model = AutoModelForCausalLM.from_pretrained(TASK["model"], dtype=torch.float32)
    common = {
        "report_to": "none",
        "use_cpu": True,
        "bf16": TASK["bf16"],
        "gradient_checkpointing": False,
    }
    common |= {
        "max_steps": 10_000,
        "output_dir": tempfile.mkdtemp(),
        "save_strategy": "no",
        "learning_rate": 1e-6,
    }
    common |= {"disable_tqdm": True, "logging_strategy": "no"}
    rows = TASK["rows"]
    if TASK["method"] == "sft":
        data = Dataset.from_list([{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows])
        settings = SFTConfig(per_device_train_batch_size=len(rows), max_length=None, **common)
        trainer = SFTTrainer(model, settings, train_dataset=data, processing_class=tokenizer, callbacks=[Paced()])
    elif TASK["method"] == "dpo":
        data = Dataset.from_list(rows)
        settings = DPOConfig(
            per_device_train_batch_size=len(rows),
            max_length=None,
            precompute_ref_log_probs=True,
            **common,
        )
        trainer = DPOTrainer(
            model,
            None,
            settings,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Paced()],
        )
    else:
        data = Dataset.from_list([{"prompt": rows[0]["prompt"]}] * 8)
        settings = GRPOConfig(
            per_device_train_batch_size=16,
            num_generations=16,
            max_completion_length=TASK["max_tokens"],
            temperature=1.0,
            beta=0.0,
            **common,
        )
        trainer = GRPOTrainer(
            model,
            _reward,
            settings,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Paced()],
        )
    trainer.train()


main()
