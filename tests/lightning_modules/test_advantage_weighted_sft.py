"""Advantage-weighted SFT: SFT's steps where weights are 1, hand-computed weights, and what is refused."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from labelled_completions import labelled_completions, stepwise
from tiny_reasoning import tiny_reasoning

from datamodules import LabelledTrajectoriesDataModule
from lightning_modules import AdvantageWeightedSFT
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.trajectories import Trajectory

METRICS = (Path(__file__).parents[2] / "docs/metrics.md").read_text()

pytestmark = pytest.mark.filterwarnings("ignore")


def settings(method: str, completions: Path, **model: Any) -> dict[str, Any]:
    config = tiny_reasoning(method, **model)
    config["trainer"]["max_epochs"] = 1
    beside = {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 4, "n_val": 3, "n_test": 3}}
    config["data"] = {
        "class_path": "LabelledTrajectoriesDataModule",
        "init_args": {"completions": str(completions), "batch_size": 8, "evaluate_on": beside, "seed": 0},
    }
    return config


def stored(folder: Path, trajectories: list[Trajectory]) -> Path:
    sharded = ShardedFolder(folder, "label", {}, [1], [len(trajectories)])
    sharded.write(lambda _: trajectories, lambda _: None, lambda: None, lambda _: {})
    return folder


def logged(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "train/loss" in row]


def test_with_a_large_beta_it_is_sft_on_all_completions(fit: Fit, tmp_path: Path) -> None:
    """Bit for bit; with a small one it is not."""
    completions = labelled_completions(tmp_path / "labels", n_problems=8)
    given = {"sft": ("SFT", {}), "large": ("AdvantageWeightedSFT", {"beta": 1e12})}
    given["small"] = ("AdvantageWeightedSFT", {"beta": 0.3})
    runs = {name: fit(settings(method, completions, **own), name=name) for name, (method, own) in given.items()}
    states = {n: torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for n, r in runs.items()}
    assert all(value.equal(states["large"][name]) for name, value in states["sft"].items())
    assert not all(value.equal(states["small"][name]) for name, value in states["sft"].items())
    weighted = logged(runs["large"])[0]
    assert (weighted["train/step_weight"], weighted["train/effective_share"]) == (1.0, 1.0)
    assert weighted["train/share_clipped"] == 0
    columns = (runs["large"] / "metrics.csv").read_text().splitlines()[0].split(",")
    assert all(f"| `{key}` |" in METRICS for key in columns if key.startswith("train/"))
    assert {"val/accuracy", "val/loss"} <= {*columns}, "problems beside the completions are answered"


def damaged(values: list[float], counts: list[int] | None = None) -> Trajectory:
    """Return a completion of two steps, ``a1`` and ``x2``, with other values."""
    trajectory = stepwise("1", ["a1\n", "x2\n"])
    trajectory.values, trajectory.value_counts = values, counts or []
    return trajectory


def test_the_first_loss_is_that_of_hand_computed_weights(fit: Fit, tmp_path: Path) -> None:
    """Values 1/2, 1/2 and 0 of one attempt are 3/4, 3/4 and 0 of the best of two where they are exact.

    Advantages are 0 and -3/4. Shares of two attempts, as the second completion's are, estimate the best of two without
    bias: one of the two was right, so that it is 1, 1 and 0, and advantages are 0 and -1.
    """
    trajectories = [damaged([0.5, 0.5, 0.0]), damaged([0.5, 0.5, 0.0], [2, 2, 0])]
    config = settings("AdvantageWeightedSFT", stored(tmp_path / "labels", trajectories), beta=0.5, k=2)
    row = logged(fit(config))[0]
    weights = [[1.0, math.exp(-0.75 / 0.5)], [1.0, math.exp(-1 / 0.5)]]
    arguments = config["model"]["init_args"]["language_model"]["init_args"]
    model = TinyLanguageModel(**arguments, seed=config["seed_everything"])
    total, n = 0.0, 0
    for t, (first, second) in zip(trajectories, weights, strict=True):
        logits = model.base(torch.tensor([[*t.prompt, *t.completion]])).logits[0, len(t.prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(t.completion)[:, None])[:, 0]
        total -= first * logprobs[:3].sum().item() + second * logprobs[3:].sum().item()
        n += len(t.completion)
    assert row["train/loss"] == pytest.approx(total / n, rel=1e-5)
    flat = [w for own in weights for w in own]
    assert row["train/step_weight"] == pytest.approx(sum(flat) / 4, rel=1e-5)
    assert row["train/effective_share"] == pytest.approx(sum(flat) ** 2 / sum(w * w for w in flat) / 4, rel=1e-5)


def test_large_weights_are_clipped_and_counted(fit: Fit, tmp_path: Path) -> None:
    """An advantage of 1 at beta .1 is worth e^10 without the clip; the other step is worth e^0."""
    completions = stored(tmp_path / "labels", [damaged([0.0, 1.0, 1.0])])
    row = logged(fit(settings("AdvantageWeightedSFT", completions, beta=0.1, max_weight=4.0)))[0]
    assert row["train/step_weight"] == pytest.approx((4 + 1) / 2)
    assert row["train/share_clipped"] == 0.5
    assert row["train/effective_share"] == pytest.approx(5**2 / (4**2 + 1) / 2)


def test_given_steps_are_not_learned(fit: Fit, tmp_path: Path) -> None:
    """What was given counts to the prompt, and the target may end otherwise than the completion."""
    trajectory = damaged([0.0, 1.0, 1.0])
    trajectory.n_given, trajectory.behaviour_logprobs = 3, [math.nan] * 3 + [-1.0] * 3
    trajectory.target = [*trajectory.completion, 2]
    row = logged(fit(settings("AdvantageWeightedSFT", stored(tmp_path / "labels", [trajectory]), beta=0.1)))[0]
    assert row["train/tokens"] == 4
    assert (row["train/step_weight"], row["train/share_clipped"]) == (1.0, 0.0), "the given step's is left out"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "row 1 has 0 values for 3 prefixes: label it with surefoot label"),
        ([1.0, math.nan, 0.0], r"row 1 has the values \[1\.0, nan, 0\.0\]: expected probabilities"),
    ],
)
def test_completions_without_values_are_refused(values: list[float], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        LabelledTrajectoriesDataModule(stored(tmp_path / "labels", [damaged(values)])).trajectories()


def test_values_of_several_provers_are_refused(tmp_path: Path) -> None:
    trajectories = [damaged([1.0, 1.0, 0.0]) for _ in range(2)]
    for t, name in zip(trajectories, ("a", "b"), strict=True):
        t.prover = f'{{"model": "{name}"}}'
    with pytest.raises(DataError, match="labels of several provers, of another model"):
        LabelledTrajectoriesDataModule(stored(tmp_path / "labels", trajectories)).trajectories()


def test_other_data_are_refused_before_training(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(tiny_reasoning("AdvantageWeightedSFT"))
    assert stop.value.code == 2
    assert "AdvantageWeightedSFT needs a datamodule with trajectories (LabelledSource)" in capsys.readouterr().err


def test_fewer_attempts_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        AdvantageWeightedSFT(k=0)
