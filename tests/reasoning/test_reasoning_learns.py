"""The shipped arithmetic configs teach what they promise: a start of 30 to 60%, then more by reinforcement and by RFT.

Takes about 45 minutes on one core; the figures are in benchmarks/results/reasoning_learning.json.
"""

from typing import Any

import pytest

from benchmarks.reasoning_learning import measure

SEEDS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measure(SEEDS, tmp_path_factory.mktemp("runs"))


def test_sft_gives_a_start_with_room(measured: dict[str, Any]) -> None:
    assert all(0.3 <= run["accuracy"] <= 0.6 for run in measured["runs"]["sft"])


@pytest.mark.parametrize(("method", "gain"), [("grpo", 0.20), ("rft", 0.05)])
def test_gains_on_held_out_problems(measured: dict[str, Any], method: str, gain: float) -> None:
    assert measured["gains"][method]["mean"] >= gain
    assert measured["gains"][method]["low"] > 0
