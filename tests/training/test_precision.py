"""Updates that half precision rounds away are noticed, and only those; large models' configs keep float32 weights."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit
from safetensors.torch import load_file
from tiny_reasoning import tiny_reasoning
from torch import nn

from surefoot.training.precision import LostUpdates, watch_updates

ROOT = Path(__file__).parents[2]


def train(
    dtype: torch.dtype,
    lr: float,
    optimizer: Any = torch.optim.AdamW,
    warmup: int = 0,
    steps: int = 30,
) -> tuple[list[str], float]:
    """Take steps with random gradients; returns the warnings and the share of weights that moved."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter((0.02 * torch.randn(64, 64, generator=generator)).to(dtype))
    unused = nn.Parameter(torch.ones(1000, dtype=dtype))
    used = optimizer([weight, unused], lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(used, lambda i: min(1.0, (i + 1) / (warmup + 1)))
    watch_updates(used, n_weights=500)
    start = weight.detach().clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            weight.grad = torch.randn(64, 64, generator=generator).to(dtype)
            unused.grad = torch.zeros_like(unused)
            used.step()
            schedule.step()
    said = [str(w.message) for w in caught if issubclass(w.category, LostUpdates)]
    assert not used._optimizer_step_pre_hooks, "it looks at the first steps only"
    return said, float((weight != start).float().mean())


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_updates_below_the_spacing_are_warned_of(optimizer: Any, warmup: int) -> None:
    small = 1e-6 if optimizer is not torch.optim.SGD else 1e-7
    (said,), moved = train(torch.bfloat16, small, optimizer, warmup)
    assert moved < 0.2
    assert "of the first 5 steps' updates changed their weight: at learning rate" in said
    assert train(torch.float32, small, optimizer, warmup)[0] == []
    said_at_once, moved = train(torch.bfloat16, 1e-2, optimizer, warmup)
    assert moved > 0.9
    assert said_at_once == []


def test_float16_has_a_spacing_of_its_own() -> None:
    assert len(train(torch.float16, 1e-7)[0]) == 1
    assert train(torch.float16, 1e-3)[0] == []


def settings(dtype: str, precision: str, lr: float) -> dict[str, Any]:
    config = tiny_reasoning("SFT")
    config["trainer"] |= {"precision": precision, "limit_val_batches": 0, "callbacks": []}
    config["model"]["init_args"]["language_model"]["init_args"]["dtype"] = dtype
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = lr
    return config


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_pure_bfloat16_says_so_and_one_with_float32_weights_does_not(fit: Fit) -> None:
    with pytest.warns(LostUpdates, match=r"only [0-9.]+% .* learning rate 1e-06"):
        fit(settings("bfloat16", "bf16-true", 1e-6), name="pure")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LostUpdates)
        run = fit(settings("float32", "bf16-mixed", 1e-6), name="mixed")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert {v.dtype for v in state["state_dict"].values()} == {torch.float32}
    moments = list(state["optimizer_states"][0]["state"].values())
    assert {m["exp_avg"].dtype for m in moments} == {torch.float32}


@pytest.mark.parametrize("path", sorted((ROOT / "configs/reasoning").glob("*_llama3_8b.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_train_float32_weights(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["model"]["init_args"]["language_model"]["init_args"]["dtype"] == "float32"


@pytest.mark.slow
def test_sharded_weights_are_float32_and_are_computed_with_in_bfloat16(tmp_path: Path) -> None:
    """FSDP2 by the shipped overlay on one gloo rank, with a learning rate at which pure bfloat16 would stand still."""
    config = settings("float32", "bf16-mixed", 1e-5)
    config["trainer"]["callbacks"] = [{"class_path": "ModelExporter"}]
    config["trainer"] |= yaml.safe_load((ROOT / "configs/overlays/fsdp.yaml").read_text())["trainer"]
    config["trainer"]["devices"] = 1
    config["trainer"]["strategy"]["init_args"]["data_parallel_size"] = 1
    path = tmp_path / "sharded.yaml"
    path.write_text(yaml.safe_dump(config))
    code = (
        "import sys, torch\n"
        "from surefoot.reasoning.language_models import LanguageModel\n"
        "original, seen = LanguageModel.weighted_logprob_sum, set()\n"
        "def watched(self, *a, **k):\n"
        "    seen.update((str(p.dtype), str(self.base.get_output_embeddings().weight.dtype)) for p in"
        " [next(self.parameters())])\n"
        "    return original(self, *a, **k)\n"
        "LanguageModel.weighted_logprob_sum = watched\n"
        "from surefoot.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(seen)\n"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "fit",
            "--config",
            str(path),
            "--runs_root",
            str(tmp_path / "runs"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "('torch.bfloat16', 'torch.bfloat16')" in result.stdout
    assert "LostUpdates" not in result.stderr
    from surefoot.reasoning.language_models import TinyLanguageModel

    sizes = config["model"]["init_args"]["language_model"]["init_args"]
    start = dict(TinyLanguageModel(**sizes).named_weights())
    trained = load_file(tmp_path / "runs/sharded/0/model/model.safetensors")
    assert {t.dtype for t in trained.values()} == {torch.float32}
    layers = [n for n in trained if "layers" in n and trained[n].dim() == 2]
    moved = torch.cat([(trained[n] != start[n]).flatten() for n in layers]).float().mean()
    assert moved > 0.95
