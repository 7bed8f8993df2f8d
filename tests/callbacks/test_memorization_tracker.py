"""The tracker through the public command line: what it records, and that training does not notice."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit, tiny
from fresh_processes import run_fresh
from logged import metric_values
from small_datasets import write_pairs
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main
from surefoot.reasoning.learning_dynamics import read_record
from surefoot.reasoning.metrics.memorization import pre_memorization_accuracies

pytestmark = pytest.mark.filterwarnings("ignore")

TRACKER: dict[str, Any] = {
    "class_path": "MemorizationTracker",
    "init_args": {
        "answers": {"sampling": {"n": 3, "temperature": 0.8, "top_p": 0.95, "max_tokens": 10}},
        "problems": {},
        "log_log_threshold": 1.2,
    },
}


def settings(method: str, folder: Path, **tracker: Any) -> dict[str, Any]:
    config = tiny_reasoning(method)
    config["trainer"]["limit_val_batches"] = 0
    init = TRACKER["init_args"] | tracker
    init["answers"] = TRACKER["init_args"]["answers"] | tracker.get("answers", {})
    config["model"]["init_args"]["grader"] = {
        "class_path": "surefoot.reasoning.answers.Grader",
        "init_args": {"rule": "last_number"},
    }
    if method == "DPO":
        init["problems"] = init["problems"] | {"data": config["data"]}
        config["data"] = {
            "class_path": "PreferencesDataModule",
            "init_args": {"pairs": str(write_pairs(folder)), "batch_size": 4},
        }
    if method == "SFT":  # dropout draws on the global generator
        lora = {"rank": 2, "dropout": 0.2}
        config["model"]["init_args"]["language_model"]["init_args"]["lora"] = lora
    config["trainer"]["callbacks"].append({"class_path": "MemorizationTracker", "init_args": init})
    return config


def state(run: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return loaded


@pytest.mark.parametrize(
    "method", ["SFT", pytest.param("RFT", marks=pytest.mark.slow), pytest.param("DPO", marks=pytest.mark.slow), "GRPO"]
)
def test_training_does_not_notice(method: str, fit: Fit, tmp_path: Path) -> None:
    tracked = settings(method, tmp_path, every_n_steps=2, answers={"prefixes": ["so "], "greedy": True})
    if method != "DPO":  # whose datamodule has no problems
        predictors = {"class_path": "GeneralizationPredictors", "init_args": {"batch_size": 4}}
        tracked["trainer"]["callbacks"].append(predictors)
    plain = {**tracked, "trainer": {**tracked["trainer"], "callbacks": []}}
    runs = [fit(tracked, name="tracked"), fit(plain, name="plain")]
    one, two = map(state, runs)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), f"{name} differs, bit for bit"
    record = read_record(runs[0] / "memorization", "r")
    assert record.train_correct.shape == (len(record.steps), 32)
    assert record.greedy_logprobs is not None
    assert bool((record.greedy_logprobs < 0).all())
    values = metric_values(runs[0], "memorization/pre_memorization_accuracy")
    assert len(values) == len(record.steps) > 1


def test_what_is_recorded_and_logged(fit: Fit, tmp_path: Path) -> None:
    config = settings("SFT", tmp_path, problems={"test_split": "test"}, answers={"prefixes": ["1+1=2\n"]})
    config["trainer"]["max_epochs"] = 3
    run = fit(config)
    record = read_record(run / "memorization", "r")
    pre = pre_memorization_accuracies(record.train_accuracies, record.train_perplexities, 1.2)
    assert record.steps == [4, 8, 12]
    assert record.test_correct is not None
    assert record.test_correct.shape == (3, 8)
    logged = {
        "train_accuracy": record.train_accuracies.mean(1),
        "pre_memorization_accuracy": pre.mean(1),
        "median_perplexity": record.train_perplexities.median(1).values,
        "test_accuracy": record.curves().test_accuracies,
    }
    for name, expected in logged.items():
        found = metric_values(run, f"memorization/{name}")
        assert found == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6), name
    assert float(record.train_accuracies.mean()) > 0, "something is solved, or nothing was tested"
    shares = metric_values(run, "memorization/share_of_time")
    assert all(0 < s < 1 for s in shares)
    rows = json.loads((run / "memorization/prefixes.json").read_text())
    assert len(rows) == 2 * 32
    assert {r["prefix"] for r in rows} == {"", "1+1=2\n"}
    last = dict(zip(record.train_ids, pre[-1].tolist(), strict=True))
    for r in rows:
        assert r["pre_memorization_accuracy"] == pytest.approx(last[r["id"]], abs=1e-6)


def test_perplexities_are_those_of_the_whole_trace(fit: Fit, tmp_path: Path) -> None:
    """Against one unpacked forward pass per example with the exported model."""
    config = settings("SFT", tmp_path)
    config["model"]["init_args"]["language_model"]["init_args"].pop("lora")
    config["trainer"]["callbacks"].append({"class_path": "ModelExporter"})
    run = fit(config)
    from datamodules import ArithmeticDataModule
    from surefoot.reasoning.language_models import PretrainedLanguageModel

    model = PretrainedLanguageModel(str(run / "model"))
    record = read_record(run / "memorization", "r")
    for i, p in enumerate(ArithmeticDataModule(**config["data"]["init_args"]).problems("train")):
        assert record.train_ids[i] == p.id
        prompt = model.encode(p.question + "\n")
        target = [*model.encode(p.solution), model.eos_token_id]
        logits = model.base(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        nll = -logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).mean()
        assert float(record.train_perplexities[-1, i]) == pytest.approx(float(nll.exp()), rel=1e-4)


KILLED = """
import os, signal, sys
from callbacks import MemorizationTracker
from surefoot.cli import main

