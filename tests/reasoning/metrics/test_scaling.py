"""Exponents of power laws, and how many problems a method saves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.reasoning.metrics.scaling import data_efficiency, scaling_exponent

SIZES = (250, 500, 1000, 2000, 4000)


@given(st.floats(-2, -0.01), st.floats(0.01, 1))
def test_a_power_law_has_its_exponent(exponent: float, scale: float) -> None:
    assert scaling_exponent(SIZES, [scale * n**exponent for n in SIZES]) == pytest.approx(exponent)


@given(st.floats(-2, -0.05), st.floats(250, 4000), st.floats(1, 8))
def test_on_a_power_law_a_method_saves_what_it_saves(exponent: float, needed: float, ratio: float) -> None:
    errors = [n**exponent for n in SIZES]
    found = data_efficiency(SIZES, errors, needed / ratio, needed**exponent)
    assert found.ratio == pytest.approx(ratio, rel=1e-6)


def test_beyond_the_curve_there_is_a_bound() -> None:
    errors = [0.5, 0.4, 0.3, 0.2, 0.1]
    assert data_efficiency(SIZES, errors, 1000, 0.05) == (4.0, True)
    assert data_efficiency(SIZES, errors, 1000, 0.6) == (0.25, True)
    assert data_efficiency(SIZES, errors, 1000, 0.1) == (4.0, False)


def test_a_curve_that_rises_by_noise_is_averaged() -> None:
    """Of .4, .2 and .2 * 4 ** .5 = .4 by logarithms the last two become .2 * 2 ** .5 = .283, reached at 500 already."""
    assert data_efficiency([250, 500, 1000], [0.4, 0.2, 0.4], 100, 0.2 * 2**0.5).ratio == pytest.approx(5.0)
    assert data_efficiency([250, 500, 1000], [0.4, 0.4, 0.2], 100, 0.4).ratio == pytest.approx(2.5), "the fewest count"


@pytest.mark.parametrize(
    ("sizes", "errors", "size", "error"),
    [
        ((250,), (0.5,), 250, 0.4),
        ((500, 250), (0.5, 0.4), 250, 0.4),
        ((250, 500), (0.5, 0.0), 250, 0.4),
        ((250, 500), (0.5, float("nan")), 250, 0.4),
        ((250, 500), (0.5, 0.4), 250, 0.0),
    ],
)
def test_what_has_no_logarithm_or_order_is_refused(
    sizes: tuple[float, ...], errors: tuple[float, ...], size: float, error: float
) -> None:
    with pytest.raises(ValueError, match="expected"):
        data_efficiency(sizes, errors, size, error)
