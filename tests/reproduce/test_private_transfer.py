import json
import math
from pathlib import Path

import pytest

from surefoot.cli import main
from surefoot.reproduce.private_transfer.claims import crossing, crossings, log_slope
from surefoot.reproduce.private_transfer.synthetic import CurveSizes, curves, personalisation
from surefoot.reproduce.results import Results


def test_slopes_and_crossings_by_hand() -> None:
    assert log_slope([1, 10, 100], [3, 0.03, 0.0003]) == pytest.approx(-2)
    own, full = {100: 0.1, 200: 0.1, 400: 0.1}, {100: 0.4, 200: 0.2, 400: 0.05}
    # log(.1/.2) = -log 2 at 200 and log(.1/.05) = log 2 at 400: halfway between their logarithms
    halfway = (math.log(200) + math.log(400)) / 2
    assert crossing(own, full) == pytest.approx(halfway)
    assert crossing({100: 0.1, 200: 0.1}, full) == pytest.approx(math.log(400)), "never: beyond"
    rows = [
        {"curve": curve, "n": n, "error": error, "seed": 3}
        for curve, errors in (("a", own), ("DP, all dimensions", full))
        for n, error in reversed(errors.items())
    ]
    assert crossings(Results({"curves": rows}), "a") == pytest.approx({3: halfway})


def test_small_curves_have_the_shape_of_the_large_ones() -> None:
    sizes = CurveSizes(20, 2, (200, 4000), (2000, 8000), 8, 300)
    rows = curves(sizes, 0)
    error = {(r["curve"], r["n"]): r["error"] for r in rows}
    gamma = {r["curve"]: r["gamma"] for r in rows if r.get("gamma") is not None}
    svd = "DP, SVD of 8 x 300"
    assert error[svd, 200] < error["DP, all dimensions", 200]
    assert error["DP, true subspace", 4000] < error["least squares", 4000]
    for curve in ("DP, moments of 2,000", "DP, moments of 8,000", svd):
        assert error[curve, 4000] <= 1.05 * gamma[curve] + 0.05
    assert gamma[svd] < gamma["DP, moments of 8,000"] < gamma["DP, moments of 2,000"]


def test_every_way_of_personalisation_is_measured() -> None:
    errors = {r["way"]: r["error"] for r in personalisation(0, 20, n_users=20)}
    assert len(errors) == 6
    assert errors["alone, true subspace"] < errors["alone, all dimensions"]
    assert errors["alone, public subspace"] < errors["coordinated from nothing"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_quick_scale_judges_nothing_and_ends_within_a_minute(tmp_path: Path) -> None:
    main(["reproduce", "private_transfer", "--out", str(tmp_path)])
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert {"bias_is_gamma_squared", "audit_no_clipping"} <= {c["id"] for c in claims}
    assert all(c["holds"] is None for c in claims)
    assert json.loads((tmp_path / "environment.json").read_text())["seconds"] < 75
    assert all(c["seconds"] is not None for c in claims)
    assert (tmp_path / "figures/error_against_samples.svg").is_file()