original, n = MemorizationTracker._checkpoint, 0

def killed(self, trainer, module):
    global n
    n += 1
    if n == 3:
        original(self, trainer, module)  # the record is written, the run's checkpoint not yet
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, trainer, module)

MemorizationTracker._checkpoint = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_record(fit: Fit, tmp_path: Path) -> None:
    config = settings("SFT", tmp_path, every_n_steps=2)
    whole = fit(config, name="whole")
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(config))
    flags = ["--runs_root", str(tmp_path / "runs"), "--checkpoint_every_n_steps", "4"]
    ended = run_fresh(KILLED, ["fit", "--config", str(path), *flags])
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    main(["fit", "--config", str(path), *flags])
    killed = (tmp_path / "runs/killed/latest").resolve()
    one, two = (read_record(r / "memorization", "r") for r in (whole, killed))
    assert one.steps == two.steps
    assert one.train_ids == two.train_ids
    assert torch.equal(one.train_correct, two.train_correct)
    assert torch.equal(one.train_perplexities, two.train_perplexities)
    last = "memorization/pre_memorization_accuracy"
    assert metric_values(killed, last)[-1] == metric_values(whole, last)[-1]


def test_the_budget_bounds_the_samples(fit: Fit, tmp_path: Path) -> None:
    """24 answers of 3 each, over 32 training and 8 test problems: 8 problems, 6 of them of training."""
    config = settings("SFT", tmp_path, problems={"samples_per_checkpoint": 24, "test_split": "test"}, seed=0)
    runs = [fit(config, name="a"), fit(config, "--seed_everything", "5", name="b")]
    records = [read_record(r / "memorization", "r") for r in runs]
    assert records[0].train_correct.shape == (2, 6)
    assert records[0].test_correct is not None
    assert records[0].test_correct.shape == (2, 1)
    assert records[0].train_ids == records[1].train_ids, "the same subset with one seed"


