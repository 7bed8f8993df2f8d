"""Provers' distinguishability and alignment: by hand, and against the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import DataError
from surefoot.reasoning.credit import prover_quality


def test_by_hand() -> None:
    """Probabilities .25 and .75: prover 1 and 0, mean .25, variance .1875; policy .8 and .4, covariance .075."""
    found = prover_quality([[0.8, 0.4]], [[1.0, 0.0]], [[0.25, 0.75]])
    assert found.distinguishability.mean == pytest.approx(0.1875)
    assert found.alignment.mean == pytest.approx(0.075)
    assert found.improvement.mean == pytest.approx(0.2625)
    # two samples: variance of 1 and 0 is .5, covariance with .8 and .4 is .2
    sampled = prover_quality([[0.8, 0.4]], [[1.0, 0.0]])
    assert (sampled.distinguishability.mean, sampled.alignment.mean) == pytest.approx((0.5, 0.2))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1)), min_size=2, max_size=6))
def test_it_is_the_theorem_s_terms(steps: list[tuple[float, float, float]]) -> None:
    """With the values of the state itself the means of A^mu * A^mu less its mean's square, and of A^mu * A^pi."""
    q, mu, weights = torch.tensor(steps, dtype=torch.float64).unbind(1)
    p = weights / weights.sum()
    advantage, own = mu - 0.3, q - (p * q).sum()  # .3: any value of the state under the prover
    found = prover_quality([q.tolist()], [mu.tolist()], [p.tolist()])
    variance = (p * advantage.square()).sum() - (p * advantage).sum().square()
    assert found.distinguishability.mean == pytest.approx(float(variance), abs=1e-9)
    assert found.alignment.mean == pytest.approx(float((p * advantage * own).sum()), abs=1e-9)


def test_states_without_a_choice_are_refused() -> None:
    with pytest.raises(DataError, match="state 0 has 1 and 1 values"):
        prover_quality([[0.5]], [[0.5]])
    with pytest.raises(DataError, match="0 states of the policy"):
        prover_quality([], [])
