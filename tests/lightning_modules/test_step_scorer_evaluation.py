"""Public scorers on ProcessBench's layout, through the command line, against first errors by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from logged import metric_values
from safetensors.torch import load_file, save_file
from tiny_scorers import classifier_folder

from surefoot.cli import main
from surefoot.reasoning.metrics.judgements import first_error, first_errors
from surefoot.reasoning.values import StepClassifierValues, StepTexts

pytestmark = pytest.mark.filterwarnings("ignore")


def settings(folder: Path, path: Path, **data: Any) -> dict[str, Any]:
    arguments = {"path": str(path), "val_share": 0, "test_share": 1, "eval_batch_size": 2} | data
    scorer = {"class_path": "StepClassifierValues", "init_args": {"folder": str(folder)}}
    return {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "model": {"class_path": "StepScorerEvaluation", "init_args": {"scorer": scorer}},
        "data": {"class_path": "ProcessBenchDataModule", "init_args": arguments},
    }


def centre(folder: Path, values: list[float]) -> None:
    """Shift a random scorer's head so that 1/2 lies in the widest gap of the middle of some values, far from each."""
    logits = torch.tensor(values).logit().sort().values
    middle = logits[len(logits) // 4 : -(len(logits) // 4)]
    widest = int(middle.diff().argmax())
    assert middle.diff()[widest] > 1e-2, "rounding must not decide"
    weights = load_file(folder / "model.safetensors")
    weights["score.2.bias"][1] -= middle[widest : widest + 2].mean()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_first_errors_are_scored_as_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = classifier_folder(tmp_path / "scorer")
    texts = [["Tom buys 3 apples.", "the answer is 7."], ["a step", "another step", "12 + 30"], ["42"], ["the last"]]
    texts += [[f"{n} apples", f"{n} steps"] for n in range(6)]
    solutions = [StepTexts(f"Q{i}", steps) for i, steps in enumerate(texts)]
    centre(folder, [v for own in StepClassifierValues(folder).judge(solutions) for v in own])
    values = StepClassifierValues(folder).judge(solutions)
    found = [first_error(v, 0.5) for v in values]
    assert len(set(found)) > 1
    truth = [n if i % 3 else -1 for i, n in enumerate(found)]  # the scorer is right on two of three
    rows = [{"problem": f"Q{i}", "steps": s, "label": n} for i, (s, n) in enumerate(zip(texts, truth, strict=True))]
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = tmp_path / "bench.yaml"
    config.write_text(yaml.safe_dump(settings(folder, path)))
    main(["test", "--config", str(config), "--runs_root", str(tmp_path / "runs")])
    run = next((tmp_path / "runs/bench").glob("latest"))
    expected = first_errors(torch.tensor(found), torch.tensor(truth))
    for name, value in expected._asdict().items():
        assert metric_values(run, f"test/first_error_{name}") == pytest.approx([value])
    main(["predict", "--config", str(config), "--runs_root", str(tmp_path / "runs")])
    written = next((tmp_path / "runs/bench").glob("*/predictions.jsonl")).read_text().splitlines()
    by_steps = {tuple(s): v for s, v in zip(texts, values, strict=True)}
    for row in map(json.loads, written):
        assert row["values"] == pytest.approx(by_steps[tuple(s.strip() for s in row["steps"])], abs=1e-5)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(
            ["fit", "--config", str(config), "--runs_root", str(tmp_path / "fits"), "--data.init_args.test_share", "0"]
        )
    assert stop.value.code == 2
    assert "StepScorerEvaluation is not trained" in capsys.readouterr().err
