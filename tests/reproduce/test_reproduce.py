import json
import math
import sys
from pathlib import Path

import pytest
import torch
from scipy import stats

from surefoot import reproduce
from surefoot.cli import main
from surefoot.reproduce._linear_toy import (
    METHODS,
    Method,
    Problem,
    ToyData,
    make_data,
    train,
    with_penalty,
)
from surefoot.reproduce.claims import (
    Criterion,
    Measurement,
    at_least,
    at_most,
    close_to,
    interval_above,
    reported,
    settle,
)
from surefoot.statistics import (
    Estimate,
    mean_interval,
    paired_difference,
    rank_correlation,
)

PAPER_FILE = '''
"""A paper added as one file."""
from surefoot.reproduce.claims import Findings, Measurement, Paper, at_least
from surefoot.statistics import mean_interval

def measure(scale, n_seeds, out, recorded):
    estimate = mean_interval([1.0] * n_seeds)
    claim = Measurement("one", "one is one", "page 1", at_least(1, "by definition"), estimate, recorded)
    return Findings([claim], {"rows": [{"seed": s} for s in range(n_seeds)]}, ["a note"])

PAPER = Paper("tiny_paper", "A tiny paper", "nobody, 2026", measure, options={"--recorded": {"default": "unit"}})
'''


def test_intervals_equal_scipys() -> None:
    values = [0.3, 0.5, 0.9, 0.4, 0.6]
    estimate = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert estimate == pytest.approx((sum(values) / 5, low, high, 5))
    difference = paired_difference(values, [0.1] * 5)
    assert (difference.low, difference.high) == pytest.approx((low - 0.1, high - 0.1))
    assert mean_interval([2.0]) == Estimate(2.0, -math.inf, math.inf, 1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, 1]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([1, 2], [1])


@pytest.mark.parametrize(
    ("criterion", "estimate", "holds", "verdict"),
    [
        (at_least(0.5, "r"), Estimate(0.7, 0.5, 0.9, 5), True, "holds"),
        (at_least(0.5, "r"), Estimate(0.5, 0.1, 0.9, 5), True, "undecided"),
        (at_least(0.5, "r"), Estimate(0.49, 0.1, 0.9, 5), False, "undecided"),
        (at_least(0.5, "r"), Estimate(0.3, 0.1, 0.49, 5), False, "contradicted"),
        (at_most(0.5, "r"), Estimate(0.3, 0.1, 0.5, 5), True, "holds"),
        (at_most(0.5, "r"), Estimate(0.51, 0.1, 0.9, 5), False, "undecided"),
        (at_most(0.5, "r"), Estimate(0.7, 0.51, 0.9, 5), False, "contradicted"),
        (interval_above(0, "r"), Estimate(0.2, 0.01, 0.4, 5), True, "holds"),
        (interval_above(0, "r"), Estimate(0.2, -0.01, 0.4, 5), False, "undecided"),
        (interval_above(0, "r"), Estimate(-0.2, -0.4, 0.01, 5), False, "undecided"),
        (interval_above(0, "r"), Estimate(-0.2, -0.4, 0.0, 5), False, "contradicted"),
        (interval_above(0, "r"), Estimate(0.0, 0.0, 0.0, 5), False, "contradicted"),
        (interval_above(0, "r"), Estimate(0.2, -math.inf, math.inf, 1), False, "undecided"),
        (close_to(0.5, 0.1, "r"), Estimate(0.5, 0.41, 0.59, 5), True, "holds"),
        (close_to(0.5, 0.1, "r"), Estimate(0.61, 0.5, 0.7, 5), False, "undecided"),
        (close_to(0.5, 0.1, "r"), Estimate(0.5, 0.2, 0.8, 5), True, "undecided"),
        (close_to(0.5, 0.1, "r"), Estimate(0.7, 0.61, 0.8, 5), False, "contradicted"),
        (close_to(0.5, 0.1, "r"), Estimate(0.3, 0.2, 0.39, 5), False, "contradicted"),
        (at_least(0.5, "r"), Estimate(math.nan, math.nan, math.nan, 5), False, "undecided"),
        (reported("r"), Estimate(0.2, 0.1, 0.3, 5), None, "reported"),
    ],
)
def test_the_interval_gives_the_verdict(
    criterion: Criterion, estimate: Estimate, holds: bool | None, verdict: str
) -> None:
    measurement = Measurement("id", "claim", "source", criterion, estimate, "unit")
    judged = measurement.judge("p", "laptop", 1.0)
    assert (judged.holds, judged.verdict) == (holds, verdict)
    quick = measurement.judge("p", "quick", 1.0)
    assert quick.holds is None, "quick is too noisy to judge"
    assert quick.verdict == ("reported" if verdict == "reported" else "undecided")
    same = measurement._replace(at_any_scale=True).judge("p", "quick", 1.0)
    assert (same.holds, same.verdict) == (holds, verdict)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("half_width", "most", "asked"),
    [
        (0.1, 80, [10]),
        (0.9, 80, [10, 20, 40]),
        (9.0, 80, [10, 20, 40, 80]),
        (9.0, 30, [10, 20, 30]),
    ],
)
def test_undecided_claims_get_more_seeds_whatever_their_sign(
    half_width: float, most: int, asked: list[int], sign: int
) -> None:
    """The interval shrinks with the number of seeds: at 0.9 * 10 / 40 it no longer reaches from 0.3 to 0."""
    seen: list[int] = []

    def measure(n: int) -> tuple[list[Measurement], int]:
        seen.append(n)
        half = half_width * 10 / n
        estimate = Estimate(sign * 0.3, sign * 0.3 - half, sign * 0.3 + half, n)
        told = Measurement("b", "", "", reported("r"), Estimate(0, -9, 9, n), "")
        return [Measurement("a", "", "", interval_above(0, "r"), estimate, ""), told], n

    found = settle(measure, lambda found: found[0], 10, most)
    assert seen == asked
    assert found[1] == asked[-1]


