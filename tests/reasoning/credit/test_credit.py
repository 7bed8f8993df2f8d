"""Credit assigners: numbers done by hand, and laws."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.credit import (
    CreditAssigner,
    EffectiveRewardAdvantage,
    GroupAdvantage,
    LeaveOneOutAdvantage,
    PerStepAdvantage,
    progress,
)
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory


def trajectory(group: int, rewards: Sequence[float], lengths: Sequence[int] = (2,)) -> Trajectory:
    n = sum(lengths)
    edges = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    spans = [Span(a, b) for a, b in pairwise(edges)]
    return Trajectory(
        Problem("p", "", ""),
        group,
        [1],
        [2] * n,
        [0.0] * n,
        "stop",
        0,
        rewards=rewards,
        spans=spans,
    )


def outcomes(rewards: Sequence[float], groups: Sequence[int]) -> list[Trajectory]:
    return [trajectory(g, [r]) for r, g in zip(rewards, groups, strict=True)]


def test_group_advantage() -> None:
    """Rewards 1, 0, 0, 1: mean .5, standard deviation sqrt(1/3) = .57735; .5 / .57745 = .86588."""
    found = GroupAdvantage()(outcomes([1, 0, 0, 1], [0] * 4))
    assert [a.tolist() for a in found] == [
        pytest.approx([x, x], rel=1e-4) for x in (0.86588, -0.86588, -0.86588, 0.86588)
    ]
    plain = GroupAdvantage(scale="none")(outcomes([1, 0, 0, 1, 3, 5], [0, 0, 0, 0, 1, 1]))
    assert [a[0].item() for a in plain] == [0.5, -0.5, -0.5, 0.5, -1, 1]
    whole = GroupAdvantage(scale="batch", epsilon=0)(outcomes([1, 0, 3, 5], [0, 0, 1, 1]))
    deviation = torch.tensor([1.0, 0, 3, 5]).std().item()
    assert [a[0].item() for a in whole] == pytest.approx([x / deviation for x in (0.5, -0.5, -1, 1)], rel=1e-5)


def test_leave_one_out() -> None:
    """Rewards 1, 0, 0.5: against the mean of the others, .25, .75 and .5."""
    found = LeaveOneOutAdvantage()(outcomes([1, 0, 0.5, 7], [0, 0, 0, 1]))
    assert [a[0].item() for a in found] == [0.75, -0.75, 0.0, 0.0]


def test_per_step() -> None:
    """Step rewards 1, 0 and 0, 0: mean .25; to go .5 and -.25, and -.5 and -.25."""
    group = [trajectory(0, [1, 0], [2, 1]), trajectory(0, [0, 0], [1, 3])]
    found = PerStepAdvantage(scale="none")(group)
    assert [a.tolist() for a in found] == [[0.5, 0.5, -0.25], [-0.5, -0.25, -0.25, -0.25]]
    found = PerStepAdvantage("immediate", "none")(group)
    assert [a.tolist() for a in found] == [[0.75, 0.75, -0.25], [-0.25] * 4]
    scaled = PerStepAdvantage("immediate", epsilon=0)(group)
    assert scaled[0][0].item() == pytest.approx(0.75 / torch.tensor([1.0, 0, 0, 0]).std().item(), rel=1e-5)


@pytest.mark.parametrize(
    "assigner",
    [
        GroupAdvantage(),
        GroupAdvantage("batch"),
        GroupAdvantage("none"),
        LeaveOneOutAdvantage(),
        PerStepAdvantage(),
    ],
)
@given(st.lists(st.integers(-2, 2), min_size=2, max_size=6), st.integers(-2, 2))
def test_laws(assigner: CreditAssigner, rewards: list[int], same: int) -> None:
    mixed = outcomes([*map(float, rewards), same, same, same], [0] * len(rewards) + [1] * 3)
    found = assigner(mixed)
    assert all(len(a) == 2 and a.dtype == torch.float32 for a in found)
    assert not torch.cat(found[-3:]).any(), "where all rewards agree there is nothing to learn"
    first = torch.stack([a[0] for a in found[: len(rewards)]])
    assert abs(first.sum().item()) < 1e-4, "advantages of a group add up to nothing"
    order = list(range(len(mixed)))[::-1]
    backwards = assigner([mixed[i] for i in order])
    for i, a in zip(order, backwards, strict=True):
        torch.testing.assert_close(a, found[i], rtol=1e-6, atol=1e-7)


def test_outcome_rewards_are_the_sum_of_spans() -> None:
    spread = GroupAdvantage("none")([trajectory(0, [0.25, 0.75], [1, 1]), trajectory(0, [0, 0], [1, 1])])
    assert [a.tolist() for a in spread] == [[0.5, 0.5], [-0.5, -0.5]]


def valued(rewards: Sequence[float], values: Sequence[float], lengths: Sequence[int], group: int = 0) -> Trajectory:
    made = trajectory(group, rewards, lengths)
    made.values = values
    return made


def test_effective_rewards() -> None:
    """Best of 2: values .5, .2, 1 are .75, .36, 1, so advantages -.39, .64; .5, .5, 0 are .75, .75, 0: 0, -.75.

    With alpha 2 and outcomes 1 and 0 the steps are worth .22, 2.28, 0 and -1.5, which are .25 on average.
    """
    pair = [valued([0, 1], [0.5, 0.2, 1.0], [2, 1]), valued([0, 0], [0.5, 0.5, 0.0], [1, 2])]
    found = EffectiveRewardAdvantage(alpha=2, k=2)(pair)
    assert found[0].tolist() == pytest.approx([-0.03, -0.03, 2.03])
    assert found[1].tolist() == pytest.approx([-0.25, -1.75, -1.75])
    plain = EffectiveRewardAdvantage(alpha=2, k=2, baseline="none")(pair)
    assert plain[0].tolist() == pytest.approx([0.22, 0.22, 2.28])
    degenerate = EffectiveRewardAdvantage(alpha=2, k=1, bonus="value", baseline="none")(pair)
    assert [a.tolist() for a in degenerate] == [pytest.approx([1.4, 1.4, 3.0]), pytest.approx([1.0, 0.0, 0.0])]
    with pytest.raises(ConfigError, match="scale group divides by the spread around the group's mean"):
        EffectiveRewardAdvantage(baseline="none", scale="group")
    scaled = EffectiveRewardAdvantage(alpha=2, k=2, scale="group", epsilon=0)(pair)
    deviation = torch.tensor([0.22, 2.28, 0.0, -1.5]).std().item()
    assert scaled[0][2].item() == pytest.approx(2.03 / deviation, rel=1e-5)


def test_without_a_bonus_effective_rewards_are_outcomes() -> None:
    """The advantage of outcomes against their mean, however many steps completions have; no values are needed."""
    group = [*outcomes([1, 0, 0, 1, 3, 5], [0, 0, 0, 0, 1, 1]), trajectory(1, [0, 0, 4], [1, 2, 1])]
    found = EffectiveRewardAdvantage(alpha=0)(group)
    expected = GroupAdvantage(scale="none")(group)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_best_of_k_of_values_that_stopped_early_is_told() -> None:
    made = valued([0, 0, 1], [0.5, 0.5, 0.25, 1.0], [2, 1, 1])
    made.value_counts = [8, 8, 8, 0]
    assert progress(made, 2)[0] == 0
    made.value_counts = [8, 4, 8, 0]
    assert progress(made) == [0, -0.25, 0.75], "of one attempt each value is its own"
    with pytest.warns(UserWarning, match="values of the best of 2 that are made of them are biased"):
        progress(made, 2)


def test_what_was_given_gets_no_effective_reward() -> None:
    made = valued([0, 0, 1], [0.5, 0.5, 0.25, 1.0], [2, 1, 1])
    made.n_given = 2
    (found,) = EffectiveRewardAdvantage(alpha=1, k=1)([made])
    assert found.tolist() == pytest.approx([0, 0, -0.5, 0.5]), "1 - .25 and 1 + .75 around their mean"
    with pytest.raises(DataError, match=r"reads values of steps: set model.init_args.values"):
        EffectiveRewardAdvantage()([trajectory(0, [1])])
    for wrong in ({"alpha": -1.0}, {"k": 0}):
        with pytest.raises(ConfigError, match="expected alpha"):
            EffectiveRewardAdvantage(**wrong)
