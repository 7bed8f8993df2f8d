"""Configs of small private regressions, shared by the tests of the module and of its data."""

from typing import Any

__all__ = ("SEEDED", "descent", "tiny_private")

#: The config of noise and samples that repeat.
SEEDED = {"class_path": "SeededNoise", "init_args": {"seed": 0}}


def descent(**settings: Any) -> dict[str, Any]:
    """Return the config of noisy gradient descent."""
    return {"class_path": "NoisyGradientDescent", "init_args": {"clip": 2.0} | settings}


def tiny_private(**model: Any) -> dict[str, Any]:
    """Return a config of a small private regression on Poisson samples."""
    init = {
        "loss": "squared",
        "budget": {"epsilon": 2.0, "delta": 1e-5},
        "noise": SEEDED,
        "mechanism": descent(),
    }
    return {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        },
        "model": {"class_path": "PrivateLinear", "init_args": init | model},
        "data": {
            "class_path": "SharedSubspaceDataModule",
            "init_args": {
                "source": SEEDED,
                "problem": {"d": 12, "k": 2, "n_public_per_task": 40, "n_private": 300},
                "n_eval": 100,
                "sampling_rate": 0.2,
                "steps_per_epoch": 10,
                "seed": 0,
            },
        },
    }
