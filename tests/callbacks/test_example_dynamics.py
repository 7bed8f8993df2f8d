"""Example dynamics of classifiers through the public command line."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit, tiny
from logged import metric_values

pytestmark = pytest.mark.filterwarnings("ignore")


def watched(method: str, **changes: Any) -> dict[str, Any]:
    config = tiny(method)
    config["trainer"]["callbacks"] = [{"class_path": "ExampleDynamics"}]
    config["trainer"] |= changes
    return config


def table(run: Path) -> list[dict[str, float]]:
    with (run / "example_dynamics.csv").open() as file:
        return [{k: float(v) for k, v in r.items()} for r in csv.DictReader(file)]


@pytest.mark.parametrize("method", ["ERM", "GroupDRO", "CVaRDRO", "LfF", "JTT", "BRDRO"])
def test_any_method_is_followed_and_does_not_notice(method: str, fit: Fit) -> None:
    run = fit(watched(method), name="watched")
    config = watched(method)
    config["trainer"]["callbacks"] = []
    plain = fit(config, name="plain")
    states = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (run, plain)]
    for name, value in states[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][name])), name
    rows = table(run)
    seen = [r for r in rows if r["n_seen"]]
    assert sum(r["n_seen"] for r in rows) >= len(rows), "as many presentations as two epochs have"
    assert all(0 <= r["confidence"] <= 1 and 0 <= r["correctness"] <= 1 for r in seen)
    never = [r for r in seen if r["first_learned_epoch"] < 0]
    assert all(r["correctness"] == 0 for r in never)
    last = metric_values(run, "dynamics/correctness")[-1]
    assert last == pytest.approx(sum(r["correctness"] for r in seen) / len(seen), rel=1e-4)
    share = metric_values(run, "dynamics/share_never_learned")[-1]
    assert share == pytest.approx(len(never) / len(seen), abs=1e-4)


def test_resumed_runs_keep_their_history(fit: Fit) -> None:
    whole = fit(watched("ERM", max_epochs=3), name="whole")
    fit(watched("ERM", max_epochs=1), name="first")
    first = (whole.parents[1] / "first/latest/checkpoints/last.ckpt").resolve()
    resumed = fit(watched("ERM", max_epochs=3), "--ckpt_path", str(first), name="resumed")
    assert table(whole) == table(resumed)


def test_a_module_without_logits_ends_in_one_line(fit: Fit, capsys: Any) -> None:
    from tiny_reasoning import tiny_reasoning

    config = tiny_reasoning("SFT")
    config["trainer"]["callbacks"] = [{"class_path": "ExampleDynamics"}]
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    assert "reads the logits that a training step returns; SFT returns none" in capsys.readouterr().err
