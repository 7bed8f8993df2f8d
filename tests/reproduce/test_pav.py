"""surefoot reproduce pav: its networks and learners, what its claims read, and the whole path at quick scale."""

import json
import math
import time
from math import nan
from pathlib import Path

import pytest
import torch

from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions.store import describe_shards, read_trajectories, write_shard
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reproduce.claims import measure_claims
from surefoot.reproduce.command import run_reproduce
from surefoot.reproduce.language_models import folder_of
from surefoot.reproduce.pav import PAPER, runs
from surefoot.reproduce.pav.arithmetic import best_threshold, on_track, write_outcomes
from surefoot.reproduce.pav.didactic import (
    TASK,
    DidacticTraining,
    Learner,
    advantages,
    imitate,
    prover_values,
    reinforce,
    returns,
)
from surefoot.reproduce.pav.network import AutoregressiveNetworks
from surefoot.reproduce.pav.studies import FIRST_SEED
from surefoot.reproduce.pav.sweep import measure_provers
from surefoot.reproduce.results import Results
from surefoot.reproduce.running import Measured, Run


def test_a_position_is_predicted_from_those_before_it_alone() -> None:
    networks = AutoregressiveNetworks([0, 1], length=5, n_tokens=4, widths=(16, 16))
    tokens = torch.randint(0, 4, (2, 1, 5), generator=torch.Generator().manual_seed(0))
    before = networks(tokens)
    assert torch.allclose(before.exp().sum(-1), torch.ones(2, 1, 5))
    for changed in range(5):
        other = tokens.clone()
        other[:, :, changed] = (other[:, :, changed] + 1) % 4
        moved = (networks(other) != before).any(-1)[:, 0]
        assert not moved[:, : changed + 1].any()
        assert changed == 4 or moved[:, changed + 1 :].any()
    assert not torch.equal(before[0], before[1]), "networks have weights of their own"


def test_what_is_sampled_has_the_probabilities_of_the_forward_pass() -> None:
    networks = AutoregressiveNetworks([0, 1], length=3, n_tokens=2, widths=(8, 8))
    with torch.no_grad():
        for weight in networks.weights:
            weight *= 4  # far from uniform
        sampled = networks.sample(40_000, torch.Generator().manual_seed(0))
        every = torch.cartesian_prod(*[torch.arange(2)] * 3)
        logprobs = networks(every.expand(2, 8, 3)).gather(3, every.expand(2, 8, 3)[..., None]).squeeze(3).sum(2)
    for network in range(2):
        number = (sampled[network] * torch.tensor([4, 2, 1])).sum(1)
        share = torch.bincount(number, minlength=8) / 40_000
        assert torch.allclose(share, logprobs[network].exp(), atol=0.012), "five standard errors"


def test_advantages_are_differences_of_the_provers_values() -> None:
    values = prover_values(10.0, DidacticTraining())[None].float()
    tokens = torch.tensor([[3, 6, 0, 3, 5, 1, 1, 1, 1, 1], [14, 3, 6, 0, 3, 5, 1, 1, 1, 1]])
    states = TASK.states(tokens)[None]
    found = advantages(values, states, None, torch.Generator())
    assert found.sum(2)[0].tolist() == pytest.approx([1 - float(values[0, 0, 0]), -float(values[0, 0, 0])], abs=1e-6)
    assert (found[0, 0, :5] > 0).all(), "each right token is progress"
    assert found[0, 0, 5:].tolist() == [0.0] * 5, "nothing is left to gain"
    assert found[0, 1, 1:].tolist() == [0.0] * 9, "nothing counts after the end"
    noisy = torch.stack([advantages(values, states, 100, torch.Generator().manual_seed(i)) for i in range(2000)])
    assert torch.allclose(noisy.mean(0), found, atol=0.006), "five standard errors of 100 rollouts, 2,000 times"
    assert noisy.std(0).max() == pytest.approx(0.07, abs=0.02)


