"""What papers on language models run: training runs that export a model, and verbs that sample and label with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from surefoot.reproduce.jobs import QUIET, component

__all__ = ("ENGINE", "completions_of", "folder_of", "model_of", "optimizer", "run_verb", "trainer")

#: What samples completions, unless vLLM is asked for.
ENGINE = component("HFEngine", max_sequences=512)


def folder_of(job: str, out: Path) -> Path:
    """Return the run folder of a job."""
    return out / "runs" / job / "latest"


def model_of(job: str, out: Path) -> dict[str, Any]:
    """Return the language model that a job has trained."""
    name = str((folder_of(job, out) / "model").resolve())
    return component("PretrainedLanguageModel", name=name)


def completions_of(name: str, seed: int, out: Path) -> Path:
    """Return the folder of a seed's stored completions, or of what was made of them."""
    return out / "completions" / f"{name}_seed{seed}"


def trainer(callbacks: Sequence[Mapping[str, Any]] = (), **settings: Any) -> dict[str, Any]:
    """Return the settings of a trainer that runs beside others on a CPU."""
    return {"accelerator": "cpu", **QUIET, "log_every_n_steps": 10, "callbacks": list(callbacks), **settings}


def optimizer(lr: float, warmup: float) -> dict[str, Any]:
    """Return a method's settings of AdamW and of packs."""
    adamw = component("torch.optim.AdamW", lr=lr, weight_decay=0.01)
    return {"optimizer": adamw, "warmup": warmup, "max_tokens_per_pack": 8192, "max_gradient_norm": 1.0}


def run_verb(verb: str, settings: Mapping[str, Any], out: Path) -> None:
    """Run a verb of the command line into a folder, unless it has finished there.

    Args:
        verb: Such as ``generate``.
        settings: What a config file would say; the file is written to ``configs``, beside the folder's parent.
        out: The folder.
    """
    from surefoot.cli import main

    config = out.parent.parent / "configs" / f"{out.parent.name}_{out.name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
    main([verb, "--config", str(config), "--out", str(out)])
