import math

import pytest
import torch

from surefoot.metrics import GroupCounts, count_groups, mean_of_worst, shares_weighted_accuracy


def test_overlapping_groups_by_hand() -> None:
    correct = torch.tensor([True, False, True])
    members = torch.tensor([[True, True], [True, False], [False, False]])
    counts = count_groups(correct, members, 2)
    assert counts.accuracy.tolist() == [0.5, 1.0]
    assert float(counts.sample_accuracy) == pytest.approx(2 / 3), "each example once, though groups overlap"


def test_counts_add_up_over_batches() -> None:
    correct, group = torch.rand(40) > 0.4, torch.randint(0, 3, (40,))
    whole = count_groups(correct, group, 3)
    parts = [count_groups(correct[i::2], group[i::2], 3) for i in range(2)]
    added = GroupCounts(*(a + b for a, b in zip(*parts, strict=True)))
    assert all(a.equal(b) for a, b in zip(whole, added, strict=True))


def test_averages_have_different_meanings() -> None:
    # Waterbirds' lesson: groups 90% and 50% accurate, balanced here but 95:5 in training.
    counts = GroupCounts(torch.tensor([90, 50]), torch.tensor([100, 100]), torch.tensor(140), torch.tensor(200))
    assert float(counts.sample_accuracy) == pytest.approx(0.7)
    assert float(shares_weighted_accuracy(counts.accuracy, torch.tensor([0.95, 0.05]).double())) == pytest.approx(0.88)


def test_empty_groups_count_nowhere() -> None:
    accuracy = torch.tensor([0.9, math.nan, 0.7]).double()
    assert float(mean_of_worst(accuracy, 1)) == pytest.approx(0.7)
    assert float(mean_of_worst(accuracy, 2)) == pytest.approx(0.8)
    assert float(mean_of_worst(accuracy, 9)) == pytest.approx(0.8)
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    assert float(shares_weighted_accuracy(accuracy, shares)) == pytest.approx((0.45 + 0.14) / 0.7)
    assert math.isnan(float(mean_of_worst(torch.tensor([math.nan]).double(), 1)))
