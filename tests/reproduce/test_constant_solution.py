import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from surefoot.cli import main
from surefoot.report.shift_figures import by_family, draw_layers, draw_sets, family_and_level
from surefoot.reproduce.claims import measure_claims
from surefoot.reproduce.constant_solution import PAPER, tables
from surefoot.reproduce.constant_solution.attacks import adversarial
from surefoot.reproduce.constant_solution.homogeneous_networks import HomogeneousProblem, make_points, train_toy
from surefoot.reproduce.constant_solution.studies import LOW_DIMENSION, VARIANTS, job, studies
from surefoot.reproduce.constant_solution.tables import Decisions, Networks
from surefoot.reproduce.constant_solution.theory import measure_theory
from surefoot.reproduce.results import Results


@pytest.mark.parametrize("scale", ["quick", "laptop", "paper"])
def test_every_run_of_every_scale_parses(scale: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = studies(scale, has_data=True)
    assert ("cifar10" in chosen) == (scale == "paper")
    runs = [(s, n, t) for s in (*chosen.values(), LOW_DIMENSION) for n, t in s.trainings.items()]
    runs += [(chosen["mnist"], n, t) for n, t in VARIANTS.items()]
    names = set()
    for study, name, training in runs:
        made = job(study, name, training, 0)
        names.add(made.name)
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump(dict(made.settings)))
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", str(path), "--print_config"])
        assert stop.value.code == 0
        capsys.readouterr()
    assert len(names) == len(runs)


def datamodules(settings: Any) -> list[dict[str, Any]]:
    """Return the arguments of every datamodule in a config's settings."""
    if isinstance(settings, list):
        return [found for item in settings for found in datamodules(item)]
    if not isinstance(settings, dict):
        return []
    own = [settings["init_args"]] if str(settings.get("class_path")).endswith("DataModule") else []
    return own + [found for item in settings.values() for found in datamodules(item)]


def test_every_seed_of_a_network_has_the_same_data() -> None:
    chosen = studies("laptop", has_data=True)
    for study in (*chosen.values(), LOW_DIMENSION):
        for name, training in study.trainings.items():
            found = datamodules(job(study, name, training, 3).settings["data"])
            assert {arguments.get("seed") for arguments in found} == {0}
    fashion = chosen["fashion_mnist"]
    assert len(datamodules(job(fashion, "any", next(iter(fashion.trainings.values())), 3).settings)) == 3


def test_without_files_there_is_mnist_alone() -> None:
    (only,) = studies("laptop", has_data=False).values()
    assert only.name == "mnist"
    assert all(s["class_path"] == "Corruption" for s in only.shifts())


def test_toy_points_and_their_margins() -> None:
    problem = HomogeneousProblem(3, 2, 4, 5)
    points, labels = make_points(problem, torch.Generator().manual_seed(0))
    assert points.shape == (14, 512)
    assert labels.tolist() == [1] * 3 + [-1] * 2 + [1] * 4 + [-1] * 5
    lengths = points.norm(dim=1)
    assert float(lengths[5:].mean() / lengths[:5].mean()) == pytest.approx(3, rel=0.02)


def test_toy_networks_separate_and_map_inputs_off_the_span_to_almost_nothing() -> None:
    torch.set_num_threads(1)
    outcome = train_toy(HomogeneousProblem(depth=3), 0, n_steps=600)
    assert outcome.accuracy == 1
    assert outcome.relative_output < 0.1
    assert outcome.relative_norms[-1] == outcome.relative_output
    assert len(outcome.top_share) == 1
    again = train_toy(HomogeneousProblem(depth=3), 0, n_steps=600)
    assert again == outcome


def test_the_margin_points_are_known_before_the_classes_are_separated() -> None:
    """The least margin is negative then; the points within a tenth of its size of it are still at least one."""
    torch.set_num_threads(1)
    outcome = train_toy(HomogeneousProblem(30, 10, 30, 10, depth=2), 0, n_steps=50)
    assert outcome.accuracy < 1
    assert -1 <= outcome.support_mean <= 1


def test_theory_is_measured_at_quick_scale() -> None:
    found, missing = measure_claims(PAPER.claims, Results(measure_theory(1, True).tables))
    assert [m.id for m in found] == [
        "theory_output_off_span_vanishes",
        "theory_contraction",
        "theory_low_rank",
        "theory_bias_follows_support_depth_1",
        "theory_bias_follows_support_depth_2",
        "theory_bias_not_marginal_depth_1",
        "theory_bias_not_marginal_depth_2",
    ]
    assert all(math.isfinite(m.estimate.mean) for m in found), found
    assert "strongest" in missing


def test_attacks_raise_the_loss_within_their_steps() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    inputs, target = torch.randn(20, 6), torch.arange(20) % 3
    moved = adversarial(network, inputs, target, n_rounds=4, step=0.05)
    loss = torch.nn.functional.cross_entropy
    assert float(loss(network(moved), target).detach()) > float(loss(network(inputs), target).detach())
    assert float((moved - inputs).abs().max()) <= 0.2 + 1e-6
    assert not moved.requires_grad


SETS = ["test", "noise_1", "noise_2", "blur_1", "blur_2", "other"]