def test_a_prover_that_goes_on_recovers_from_anything() -> None:
    bounded, endless = (
        prover_values(50.0, DidacticTraining()),
        prover_values(50.0, DidacticTraining(extra=40, end_is_fatal=False)),
    )
    assert bounded.shape == endless.shape == (11, 7)
    assert bounded[10, 0] == 0
    assert bounded[5, 6] == 0
    assert endless[10, 0] > 0.9
    assert endless[5, 6] == endless[5, 0] > 0.9


def test_learners_start_alike_and_effective_rewards_find_the_answer() -> None:
    start = imitate(0, 3)
    assert all(torch.equal(p[0], p[1]) and torch.equal(p[0], p[2]) for p in start.parameters())
    assert returns(start.sample(1000, torch.Generator().manual_seed(0))).mean() < 0.02
    curve = reinforce(0, [Learner(10.0, alpha=0), Learner(10.0)], DidacticTraining(), 150, (0, 150), 1000)
    assert curve.solved[0].tolist() == pytest.approx([0, 0], abs=20)
    assert curve.solved[150][0] < 50
    assert curve.solved[150][1] > 700
    again = reinforce(0, [Learner(10.0, alpha=0), Learner(10.0)], DidacticTraining(), 20)
    assert torch.equal(again.accuracy, curve.accuracy[:20]), "a run depends on its seed alone"


def test_returns_find_the_answer_wherever_it_stands_before_the_end() -> None:
    tokens = torch.full((3, 10), 1)
    tokens[0, 5:] = tokens[1, 2:7] = tokens[2, 5:] = torch.tensor(TASK.answer)
    tokens[2, 0] = 14
    assert returns(tokens[None]).tolist() == [[1, 1, 0]]


def test_provers_with_more_to_tell_rank_higher() -> None:
    rows = measure_provers([DidacticTraining()], 1, 300).tables["didactic_provers"]
    improvement = {row["weight"]: row["improvement"] for row in rows}
    assert improvement[1.0] < improvement[10.0] < improvement[100.0]
    assert all(row["improvement"] == pytest.approx(row["distinguishability"] + row["alignment"]) for row in rows)


def test_steps_are_on_track_until_the_first_that_is_wrong() -> None:
    problem = Problem("p", "7+5-3%10=", "9")
    steps = ["7+5=2\n", "2-3=8\n", "#### 8"]
    assert on_track(Trajectory(problem, 0, [1], [1], [0.0], "stop", 0, steps=steps)) == [True, False, False]
    right = ["7+5=2\n", "2-3=9\n", "#### 9"]
    assert on_track(Trajectory(problem, 0, [1], [1], [0.0], "stop", 0, steps=right)) == [True, True, True]


def test_an_outcome_is_known_after_every_step(tmp_path: Path) -> None:
    model = TinyLanguageModel(width=16, n_layers=1, seed=0)
    model.save(folder_of("policy_seed3", tmp_path) / "model")
    sampled = tmp_path / "completions" / "sampled_seed3"
    sampled.mkdir(parents=True)
    for sample, status in enumerate(("correct", "wrong")):
        text, grade = "7+5=2\n#### 2", Grade(status, "2")
        tokens, problem = [*model.encode(text), model.eos_token_id], Problem("p", "7+5%10=", "2")
        t = Trajectory(problem, 0, [5, 6], tokens, [0.0] * len(tokens), "stop", 0, sample=sample, text=text)
        t.grade = grade
        write_shard([t], sampled / f"data-{sample:05d}-of-00002.arrow")
    describe_shards(sampled, sorted(sampled.glob("*.arrow")))
    write_outcomes(3, tmp_path)
    found = list(read_trajectories(tmp_path / "completions" / "outcomes_seed3"))
    assert [t.values for t in found] == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert [len(t.spans) for t in found] == [2, 2]
    written = min((tmp_path / "completions" / "outcomes_seed3").glob("*.arrow")).stat().st_mtime_ns
    write_outcomes(3, tmp_path)
    assert min((tmp_path / "completions" / "outcomes_seed3").glob("*.arrow")).stat().st_mtime_ns == written


