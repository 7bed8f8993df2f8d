"""Criteria, verdicts, claims made of functions, and when more seeds are run."""

import math
from typing import Any

import pytest
from scipy import stats

from surefoot.reproduce.claims import (
    Criterion,
    Measurement,
    at_least,
    at_most,
    claim,
    close_to,
    interval_above,
    measure_claims,
    reported,
    shares_of_seconds,
)
from surefoot.reproduce.results import PerSeed, Results
from surefoot.reproduce.running import Measured, settle
from surefoot.statistics import Estimate, mean_interval, paired_difference, rank_correlation


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
    measurement = Measurement(
        id="id", claim="claim", source="source", criterion=criterion, estimate=estimate, unit="unit"
    )
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

    def measure(n: int) -> Measured:
        seen.append(n)
        half = half_width * 10 / n
        return Measured({"rows": [{"mean": sign * 0.3, "low": sign * 0.3 - half, "high": sign * 0.3 + half, "n": n}]})

    @claim(source="", unit="", criterion=interval_above(0, "r"))
    def judged(results: Results) -> Estimate:
        return Estimate(**results["rows"][0])

    @claim(source="", unit="", criterion=reported("r"))
    def told(results: Results) -> Estimate:
        return Estimate(0, -9, 9, results["rows"][0]["n"])

    @claim(source="", unit="", criterion=interval_above(0, "r"))
    def of_another_table(results: Results) -> Estimate:
        return Estimate(0, -9, 9, results["others"][0]["n"])

    found = settle(measure, [judged, told, of_another_table], 10, most)
    assert seen == asked
    assert found.tables["rows"][0]["n"] == asked[-1]
    with pytest.raises(ValueError, match="no claim reads rows"):
        settle(measure, [of_another_table], 10, most)


def pairs(results: Results) -> list[dict[str, Any]]:
    return [{"method": m, "bound": 0.5} for m in results["scores"].distinct("method")]


@claim(
    id="{method}_good",
    over=pairs,
    source="table of {method}",
    unit="share",
    criterion=lambda bound: at_least(bound, "r"),
    at_any_scale=lambda method: method == "a",
)
def good(results: Results, method: str) -> PerSeed:
    """Method {method} reaches {bound:.1%},
    on average.
    """
    return results["scores"].per_seed("score", method=method)


SCORES = [
    {"method": m, "seed": s, "score": v}
    for m, vs in {"a": (0.7, 0.9), "b": (0.1, 0.3)}.items()
    for s, v in enumerate(vs)
]


def test_a_claim_is_made_of_the_things_that_the_tables_hold() -> None:
    first, second = good.measure(Results({"scores": SCORES}))
    assert (first.id, first.claim, first.source) == ("a_good", "Method a reaches 50.0%, on average", "table of a")
    assert first.estimate == mean_interval([0.7, 0.9])
    assert second.criterion.text == "mean >= 0.5: r"
    assert (first.at_any_scale, second.at_any_scale) == (True, False)
    assert first.tables == {"scores"}
    found, missing = measure_claims([good], Results({}))
    assert not found
    assert str(missing["good"]) == "there is no table scores"
    with pytest.raises(ValueError, match="distinct ids, got twice: a_good, b_good"):
        measure_claims([good, good], Results({"scores": SCORES}))


def test_shares_of_seconds_add_up_to_the_work_of_the_tables_that_are_read() -> None:
    def measurement(*tables: str) -> Measurement:
        return good.measure(Results({"scores": SCORES}))[0]._replace(tables=frozenset(tables))

    found = [measurement("x"), measurement("x", "y"), measurement("y"), measurement("x")]
    assert shares_of_seconds(found, {"x": 30.0, "y": 8.0, "unread": 5.0}) == [10.0, 14.0, 4.0, 10.0]
    assert shares_of_seconds(found, {"y": 8.0}) == [None, None, 4.0, None]
