"""surefoot reproduce learning_dynamics: claims from recorded runs, and the whole path at quick scale."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from surefoot.cli import main
from surefoot.reasoning.learning_dynamics import TrackedRun, write_recorded_runs
from surefoot.reasoning.metrics.memorization import pre_memorization_accuracies
from surefoot.reproduce.claims import measure_claims
from surefoot.reproduce.learning_dynamics import PAPER
from surefoot.reproduce.results import Results


def recorded_run(name: str, seed: int, threshold: float = -2.0, n_samples: int = 5) -> TrackedRun:
    """Return a run whose test accuracy is, up to counts, its pre-memorization accuracy at a known threshold."""
    draw = torch.Generator().manual_seed(seed)
    n, steps = 300, 4
    skill = torch.rand(n, generator=draw, dtype=torch.float64)
    speed = 0.5 + seed
    level = torch.stack(
        [0.5 - speed * m / 2 + torch.randn(n, generator=draw, dtype=torch.float64) for m in range(steps)]
    )
    chance = torch.stack([skill * (m + 1) / steps for m in range(steps)])
    correct = torch.where(level < threshold, n_samples, (chance * n_samples).round())
    perplexities = level.exp().exp()
    pre = pre_memorization_accuracies(correct / n_samples, perplexities, threshold).mean(1)
    test = (pre * 1000).round()[:, None].expand(-1, 7).contiguous()
    return TrackedRun(name, list(range(steps)), n_samples, correct, perplexities, 1000, test)


def reproduce(out: Path, *flags: str) -> dict[str, dict[str, Any]]:
    main(["reproduce", "learning_dynamics", *flags, "--out", str(out)])
    claims = json.loads((out / "claims.json").read_text())
    return {c["id"]: c for c in claims}


def test_any_record_in_the_schema(tmp_path: Path) -> None:
    runs = [recorded_run(f"task_{s}epochs_full_lr{s}e-05", s) for s in range(1, 4)]
    write_recorded_runs(runs, tmp_path / "task.npz")
    claims = reproduce(tmp_path / "a", "--recorded", str(tmp_path / "task.npz"))
    identity, fit = claims["task_r2_identity"], claims["task_r2_fit"]
    assert identity["measured"] == pytest.approx(1.0, abs=1e-3)
    assert fit["measured"] == pytest.approx(1.0, abs=1e-3)
    assert identity["holds"] is True
    assert identity["n_seeds"] == 3
    assert claims["task_train_accuracy_identity"]["measured"] < 0.5
    text = (tmp_path / "a/table.md").read_text()
    assert "the other runs choose: -2 to -2" in text
    for name in ("prediction", "sensitivity", "examples"):
        assert (tmp_path / f"a/figures/task_{name}.svg").stat().st_size > 1000
    given = reproduce(tmp_path / "b", "--recorded", str(tmp_path / "task.npz"), "--log-log-threshold", "0.5")
    assert given["task_r2_identity"]["measured"] < 0.9
    assert given["task_r2_identity"]["holds"] is False
    assert given["task_leave_one_run_out_identity"]["holds"] is True
    with (tmp_path / "a/task_calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["log_log_threshold"]) for r in rows] == [-2.0] * 3


def test_caveats_are_written_under_the_table(tmp_path: Path) -> None:
    never = recorded_run("never", 1)
    never = TrackedRun(
        "never", never.steps, 5, never.train_correct * 0, never.train_perplexities * 0 + 50, 1000,
        never.test_correct,
    )  # fmt: skip
    write_recorded_runs([never, recorded_run("more", 2, n_samples=20)], tmp_path / "x.npz")
    reproduce(tmp_path / "o", "--recorded", str(tmp_path / "x.npz"))
    text = (tmp_path / "o/table.md").read_text()
    assert "Runs have 5, 20 samples per training example" in text
    assert "nothing was ever memorized in never" in text
    assert "No sample was ever correct in never" in text
    write_recorded_runs([recorded_run("alone", 2)], tmp_path / "one.npz")
    reproduce(tmp_path / "p", "--recorded", str(tmp_path / "one.npz"))
    assert "there is one run only" in (tmp_path / "p/table.md").read_text()


def test_the_authors_record(data_root: Path, tmp_path: Path) -> None:
    path = data_root / "learning_dynamics/gsm8k_llama3_8b.npz"
    claims = reproduce(tmp_path, "--recorded", str(path), "--log-log-threshold", "-2.3")
    found = {i.removeprefix("gsm8k_llama3_8b_"): c["measured"] for i, c in claims.items()}
    assert found["r2_identity"] == pytest.approx(0.935, abs=0.002)
    assert found["r2_fit"] == pytest.approx(0.939, abs=0.002)
    assert found["train_accuracy_identity"] == pytest.approx(-6.04, abs=0.01)
    assert found["train_accuracy_fit"] == pytest.approx(0.398, abs=0.002)
    assert found["leave_one_run_out_identity"] == pytest.approx(0.922, abs=0.002)
    assert all(c["holds"] for i, c in claims.items() if "r2" in i)


def test_claims_by_hand() -> None:
    """Two seeds: IID rises by .1 a doubling and ours by .2, so IID would need as many again twice over."""
    gains = {"pre_memorization": 0.2, "iid": 0.1, "ifd": 0.1, "heuristic": 0.0}
    curation = [
        {"seed": seed, "method": m, "n_examples": 100 * 2**r, "test_accuracy": 0.1 * (1 + seed) + gain * r}
        for seed in range(2)
        for m, gain in gains.items()
        for r in range(3)
    ]
    prefixes = [
        {"seed": seed, "example": i, "pre_memorization_accuracy": a, "accuracy/": 1.0, "accuracy/so": a / 2}
        for seed in range(2)
        for i, a in enumerate((0.2, 0.6))
    ]
    gaps = [
        {"seed": seed, "gap": x, "train minus pre-memorization": x, "gradient variance": -x, "ATC": (1 - x) * x}
        for seed in range(2)
        for x in (0.0, 0.5, 1.0)
    ]
    tables = {"arithmetic_curation": curation, "arithmetic_prefixes": prefixes, "arithmetic_gaps": gaps}
    found, missing = measure_claims(PAPER.claims, Results(tables))
    assert {m.id: round(m.estimate.mean, 9) for m in found} == {
        "gap_correlation_train_minus_pre_memorization": 1,
        "gap_correlation_gradient_variance": -1,
        "gap_correlation_atc": 0,
        "beats_gradient_variance": 2,
        "beats_atc": 1,
        "robustness_prefix_1": 1,
        "robustness_drop_1": 0.8,
        "curation_above_iid": 0.15,  # over the rounds with additions: (.1 + .2) / 2
        "curation_above_ifd": 0.15,
        "curation_above_heuristic": 0.3,
        "curation_data_efficiency": 4,
        "curation_more_data_helps": 0.2,
    }
    assert "there is no table arithmetic_seeds" in str(missing["own_runs_threshold"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recorded", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--log-log-threshold", "-2"], "goes with --recorded"),
        (["--log-log-threshold", "nan", "--recorded", "x"], "must be a number"),
        (["--scale", "paper"], "configs/reasoning/sft_memorization_gsm8k_llama3_8b.yaml"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        reproduce(tmp_path, *flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_quick_scale_runs_and_judges_nothing_of_its_own(tmp_path: Path) -> None:
    claims = reproduce(tmp_path, "--scale", "quick")
    own = {i: c for i, c in claims.items() if not i.startswith("gsm8k")}
    assert {
        "own_runs_r2_identity",
        "beats_atc",
        "robustness_prefix_1",
        "curation_above_iid",
    } <= set(own)
    assert all(c["holds"] is None for c in own.values())
    assert "Not measured" not in (tmp_path / "table.md").read_text()
    assert (tmp_path / "figures/arithmetic_curation.svg").is_file()
    assert (tmp_path / "arithmetic.npz").is_file()