def test_the_threshold_with_the_fewest_errors() -> None:
    assert best_threshold([(0.9, True), (0.8, True), (0.8, False), (0.7, True), (0.2, False)]) == 0.7
    assert best_threshold([(0.9, False), (0.8, False), (0.1, True)]) == math.inf, "nothing is predicted to be right"
    assert best_threshold([(0.5, True), (0.5, True), (0.5, False)]) == 0.5, "scores that are the same are not parted"


def test_errors_on_outcomes_are_compared_by_step() -> None:
    errors = {("Q", 1): 0.5, ("Q", 2): 0.3, ("Q", 3): 0.1, ("Q + alpha A", 1): 0.4, ("Q + alpha A", 2): 0.3}
    rows = [
        {"seed": s, "step": step, "score": score, "error": error + 0.1 * s, "n": 10}
        for s in range(2)
        for (score, step), error in (errors | {("Q + alpha A", 3): 0.4}).items()
    ]
    found, _ = measure_claims(PAPER.claims, Results({"arithmetic_outcome_errors": rows}))
    assert {m.id: m.estimate.mean for m in found} == {
        "arithmetic_effective_reward_predicts_outcomes_early": pytest.approx(0.05),
        "arithmetic_effective_reward_predicts_outcomes_all": pytest.approx(-0.2 / 3),
    }


def search_rows(search: str, accuracies: dict[int, float], tokens: float, **more: object) -> list[dict[str, object]]:
    return [
        {
            "seed": s,
            "search": search,
            "selection": "best",
            "n": n,
            "accuracy": a,
            "low": 0.0,
            "high": 1.0,
            "problems": 10,
            "generated_tokens": tokens * n,
            "scored_tokens": 0.0,
            **more,
        }
        for s in range(2)
        for n, a in accuracies.items()
    ]


def test_searches_are_compared_at_equal_candidates_and_at_equal_tokens() -> None:
    rows = search_rows("best of N, outcome", {1: 0.2, 2: 0.3, 4: 0.4, 8: 0.5, 16: 0.6, 64: 0.7}, 30)
    rows += search_rows("beam, Q", {1: 0.3, 2: 0.4, 4: 0.5, 8: 0.6, 16: 0.7}, 60)
    rows += search_rows("beam, PAV", {1: 0.3, 2: 0.5, 4: 0.6, 8: 0.8, 16: 0.9}, 60)
    for k, accuracy in {1: 0.5, 2: 0.6, 4: 0.7, 8: 0.8, 32: 0.4}.items():
        rows += search_rows(f"beam, PAV, K {k}", {8: accuracy}, 60, k=k)
    found, _ = measure_claims(PAPER.claims, Results({"arithmetic_search": rows}))
    measured = {m.id: m.estimate.mean for m in found}
    assert measured["arithmetic_pav_beam_above_q_beam"] == pytest.approx((0.1 + 0.2 + 0.2) / 3)
    assert measured["arithmetic_q_beam_above_best_of_n"] == pytest.approx(0.1)
    # N = 2, 4 and 8 of the beam take as many tokens as 4, 8 and 16 samples
    assert measured["arithmetic_pav_beam_above_best_of_n_at_equal_tokens"] == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert measured["arithmetic_pav_beam_above_q_beam_at_equal_tokens"] == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert measured["arithmetic_compute_ratio"] == pytest.approx(64 * 30 / (2**2.5 * 60))
    assert measured["arithmetic_best_k_is_within_1"] == pytest.approx(0.2)
    assert measured["arithmetic_best_k_is_within_32"] == pytest.approx(0.3)


