"""surefoot reproduce incorrect_synthetic_data: what its claims read, and the whole path at quick scale."""

import json
import time
from pathlib import Path

import pytest

from surefoot.reasoning.problems import Problem
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reproduce.claims import measure_claims
from surefoot.reproduce.command import run_reproduce
from surefoot.reproduce.incorrect_synthetic_data import PAPER
from surefoot.reproduce.incorrect_synthetic_data.arithmetic import shares_of_steps
from surefoot.reproduce.incorrect_synthetic_data.multipliers import multiplier_rows, multipliers
from surefoot.reproduce.incorrect_synthetic_data.studies import PER_STEP_DPO, RANDOM_DPO, SFT
from surefoot.reproduce.results import Results, Table


def error_row(seed: int, n: int, method: str, error: float, part: str = "scaling", **more: object) -> dict[str, object]:
    shares = dict.fromkeys(("share_long", "share_spurious", "share_wrong"), 0.0)
    others = {"error_at_temperature_1": error, "error_of_5": error / 2}
    return {
        "part": part,
        "seed": seed,
        "n": n,
        "method": method,
        "beta": None,
        "error": error,
        **others,
        **shares,
    } | more


#: The error of SFT halves with every doubling, on seed 1 from one that is twice as large.
CURVE = [error_row(s, 100 * 2**i, SFT, 0.4 * (1 + s) / 2**i) for s in range(2) for i in range(5)]


def measured(rows: list[dict[str, object]], table: str = "arithmetic_errors") -> dict[str, float]:
    found, _ = measure_claims(PAPER.claims, Results({table: rows}))
    return {m.id: m.estimate.mean for m in found}


def test_a_method_is_worth_as_many_problems_as_sft_needs_for_its_error() -> None:
    learned = [error_row(s, n, "RFT 4", 0.1 * (1 + s) * 100 / n) for s in range(2) for n in (100, 200)]
    found = multipliers(Table([*CURVE, *learned]), "RFT 4")
    assert found == {0: pytest.approx(4.0), 1: pytest.approx(4.0)}
    best = [error_row(s, n, PER_STEP_DPO, 1e-4) for s in range(2) for n in (100, 400)]
    found = multipliers(Table([*CURVE, *best]), PER_STEP_DPO)
    assert found[0] == pytest.approx((16 * 4) ** 0.5), "a bound, where SFT never errs so little"
    rows = multiplier_rows([*CURVE, *learned, *best])
    assert [(r["method"], r["n"], r["bound"]) for r in rows[:3]] == [
        ("RFT 4", 100, False),
        ("RFT 4", 200, False),
        (PER_STEP_DPO, 100, True),
    ]
    assert [rows[0][name] for name in ("ratio", "low", "high")] == pytest.approx([4.0] * 3), "of both seeds alike"


def test_what_is_claimed_of_errors() -> None:
    errors = {"RFT 4": 0.2, RANDOM_DPO: 0.35, PER_STEP_DPO: 0.1}
    learned = [error_row(s, 100, method, error * (1 + s)) for method, error in errors.items() for s in range(2)]
    betas = [
        error_row(s, 100, method, error, "betas", beta=beta)
        for (method, beta), error in {
            (RANDOM_DPO, 0.1): 0.4,
            (RANDOM_DPO, 1.0): 0.2,
            (PER_STEP_DPO, 0.1): 0.1,
            (PER_STEP_DPO, 1.0): 0.3,
        }.items()
        for s in range(2)
    ]
    digressing = [
        error_row(s, 100, method, 0.5, "spurious", share_spurious=share)
        for method, share in {SFT: 0.2, "RFT 4": 0.25, PER_STEP_DPO: 0.1}.items()
        for s in range(2)
    ]
    found = measured([*CURVE, *learned, *betas, *digressing])
    assert found["arithmetic_exponent_of_sft"] == pytest.approx(-1.0)
    assert found["arithmetic_error_is_graded"] == 1.0
    assert found["arithmetic_multiplier_of_rft_4"] == pytest.approx(2.0)
    assert found["arithmetic_per_step_dpo_is_worth_more_than_rft"] == pytest.approx(2.0)
    assert found["arithmetic_random_pairs_do_not_help"] == pytest.approx(0.05 * 1.5)
    assert found["arithmetic_pits_beat_random_pairs"] == pytest.approx(0.25 * 1.5)
    assert found["arithmetic_pits_beat_random_pairs_at_the_best_beta"] == pytest.approx(0.1)
    assert found["arithmetic_per_step_dpo_lowers_error_of_5"] == pytest.approx(0.15 * 1.5)
    assert found["arithmetic_per_step_dpo_unlearns_spurious_steps"] == pytest.approx(0.1)
    assert found["arithmetic_rft_amplifies_spurious_steps"] == pytest.approx(0.05)


def test_steps_are_counted_by_their_kind() -> None:
    problem = Problem("p", "3+4-2%10=", "5")
    texts = ("3+4-2=5\n#### 5", "0+0=0\n3+4=8\n8-2=6\n#### 6")
    solutions = [Trajectory(problem, 0, [1], [2], [0.0], "stop", 0, text=text) for text in texts]
    assert shares_of_steps(solutions) == {"long": 1 / 4, "spurious": 1 / 4, "wrong": 1 / 4}
    assert shares_of_steps([]) == {"long": 0.0, "spurious": 0.0, "wrong": 0.0}


def test_what_is_claimed_of_first_nodes() -> None:
    accuracy = {(SFT, 16): 0.4, (SFT, 40): 0.5, ("RFT", 16): 0.45, ("RFT", 40): 0.5}
    accuracy |= {(PER_STEP_DPO, 16): 0.7, (PER_STEP_DPO, 40): 0.55}
    rows = [
        {"seed": s, "epochs": epochs, "method": method, "first_node": a, "full_path": a / 2}
        for (method, epochs), a in accuracy.items()
        for s in range(2)
    ]
    found = measured(rows, "star_graph_paths")
    assert found["star_graph_sft_guesses_the_first_node"] == 0.5
    assert found["star_graph_per_step_dpo_beats_a_guess"] == 0.7
    assert found["star_graph_gain_of_rft_after_16"] == pytest.approx(0.05)
    assert found["star_graph_per_step_dpo_beats_rft"] == pytest.approx((0.25 + 0.05) / 2)
    assert found["star_graph_early_policies_gain_more"] == pytest.approx(0.3 - 0.05)


@pytest.mark.slow
def test_the_whole_path_at_quick_scale(tmp_path: Path) -> None:
    began = time.monotonic()
    run_reproduce(["reproduce", "incorrect_synthetic_data", "--out", str(tmp_path)])
    first = time.monotonic() - began
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {c["verdict"] for c in claims} <= {"undecided", "reported"}
    assert not (tmp_path / "table.md").read_text().count("cannot be computed")
    errors = (tmp_path / "arithmetic_errors.csv").read_bytes()
    began = time.monotonic()
    run_reproduce(["reproduce", "incorrect_synthetic_data", "--only", "star_graphs", "--out", str(tmp_path)])
    assert time.monotonic() - began < first, "finished runs are read"
    assert (tmp_path / "arithmetic_errors.csv").read_bytes() == errors