def test_a_paper_is_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_paper.py").write_text(PAPER_FILE)
    monkeypatch.setattr(reproduce, "__path__", [*reproduce.__path__, str(tmp_path)])
    try:
        main(["reproduce", "--list"])
        listed = capsys.readouterr().out
        assert "tiny_paper" in listed
        assert "br_dro" in listed
        main(
            [
                "reproduce",
                "tiny_paper",
                "--scale",
                "laptop",
                "--seeds",
                "3",
                "--recorded",
                "hours",
                "--out",
                str(tmp_path / "o"),
            ]
        )
    finally:
        sys.modules.pop("surefoot.reproduce.tiny_paper", None)
    (claim,) = json.loads((tmp_path / "o/claims.json").read_text())
    assert claim["holds"] is True
    assert claim["unit"] == "hours"
    assert claim["n_seeds"] == 3
    assert set(claim) == {
        *("id", "paper", "claim", "source", "criterion", "measured", "interval", "unit"),
        *("n_seeds", "holds", "verdict", "scale", "seconds"),
    }
    assert "one is one" in (tmp_path / "o/table.md").read_text()
    assert (tmp_path / "o/rows.csv").read_text().split() == ["seed", "0", "1", "2"]


def test_toy_data_are_what_the_specification_says() -> None:
    data = make_data(Problem(n_train=4000, label_noise=0.1), 2)
    assert data.x.shape == (2, 4000, 12)
    clean = torch.where(data.minority, -data.x[..., 1], data.x[..., 1])
    assert bool(((clean > 0) == ((data.y == 1) ^ data.noisy)).all())
    assert float(data.minority.float().mean()) == pytest.approx(0.05, abs=0.01)
    assert float(data.noisy.float().mean()) == pytest.approx(0.1, abs=0.01)
    core = data.x[..., 0] * clean
    assert float(core.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(core.std()) == pytest.approx(0.25, abs=0.02)
    again = make_data(Problem(n_train=4000, label_noise=0.1), 1)
    assert again.x[0].equal(data.x[0]), "a seed's data do not depend on how many seeds there are"


@pytest.mark.parametrize("name", METHODS)
def test_toy_seeds_do_not_see_each_other(name: str) -> None:
    """All seeds are one tensor program: shuffling another seed's data changes nothing for the first."""
    from dataclasses import replace

    method = replace(METHODS[name], n_steps=30)
    data = make_data(Problem(n_train=100), 2)
    spoilt = ToyData(*(torch.stack([t[0], t[1].flip(0)]) for t in data))
    first, second = train(data, method), train(spoilt, method)
    torch.testing.assert_close(first.worst_group[0], second.worst_group[0])
    torch.testing.assert_close(first.weights[0], second.weights[0])


def test_toy_erm_equals_a_plain_autograd_loop() -> None:
    method = Method("erm", n_steps=20, batch_size=None, weight_decay=0.01)
    data = make_data(Problem(n_train=60), 1)
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(1, 12, 2, generator=generator) * (2 / 12) ** 0.5)[0].requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, weight_decay=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(data.x[0] @ weight + bias, data.y[0]).backward()
        optimizer.step()
    right = (data.test_x[0] @ weight + bias).argmax(1) == data.test_y[0]
    assert float(train(data, method).average[0]) == pytest.approx(float(right.float().mean()), abs=1e-6)


def test_toy_penalty_bounds_the_adversary() -> None:
    from dataclasses import replace

    data = make_data(Problem(), 2)
    spread = []
    for penalty in (0.03, 3.0):
        method = replace(with_penalty(METHODS["BR-DRO (l2)"], penalty), n_steps=300)
        spread.append(float(train(data, method).weights.std()))
    assert spread[1] < spread[0]


@pytest.mark.parametrize("study", ["DIGITS", "FASHION", "WATERBIRDS"])
def test_every_candidate_of_every_method_parses(study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's scale needs a GPU and Waterbirds; that its settings are right shows here."""
    import yaml

    from surefoot.reproduce import br_dro

    chosen = getattr(br_dro, study)
    for method in br_dro.methods(chosen):
        for i, candidate in enumerate(method.candidates):
            settings = br_dro.job(chosen, method, candidate, 0, "x").settings
            path = tmp_path / f"{br_dro.slug(method.name)}-{i}.yaml"
            path.write_text(yaml.safe_dump(dict(settings)))
            with pytest.raises(SystemExit) as stop:
                main(["fit", "--config", str(path), "--print_config"])
            assert stop.value.code == 0
            capsys.readouterr()
    counts = {len(m.candidates) for m in br_dro.methods(chosen)}
    assert len(counts) == 1, "the same tuning budget for every method"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quick_reproduction_ends_within_a_minute_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    out = tmp_path / "br_dro"
    main(["reproduce", "br_dro", "--out", str(out)])
    claims = json.loads((out / "claims.json").read_text())
    assert claims
    assert all(c["holds"] is None for c in claims)
    assert claims[0]["seconds"] < 60
    for figure in ("capacity_toy", "methods_digits"):
        assert (out / f"figures/{figure}.svg").is_file()
        assert (out / f"figures/{figure}.png").is_file()
    before = {p: p.stat().st_mtime_ns for p in (out / "digits/results").glob("*.json")}
    main(["reproduce", "br_dro", "--out", str(out)])
    assert before == {p: p.stat().st_mtime_ns for p in (out / "digits/results").glob("*.json")}
