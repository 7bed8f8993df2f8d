"""DPO on stored completions, evaluated by sampling answers to problems beside them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Fit
from datasets import Dataset
from logged import metric_values
from shared_prefix_pairs import SharedPrefixPairs
from small_datasets import write_gsm8k
from tiny_reasoning import tiny_reasoning

from datamodules import CompletionsDataModule, PreferencesDataModule
from surefoot.cli import main
from surefoot.errors import ConfigError
from surefoot.reasoning.completions import PairRecord, Pit, PreferencePair, RandomPairs
from surefoot.reasoning.completions.pair_files import write_pairs
from surefoot.reasoning.trajectories import REQUIRED_COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore")


def stored_completions(folder: Path, n: int = 8) -> Path:
    """Write two correct and two wrong completions of each problem, as ``surefoot generate`` does."""
    rows = []
    for i in range(4 * n):
        problem, sample = divmod(i, 4)
        own = {"problem_id": f"p{problem}", "problem_index": problem, "sample": sample, "prompt_ids": [4 + problem, 9]}
        own |= {"completion_ids": [10 + sample, 5, 2], "target_ids": [10 + sample, 5, 2], "logprobs": [-1.0] * 3}
        own |= {"finish_reason": "stop", "status": "correct" if sample < 2 else "wrong", "text": str(sample)}
        rows.append(dict.fromkeys(REQUIRED_COLUMNS, "") | own)
    Dataset.from_list(rows).save_to_disk(folder / "completions")
    return folder / "completions"


def settings(folder: Path, evaluate_on: dict[str, Any] | None) -> dict[str, Any]:
    config = tiny_reasoning("DPO")
    config["trainer"] |= {"max_epochs": 1, "num_sanity_val_steps": 1}
    config["data"] = {
        "class_path": "PreferencesDataModule",
        "init_args": {
            "completions": str(stored_completions(folder)),
            "builder": {"class_path": "RandomPairs", "init_args": {"max_per_problem": 2}},
            "n_val": 4,
            "batch_size": 4,
            "evaluate_on": evaluate_on,
        },
    }
    return config


def table(folder: Path) -> dict[str, float]:
    """Return the last number of every column of the one metrics file below a folder."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        return {k: float(v) for row in csv.DictReader(file) for k, v in row.items() if v}


@pytest.mark.parametrize("source", ["ArithmeticDataModule", "GSM8KDataModule"])
def test_pairs_are_trained_on_and_problems_beside_them_answered(source: str, fit: Fit, tmp_path: Path) -> None:
    write_gsm8k(tmp_path)
    own = {"n_train": 4, "eval_batch_size": 4}
    own |= {"n_val": 3, "n_test": 5} if source == "ArithmeticDataModule" else {"n_val": 3, "root": str(tmp_path)}
    config = settings(tmp_path, {"class_path": source, "init_args": own})
    if source == "GSM8KDataModule":
        config["data"]["init_args"]["builder"] = {"class_path": "shared_prefix_pairs.SharedPrefixPairs"}
    run = fit(config)
    found = table(run)
    assert {"val/loss", "val/reward_accuracy", "val/accuracy", "val/grade_unparsable"} <= found.keys()
    assert not any("dataloader_idx" in key for key in found)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().split("\n")[:-1]]
    assert len([s for s in samples if s["stage"] == "val"]) == 3
    recorded = json.loads((run / "environment.json").read_text())["data"]
    assert {"train", "val"} <= recorded.keys()
    assert source == "ArithmeticDataModule" or {"evaluate_on/val", "evaluate_on/test"} <= recorded.keys()
    flags = ["--ckpt_path", str(run / "checkpoints/last.ckpt"), "--runs_root", str(tmp_path / "evaluated")]
    main(["test", *flags])
    tested = table(tmp_path / "evaluated")
    assert {"test/loss", "test/reward_accuracy", "test/accuracy"} <= tested.keys()
    main(["predict", *flags])
    (file,) = (tmp_path / "evaluated").rglob("predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    assert [r["index"] for r in rows] == list(range(5 if source == "ArithmeticDataModule" else 12))
    assert all(r["grade"] in ("correct", "wrong", "unparsable") for r in rows)


def test_the_problems_beside_the_pairs_change_no_weight(fit: Fit, tmp_path: Path) -> None:
    import torch

    beside = {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 4, "n_val": 3}}
    runs = [fit(settings(tmp_path, data), name=f"run{i}") for i, data in enumerate((None, beside))]
    one, two = (torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in runs)
    assert all(value.equal(two[name]) for name, value in one.items())


