"""The planted sub-sequence against the published and simulated figures, and against sequences that are sampled."""

import pytest
import torch

from surefoot.reproduce.tasks.planted import PlantedSequence, contextual_answer, returns_of


@pytest.mark.parametrize(
    ("weight", "success"), [(5, 0.0054), (10, 0.046), (15, 0.118), (20, 0.203), (50, 0.585), (100, 0.815)]
)
def test_success_with_an_end_of_sequence(weight: float, success: float) -> None:
    task = PlantedSequence(end=14)
    assert float(task.values(task.procedural_policy(weight))[0, 0]) == pytest.approx(success, abs=6e-4)


MIXED = (10.0, 20.0, 50.0, 1000.0)


@pytest.mark.parametrize(
    ("length", "weights", "success", "mean", "deviation", "half", "whole"),
    [
        (10, (10.0,), 0.051, 0.014, 0.073, 0.043, 0.043),
        (10, (50.0,), 0.617, 0.212, 0.219, 0.359, 0.291),
        (20, (10.0,), 0.124, 0.049, 0.155, 0.103, 0.088),
        (20, (20.0,), 0.459, 0.200, 0.270, 0.302, 0.221),
        (40, (10.0,), 0.253, 0.118, 0.242, 0.191, 0.158),
        (40, (20.0,), 0.739, 0.405, 0.324, 0.397, 0.221),
        (80, (10.0,), 0.458, 0.238, 0.319, 0.300, 0.223),
        (80, (20.0,), 0.939, 0.633, 0.276, 0.418, 0.131),
        (160, (10.0,), 0.714, 0.418, 0.350, 0.389, 0.235),
        (160, (1000.0,), 1.00, 0.967, 0.006, 0.0, 0.0),
        (10, MIXED, 0.472, 0.193, 0.231, 0.357, 0.327),
        (40, MIXED, 0.746, 0.530, 0.366, 0.492, 0.0),
        (160, MIXED, 0.928, 0.781, 0.293, 0.492, 0.0),
    ],
)
def test_returns_of_the_specification(
    length: int, weights: tuple[float, ...], success: float, mean: float, deviation: float, half: float, whole: float
) -> None:
    task = PlantedSequence(length=length)
    policies = [task.procedural_policy(w) for w in weights]
    found = returns_of(task, policies)
    solved = sum(float(task.values(p)[0, 0]) for p in policies) / len(policies)
    assert (solved, found.mean / length, found.deviation / length, found.tail_mass(0.5), found.tail_mass(1.0)) == (
        pytest.approx((success, mean, deviation, half, whole), abs=6e-4)
    )


def test_the_automaton_finds_the_answer_wherever_it_is() -> None:
    """Overlaps: after 3 6 0 3 a 6 leaves 3 6 matched, after an end nothing counts."""
    task = PlantedSequence(end=14)
    sequences = torch.tensor(
        [
            [3, 6, 0, 3, 6, 0, 3, 5, 1, 1],
            [3, 3, 6, 0, 3, 5, 14, 3, 6, 0],
            [3, 6, 0, 14, 3, 6, 0, 3, 5, 1],
        ]
    )
    assert task.states(sequences).tolist() == [
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 5, 5],
        [0, 1, 1, 2, 3, 4, 5, 5, 5, 5, 5],
        [0, 1, 2, 3, 6, 6, 6, 6, 6, 6, 6],
    ]


def test_what_is_sampled_agrees_with_what_is_computed() -> None:
    """Of 20,000 sequences: successes and the states before each token, up to 4 standard errors."""
    task = PlantedSequence(end=14)
    policy = task.procedural_policy(20)
    states = task.states(task.sample(policy, 20_000, torch.Generator().manual_seed(0)))
    seen = torch.nn.functional.one_hot(states, task.n_states).double().mean(0)
    expected = task.visits(policy)
    assert ((seen - expected).abs() <= 4 * (expected * (1 - expected) / 20_000).sqrt() + 1e-12).all()
    assert float(expected[-1, task.solved]) == pytest.approx(float(task.values(policy)[0, 0]))


def test_values_are_those_of_their_tokens() -> None:
    """A state's value is the mean of its tokens'; a prover with more tokens is never worse; the length is kept."""
    task = PlantedSequence(length=7, end=14)
    policy = task.procedural_policy(8)
    values, of_tokens = task.values(policy), task.action_values(policy)
    torch.testing.assert_close((policy * of_tokens).sum(2), values[:-1])
    assert values[3, 0] == 0  # four tokens are left for five
    assert values[2, 0] == pytest.approx((8 / 22) ** 5)
    longer = task.values(policy, extra=10)
    assert longer.shape == values.shape
    assert (longer >= values).all()
    assert longer[3, 0] > 0


def test_answers_of_prompts_differ() -> None:
    assert contextual_answer((0, 9)) == (5, 10, 7, 12, 9)
    for answer, problem in (((), "between 1 and 10"), ((1, 15), "below 15"), ((14, 1), "without 14")):
        with pytest.raises(ValueError, match=problem):
            PlantedSequence(answer, end=14)
