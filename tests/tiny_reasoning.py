"""Configs of tiny language-model runs and of what is sampled from them on arithmetic, and tiny models as folders."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from surefoot.reasoning.language_models import TinyLanguageModel, ValueHead

__all__ = ("save_tiny_model", "save_untrained_values", "tiny_generation", "tiny_reasoning")


def tiny_reasoning(method: str, **model: Any) -> dict[str, Any]:
    """Return a config that trains a language model of 20,000 parameters for a few steps."""
    init: dict[str, Any] = {
        "language_model": {
            "class_path": "TinyLanguageModel",
            "init_args": {"width": 32, "n_layers": 1, "n_heads": 2, "max_length": 128},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
        "max_tokens_per_pack": 150,
        "engine": {"class_path": "HFEngine"},
        "evaluation": {"temperature": 0.0, "max_tokens": 12},
    }
    if method in ("GRPO", "RFT"):
        init["sampling"] = {"n": 4, "max_tokens": 10}
        # A tiny model's texts hold no answer: reward what it can do.
        init["grader"] = {
            "class_path": "surefoot.reasoning.answers.Grader",
            "init_args": {"rule": "last_number"},
        }
    if method == "GRPO":
        reward = {"class_path": "surefoot.reasoning.rewards.FormatReward", "init_args": {"pattern": "[0-4]"}}
        init["rewards"] = {"functions": [reward]}
    return {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "limit_val_batches": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "callbacks": [{"class_path": "SampleTable", "init_args": {"every_n_steps": 2}}],
        },
        "model": {"class_path": method, "init_args": init | model},
        "data": {
            "class_path": "ArithmeticDataModule",
            "init_args": {"n_train": 32, "n_val": 8, "n_test": 8, "batch_size": 8, "seed": 0},
        },
    }


def tiny_generation(**changes: Any) -> dict[str, Any]:
    """Return a config of ``surefoot generate``: three completions of each of 22 problems, in six shards."""
    return {
        "model": tiny_reasoning("SFT")["model"]["init_args"]["language_model"],
        "engine": {"class_path": "HFEngine", "init_args": {"max_sequences": 16}},
        "data": {"class_path": "ArithmeticDataModule", "init_args": {"n_test": 22, "n_train": 10}},
        "prompt": {"class_path": "PlainPrompt"},
        "grader": {"rule": "last_number"},
        "sampling": {"n": 3, "max_tokens": 8},
        "problems_per_shard": 4,
    } | changes


def save_tiny_model(folder: Path, seed: int) -> None:
    """Write a tiny language model, over another one if there is one."""
    TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128, seed=seed).save(folder)


def save_untrained_values(folder: Path, n_layers: int, max_length: int) -> Path:
    """Write a value model that has learned nothing, with values that differ, as a run of ProcessReward leaves it."""
    torch.manual_seed(3)
    model = TinyLanguageModel(width=32, n_layers=n_layers, n_heads=2, max_length=max_length)
    head = ValueHead(model.width)
    torch.nn.init.normal_(head.linear.weight, std=0.3)
    model.save(folder / "model")
    save_file({f"value_head.{n}": w for n, w in head.state_dict().items()}, folder / "weights.safetensors")
    return folder