def test_fine_tuning_on_completions_is_evaluated_on_problems(fit: Fit, tmp_path: Path) -> None:
    config = tiny_reasoning("SFT")
    beside = {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 4, "n_val": 3}}
    completions = str(stored_completions(tmp_path))
    config["data"] = {
        "class_path": "CompletionsDataModule",
        "init_args": {"completions": completions, "batch_size": 4, "evaluate_on": beside},
    }
    assert {"train/loss", "val/loss", "val/accuracy"} <= table(fit(config)).keys()


def test_what_cannot_be_evaluated_is_refused(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 4}})
    config["model"]["init_args"]["engine"] = None
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    assert "DPO evaluates problems by sampling: set model.init_args.engine" in capsys.readouterr().err
    completions = tmp_path / "completions"
    with pytest.raises(ConfigError, match="evaluate_on: PreferencesDataModule has no problems"):
        CompletionsDataModule(completions, evaluate_on=PreferencesDataModule(completions))
    with pytest.raises(ConfigError, match=r"nothing to evaluate on: set data\.init_args\.evaluate_on"):
        CompletionsDataModule(completions).test_dataloader()
    with pytest.raises(ConfigError, match="the pairs of a file are as they are"):
        PreferencesDataModule(pairs=tmp_path / "pairs.jsonl", builder=RandomPairs())


def test_a_builder_of_ones_own(tmp_path: Path) -> None:
    data = PreferencesDataModule(stored_completions(tmp_path, 2), builder=SharedPrefixPairs())
    assert [pair[:3] for pair in data.pairs("train")] == [
        ([4 + p, 9, 10 + s], [7], [5, 2]) for p in range(2) for s in (2, 3)
    ]
    assert PreferencesDataModule(stored_completions(tmp_path, 2)).n_train == 2 * 4, "every correct with every wrong one"


def test_log_ratios_are_logged_by_pair_and_by_token(fit: Fit, tmp_path: Path) -> None:
    """All pairs in a batch: a ratio is what log-probabilities have gained since the first step, where it is 0."""
    pit = Pit(2, 1, (0.5, 0.0), (4, 4), (0.9, 0.0), 5)
    pairs = [
        PreferencePair([5, 6 + i], [7, 8, 9, 2], [7] * (i + 1), PairRecord("p", "full", pit._replace(step=i + 1)))
        for i in range(3)
    ] + [PreferencePair([5, 6], [7, 2], [8, 2])]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    config = tiny_reasoning("DPO", engine=None)
    config["trainer"] |= {"max_epochs": 4, "limit_val_batches": 0}
    init_args = {"pairs": str(tmp_path / "pairs.jsonl"), "batch_size": 4}
    config["data"] = {"class_path": "PreferencesDataModule", "init_args": init_args}
    run = fit(config)
    logged = {name: metric_values(run, f"train/{name}") for name in ("pairs", "pit_step", "reward_margin")}
    assert (logged["pairs"], logged["pit_step"]) == ([4.0], [2.0]), "once, of the three that have a pit"
    ratios = []
    for side, n_tokens in (("chosen", 3.5), ("rejected", 2.0)):
        logprobs, ratio, by_token, tokens = (
            metric_values(run, f"train/{side}_{name}")
            for name in ("logprob", "log_ratio", "log_ratio_per_token", "tokens")
        )
        assert tokens == [n_tokens] * 4
        assert ratio == pytest.approx([value - logprobs[0] for value in logprobs], rel=1e-4, abs=1e-5)
        assert by_token == pytest.approx([value / n_tokens for value in ratio], rel=1e-5, abs=1e-7)
        ratios.append(ratio)
    margins = [0.1 * (chosen - rejected) for chosen, rejected in zip(*ratios, strict=True)]
    assert logged["reward_margin"] == pytest.approx(margins, rel=1e-4, abs=1e-6)
    assert logged["reward_margin"][-1] > 0
    keys = {key for key in table(run) if key.startswith("train/")}
    documented = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert {key for key in keys if f"| `{key}` |" not in documented} == set()