def test_a_run_that_never_memorizes_says_that_the_metric_is_trivial(fit: Fit, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no tracked example was ever memorized"):
        fit(settings("SFT", tmp_path, log_log_threshold=-9.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tracker": {"every_n_steps": 0}}, "must be positive, got 1 and 0"),
        ({"tracker": {"problems": {"samples_per_checkpoint": 2}}}, "fewer than the 3 samples"),
        ({"method": "DPO"}, "needs a datamodule with problems (ProblemSource); PreferencesDataModule has none. Set"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(
    changes: dict[str, Any], message: str, fit: Fit, tmp_path: Path, capsys: Any
) -> None:
    config = settings(changes.get("method", "SFT"), tmp_path, **changes.get("tracker", {}))
    tracker = config["trainer"]["callbacks"][-1]
    if changes.get("method") == "DPO":
        del tracker["init_args"]["problems"]
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("observer", ["MemorizationTracker", "GeneralizationPredictors", "SampleTable"])
@pytest.mark.parametrize("method", ["ERM", "ValueRegression"])
def test_a_module_that_answers_no_problems_ends_in_one_line(observer: str, method: str, fit: Fit, capsys: Any) -> None:
    """A classifier, and a module that trains a language model but has no prompt."""
    config = tiny() if method == "ERM" else tiny_reasoning("SFT")
    if method != "ERM":
        for name in ("engine", "evaluation"):
            del config["model"]["init_args"][name]
        config["model"]["class_path"] = "value_regression.ValueRegression"
    config["trainer"]["callbacks"] = [{"class_path": observer}]
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(lines) == 1
    assert f"{observer} needs a method with" in lines[0]
    assert ("rollout" if observer == "SampleTable" else "prompt") in lines[0]
    assert f"{method} has none" in lines[0]


def test_gradient_variance_and_distance_are_those_of_plain_backward_passes(fit: Fit, tmp_path: Path) -> None:
    config = tiny_reasoning("SFT")
    config["trainer"] |= {"max_epochs": 1, "limit_val_batches": 0}
    predictors = {
        "class_path": "GeneralizationPredictors",
        "init_args": {"n_batches": 3, "batch_size": 4},
    }
    config["trainer"]["callbacks"] = [predictors, {"class_path": "ModelExporter"}]
    run = fit(config)
    from datamodules import ArithmeticDataModule
    from surefoot.reasoning.language_models import PretrainedLanguageModel, TinyLanguageModel

    model = PretrainedLanguageModel(str(run / "model"))
    data = ArithmeticDataModule(**config["data"]["init_args"])
    problems = list(data.problems("train"))
    rows = []
    for k in range(3):
        model.zero_grad()
        total, n = torch.zeros(()), 0
        for p in problems[4 * k : 4 * k + 4]:
            prompt = model.encode(p.question + "\n")
            target = [*model.encode(p.solution), model.eos_token_id]
            logits = model.base(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
            total = total - logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum()
            n += len(target)
        (total / n).backward()
        rows.append(torch.cat([q.grad.flatten() for q in model.base.parameters() if q.grad is not None]))
    expected = torch.stack(rows).double().var(0).mean()
    found = metric_values(run, "predictors/gradient_variance")
    assert found == pytest.approx([float(expected)], rel=1e-3)
    arguments = config["model"]["init_args"]["language_model"]["init_args"]
    start = TinyLanguageModel(**arguments, seed=config["seed_everything"])
    moved = sum(
        float(((a - b) ** 2).sum())
        for (name, a), b in zip(model.base.named_parameters(), start.base.parameters(), strict=True)
        if "embed" not in name and "lm_head" not in name
    )
    assert metric_values(run, "predictors/distance_from_start") == pytest.approx([moved], rel=1e-4)


@pytest.mark.slow
def test_it_samples_with_vllm(fit: Fit, tmp_path: Path) -> None:
    """An engine of the tracker's own, in this process; the training does not notice it."""
    pytest.importorskip("vllm")
    config = settings("SFT", tmp_path)
    init = config["model"]["init_args"]
    init["engine"] = None
    # vLLM on a CPU wants heads of 32
    init["language_model"]["init_args"] = {
        "width": 64,
        "n_layers": 1,
        "n_heads": 2,
        "max_length": 128,
    }
    tracker = config["trainer"]["callbacks"][-1]["init_args"]
    tracker["engine"] = {
        "class_path": "surefoot.reasoning.rollouts.VLLMEngine",
        "init_args": {"max_model_length": 128, "cache_gib": 0.1},
    }
    run = fit(config, name="vllm")
    record = read_record(run / "memorization", "r")
    assert record.train_correct.shape == (2, 32)
    tracker["engine"] = {"class_path": "HFEngine"}
    other = fit(config, name="hf")
    for name, value in state(run).items():
        assert torch.equal(value, state(other)[name]), name
    perplexities = [read_record(r / "memorization", "r").train_perplexities for r in (run, other)]
    assert torch.equal(*perplexities)
