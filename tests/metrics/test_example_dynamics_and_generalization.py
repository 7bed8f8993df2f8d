"""Example dynamics against a loop over presentations; baselines against numpy."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from surefoot.metrics.example_dynamics import empty_history, observe_examples
from surefoot.reasoning.metrics.generalization import (
    atc_accuracy,
    atc_threshold,
    gradient_variance,
    squared_distance,
)


def test_history_equals_a_loop_over_presentations() -> None:
    draw = torch.Generator().manual_seed(0)
    history = empty_history(6)
    seen: dict[int, list[tuple[float, bool, int]]] = {i: [] for i in range(6)}
    for epoch in range(7):
        for batch in torch.randperm(5, generator=draw).split(2):  # the sixth is never seen
            confidences = torch.rand(len(batch), generator=draw)
            correct = torch.rand(len(batch), generator=draw) < 0.5
            history = observe_examples(history, batch, confidences, correct, epoch)
            for i, c, ok in zip(batch.tolist(), confidences.tolist(), correct.tolist(), strict=True):
                seen[i].append((c, ok, epoch))
    for i, presentations in seen.items():
        assert history.n_seen[i] == len(presentations)
        if not presentations:
            assert math.isnan(float(history.confidence[i]))
            assert history.first_learned[i] == -1
            continue
        values = [c for c, _, _ in presentations]
        flags = [ok for _, ok, _ in presentations]
        assert float(history.confidence[i]) == pytest.approx(np.mean(values), rel=1e-6)
        assert float(history.variability[i]) == pytest.approx(np.std(values), rel=1e-5)
        assert float(history.correctness[i]) == pytest.approx(np.mean(flags))
        events = sum(a and not b for a, b in pairwise(flags))
        assert history.n_forgotten[i] == events
        assert history.first_learned[i] == next((e for _, ok, e in presentations if ok), -1)


def test_observing_changes_no_argument() -> None:
    before = empty_history(2)
    observe_examples(before, torch.tensor([1]), torch.tensor([0.5]), torch.tensor([True]), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, empty_history(2), strict=True))


def test_gradient_variance_and_distance_equal_numpys() -> None:
    draw = torch.Generator().manual_seed(1)
    batches = [[torch.randn(3, 4, generator=draw), torch.randn(5, generator=draw)] for _ in range(4)]
    flat = np.stack([np.concatenate([p.numpy().ravel() for p in b]) for b in batches])
    assert gradient_variance(batches) == pytest.approx(flat.var(0, ddof=1).mean(), rel=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        gradient_variance(batches[:1])
    start = {"a": torch.zeros(2, 2), "b": torch.ones(3)}
    now = {"a": torch.full((2, 2), 2.0), "b": torch.zeros(3), "head": torch.ones(9)}
    assert squared_distance(now, start) == 4 * 4 + 3


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.5, 1.0])
def test_atc_is_right_where_it_was_calibrated(accuracy: float) -> None:
    confidences = torch.rand(200, generator=torch.Generator().manual_seed(2))
    threshold = atc_threshold(confidences, accuracy)
    assert atc_accuracy(confidences, threshold) == pytest.approx(accuracy)
    assert atc_accuracy(confidences + 0.1, threshold) >= accuracy