def known() -> Results:
    """Return two seeds of a study whose numbers are known; distances fall from 10 (seed 0) and 9 by 1 a set."""
    named = {"study": "s", "training": "cross-entropy"}
    sets = [
        named
        | {"seed": seed, "set": n, "distance": 10.0 - i - seed, "normalised_distance": 1 - i / 10, "ood_score": i / 10}
        for seed in range(2)
        for i, n in enumerate(SETS)
    ]
    layers = [
        named | {"seed": seed, "set": n, "layer": layer, "relative_norm": 1 - 0.1 * i * (1 + place)}
        for seed in range(2)
        for i, n in enumerate(("test", "noise_2", "blur_2"))
        for place, layer in enumerate(("first", "last"))
    ]
    constants = [
        named | {"seed": seed, "cut": cut, "number": k, "prediction": k + seed, "optimal_constant": k, "distance": 2.0}
        for seed in range(2)
        for cut in ("inner", "last")
        for k in range(5)
    ]
    return Results({"sets": sets, "layers": layers, "constants": constants})


def test_kinds_and_levels_are_read_from_names() -> None:
    assert family_and_level("unclipped_noise_3") == ("unclipped_noise", 3)
    assert family_and_level("fashion_mnist") == ("fashion_mnist", 1)
    networks = Networks(known(), "s", "cross-entropy")
    assert networks.graded == ["noise", "blur"]
    assert networks.levels("blur", "distance") == [{0: 10, 1: 9}, {0: 7, 1: 6}, {0: 6, 1: 5}]
    assert networks.strongest("normalised_distance")[0] == pytest.approx((0.8 + 0.6) / 2)
    assert networks.strongest("normalised_distance", ["blur"])[1] == pytest.approx(0.6)
    assert [key["key"] for key in tables.usual(known())] == ["s_cross_entropy"]


def test_claims_by_hand() -> None:
    """Of seeds 0 and 1: levels fall throughout (tau -1); strongest 0.7; biases 2 from the constant, inputs 10 and 9."""
    found = {m.id: m for m in measure_claims(PAPER.claims, known())[0]}
    measured = {i: m.estimate.mean for i, m in found.items()}
    assert measured == {
        "s_cross_entropy_falls_with_level": -1,
        "s_cross_entropy_falls_with_ood_score": pytest.approx(-1),
        "s_cross_entropy_strongest": pytest.approx(0.7),
        "s_cross_entropy_constant_near_optimum": pytest.approx((0.2 + 2 / 9) / 2),
        "s_cross_entropy_head_bias_tracks_optimum": pytest.approx(1),
        "s_output_norm_falls": pytest.approx(0.2),  # of noise only: blur reduces the input's own norm
        "s_late_layers_lose_more": pytest.approx(0.1),
    }
    assert found["s_output_norm_falls"].tables == {"sets", "layers"}


def test_decisions_average_over_kinds_and_far_sets() -> None:
    """A reward of minus the level; sets of other datasets count as far, and have no level."""
    rows = [
        {"study": "s", "training": t, "seed": 0, "policy": policy, "set": n, "reward": -family_and_level(n)[1] + 1.0}
        for t, policy in (("cross-entropy", "always_act"), ("reward prediction", "reward_prediction"))
        for n in ("test", "noise_1", "noise_2", "noise_3", "other")
    ]
    decisions = Decisions(Results({"decisions": rows}), "s")
    assert decisions.unshifted("always_act") == {0: 0}
    assert decisions.far("always_act") == {0: -1}  # noise_3 and other: -2 and 0
    assert [found[0] for found in decisions.levels("reward_prediction", "reward")] == [0, 0, -1, -2]


def test_curves_start_at_the_unshifted_set_and_average_over_seeds(tmp_path: Path) -> None:
    rows = [row for row in known()["sets"] if row["set"] != "x"]
    curves = by_family(rows, None, "distance")
    assert set(curves) == {"noise", "blur", "other"}
    assert [(x, e.mean, e.n) for x, e in curves["blur"]] == [(0, 9.5, 2), (1, 6.5, 2), (2, 5.5, 2)]
    scored = [row | {"ood_score": float(i % 6)} for i, row in enumerate(rows)]
    assert [x for x, _ in by_family(scored, "ood_score", "distance")["noise"]] == [0, 1, 2]
    assert by_family(rows, None, "nothing") == {}
    drawn = {p.stem for p in draw_sets(rows, tmp_path)}
    assert drawn == {"distance", "normalised_distance"}
    assert draw_layers(list(known()["layers"]), tmp_path) == [tmp_path / "relative_norm.svg"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_quick_scale_ends_within_a_minute_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    out = tmp_path / "constant_solution"
    main(["reproduce", "constant_solution", "--out", str(out)])
    claims = {c["id"]: c for c in json.loads((out / "claims.json").read_text())}
    assert {
        "mnist_cross_entropy_falls_with_level",
        "mnist_reward_prediction_beats_acting",
        "mnist_output_norm_falls",
        "adversarial_no_batch_norm_does_not_revert",
        "theory_contraction",
    } <= set(claims)
    assert all(c["holds"] is None for c in claims.values())
    assert not [i for i, c in claims.items() if c["measured"] is None]
    assert "Not measured" not in (out / "table.md").read_text()
    assert json.loads((out / "environment.json").read_text())["seconds"] < 75
    assert (out / "figures/mnist_cross_entropy/distance.svg").is_file()
    before = {p: p.stat().st_mtime_ns for p in (out / "results").glob("*.json")}
    main(["reproduce", "constant_solution", "--out", str(out)])
    assert before == {p: p.stat().st_mtime_ns for p in (out / "results").glob("*.json")}
    again = {c["id"]: c["measured"] for c in json.loads((out / "claims.json").read_text())}
    assert again == {i: c["measured"] for i, c in claims.items()}