def test_learning_is_compared_by_its_end_and_by_iterations() -> None:
    curves = {"outcome": [0.2, 0.3, 0.4, 0.5, 0.6], "alpha 3, K 1": [0.5, 0.6, 0.7, 0.8, 0.9]}
    rows = [
        {"seed": s, "method": method, "run": run, "iteration": 10 * (i + 1), "accuracy": a + spread}
        for method, values in curves.items()
        for s in range(2)
        for run, spread in enumerate((-0.05, 0.05))  # runs of one policy are averaged
        for i, a in enumerate(values)
    ]
    found, _ = measure_claims(PAPER.claims, Results({"arithmetic_reinforcement": rows}))
    measured = {m.id: m.estimate.mean for m in found}
    assert measured["arithmetic_pav_rl_ends_higher"] == pytest.approx(0.3)
    assert measured["arithmetic_pav_rl_is_faster"] == pytest.approx(4.0), "40 iterations against 10"
    assert measured["arithmetic_pav_rl_is_halfway_sooner"] == pytest.approx(3.0), "half of .2 to .5 is passed after 30"


def test_nothing_is_reached_sooner_where_outcomes_teach_nothing() -> None:
    rows = [
        {"seed": s, "method": method, "iteration": i, "accuracy": a}
        for method, end in (("outcome", 0.22), ("alpha 3, K 1", 0.9))
        for s in range(2)
        for i, a in ((2, 0.2), (4, end), (6, end), (8, end))
    ]
    found, left_out = measure_claims(PAPER.claims, Results({"arithmetic_reinforcement": rows}))
    assert {m.id: m.estimate.mean for m in found} == {
        "arithmetic_pav_rl_ends_higher": pytest.approx(0.68),
        "arithmetic_pav_rl_learns_more_on_the_way": pytest.approx(0.51),
    }
    assert sum("bring 0.1 or more within the run on seeds [] only" in str(r) for r in left_out.values()) == 2


@pytest.mark.parametrize(
    ("correlations", "passed"),
    [((0.6, 0.5), [200, 201]), ((0.6, 0.4), [200]), ((0.1, 0.2), []), ((nan, 0.9), [201])],
)
def test_searches_wait_for_verifiers_that_predict_advantages(
    correlations: tuple[float, float], passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"seed": s, "verifier": "process", "correlation_of_advantages": c}
        for s, c in enumerate(correlations, FIRST_SEED)
    ]
    done: dict[str, object] = {}
    for name in ("measure_learning", "measure_sweep", "measure_provers"):
        monkeypatch.setattr(runs, name, lambda *_: Measured({}))
    monkeypatch.setattr(runs, "measure_policies", lambda *_: iter([Measured({"arithmetic_verifiers": rows})]))
    for name in ("measure_search", "measure_reinforcement"):
        monkeypatch.setattr(runs, name, lambda *given, name=name: done.update({name: given[2]}) or Measured({}))
    run = Run(scale="laptop", n_seeds=2, most_seeds=2, out=tmp_path, options={"only": None})
    run.begin("pav")
    runs.run(run)
    assert done == ({"measure_search": passed, "measure_reinforcement": passed} if passed else {})
    left_out = [note.split(" on seeds")[0] for note in run.notes if "left out" in note]
    assert left_out == ([] if len(passed) == 2 else ["Searches are left out", "Reinforcement is left out"])


@pytest.mark.slow
def test_the_whole_path_at_quick_scale(tmp_path: Path) -> None:
    began = time.monotonic()
    run_reproduce(["reproduce", "pav", "--out", str(tmp_path)])
    first = time.monotonic() - began
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {c["verdict"] for c in claims} <= {"undecided", "reported"}
    assert not (tmp_path / "table.md").read_text().count("cannot be computed")
    assert (tmp_path / "figures").is_dir()
    learned = (tmp_path / "didactic_learning.csv").read_bytes()
    for study in ("arithmetic", "reinforcement"):
        began = time.monotonic()
        run_reproduce(["reproduce", "pav", "--only", study, "--out", str(tmp_path)])
        assert time.monotonic() - began < first, "finished runs are read"
        assert (tmp_path / "didactic_learning.csv").read_bytes() == learned
        again = json.loads((tmp_path / "claims.json").read_text())
        assert [c["id"] for c in again] == [c["id"] for c in claims], "the other studies' tables are judged too"
