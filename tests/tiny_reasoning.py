"""Configs of tiny language-model runs on arithmetic, shared by the tests of modules, resumption and ranks."""

from typing import Any

__all__ = ("tiny_reasoning",)


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
