"""Pre-memorization accuracy against numbers worked by hand, a naive loop, and the authors' recorded runs."""

import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from surefoot.reasoning.learning_dynamics import learning_curves, read_recorded_runs
from surefoot.reasoning.metrics.memorization import (
    LearningCurves,
    ThresholdSweep,
    advance_pre_memorization,
    is_memorized,
    is_trivial,
    log_log,
    perplexity_at,
    pre_memorization_accuracies,
    prediction_quality,
    quality_of_train_accuracy,
    threshold_grid,
)

P = math.log(math.log(1.2))  # a perplexity of 1.2


def naive(accuracies: list[list[float]], perplexities: list[list[float]], p: float) -> list[list[float]]:
    """Return min(max over checkpoints so far of accuracy x [perplexity >= p], accuracy), by definition."""
    table = []
    for m in range(len(accuracies)):
        row = []
        for i in range(len(accuracies[0])):
            masked = [accuracies[k][i] * (perplexities[k][i] >= p) for k in range(m + 1)]
            row.append(min(max(masked), accuracies[m][i]))
        table.append(row)
    return table


def test_golden() -> None:
    """Four examples over three checkpoints at perplexity 1.2.

    First: solved 0.4, then 0.8 while unmemorized, then 1.0 memorized: 0.4, 0.8, 0.8. Second: memorized throughout: 0.
    Third: memorized at 2, forgotten at 3 with 0.6: 0.2, min(0.2, 1) = 0.2, max(0.2, 0.6) = 0.6. Fourth: 0.8, then the
    skill is lost: min(0.8, 0.2) = 0.2.
    """
    accuracies = torch.tensor([[0.4, 1.0, 0.2, 0.8], [0.8, 1.0, 1.0, 0.2], [1.0, 1.0, 0.6, 0.0]])
    perplexities = torch.tensor([[1.5, 1.1, 1.3, 2.0], [1.3, 1.0, 1.1, 1.1], [1.05, 1.0, 1.3, 1.1]])
    expected = torch.tensor([[0.4, 0.0, 0.2, 0.8], [0.8, 0.0, 0.2, 0.2], [0.8, 0.0, 0.6, 0.0]])
    torch.testing.assert_close(pre_memorization_accuracies(accuracies, perplexities, P), expected)


@pytest.mark.parametrize("n_checkpoints", [1, 2, 7])
@pytest.mark.parametrize("n_examples", [1, 13])
@pytest.mark.parametrize("threshold", [-3.0, -1.0, 0.5])
def test_equals_the_naive_loop(n_checkpoints: int, n_examples: int, threshold: float) -> None:
    draw = torch.Generator().manual_seed(n_checkpoints * 100 + n_examples)
    shape = (n_checkpoints, n_examples)
    accuracies = torch.randint(6, shape, generator=draw).double() / 5
    perplexities = 1 + torch.rand(shape, generator=draw, dtype=torch.float64) ** 3
    found = pre_memorization_accuracies(accuracies, perplexities, threshold)
    expected = naive(accuracies.tolist(), perplexities.tolist(), perplexity_at(threshold))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    best = torch.zeros(n_examples, dtype=torch.float64)
    for m in range(n_checkpoints):  # one checkpoint at a time gives the same
        best, now = advance_pre_memorization(best, accuracies[m], perplexities[m], threshold)
        torch.testing.assert_close(now, found[m])
    assert bool((found <= accuracies).all())
    order = torch.randperm(n_examples, generator=draw)
    shuffled = pre_memorization_accuracies(accuracies[:, order], perplexities[:, order], threshold)
    torch.testing.assert_close(shuffled, found[:, order])


def test_where_nothing_is_memorized_it_is_train_accuracy_and_where_all_is_it_is_0() -> None:
    accuracies = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(4, 9)
    torch.testing.assert_close(pre_memorization_accuracies(accuracies, 2 * ones, P), accuracies)
    assert not pre_memorization_accuracies(accuracies, ones, P).any()


def test_perplexities_at_the_border() -> None:
    given = torch.tensor([1.2, 1.2 - 1e-9, 1.0, 1 - 1e-7, math.nan, math.inf], dtype=torch.float64)
    at = math.log(math.log(1.2))
    assert is_memorized(given, at - 1e-12).tolist() == [False, True, True, True, True, False]
    assert log_log(given)[2:4].tolist() == [-math.inf, -math.inf], "below 1 by rounding is 1"
    assert perplexity_at(-2.3) == pytest.approx(1.1054, abs=1e-4)


def test_degenerate_input() -> None:
    empty = torch.zeros(0, 3)
    assert pre_memorization_accuracies(empty, empty, P).shape == (0, 3)
    nothing = torch.zeros(3, 5)
    assert not pre_memorization_accuracies(nothing, nothing + 2, P).any(), "no sample ever correct"
    for bad in (1.2, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            pre_memorization_accuracies(torch.tensor([[bad]]), torch.tensor([[2.0]]), P)
    assert math.isnan(prediction_quality(torch.tensor([0.5]), torch.tensor([0.5])).r2_identity)
    assert math.isnan(prediction_quality(torch.zeros(0), torch.zeros(0)).mean_absolute_error)
    flat = prediction_quality(torch.tensor([0.3, 0.3]), torch.tensor([0.2, 0.4]))
    assert flat.r2_identity == pytest.approx(0 - 0.0, abs=1e-6)
    assert math.isnan(flat.r2_fit)
    assert math.isnan(flat.kendall_tau)


def test_quality_equals_scipys_and_sees_an_offset() -> None:
    x = torch.tensor([0.1, 0.3, 0.35, 0.6, 0.9])
    y = torch.tensor([0.15, 0.2, 0.4, 0.5, 0.8])
    found = prediction_quality(x, y)
    assert found.r2_fit == pytest.approx(stats.pearsonr(x, y).statistic ** 2, rel=1e-6)
    assert found.kendall_tau == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.mean_absolute_error == pytest.approx((0.05 + 0.1 + 0.05 + 0.1 + 0.1) / 5, rel=1e-5)
    shifted = prediction_quality(x + 0.3, y)
    assert shifted.r2_fit == pytest.approx(found.r2_fit, rel=1e-5)
    assert shifted.r2_identity < 0.2 < found.r2_identity


def simulated(name: str, seed: int, true_threshold: float = -2.0) -> LearningCurves:
    """Return a run whose test accuracy is its pre-memorization accuracy at a known threshold."""
    draw = torch.Generator().manual_seed(seed)
    n = 400
    skill = torch.rand(n, generator=draw, dtype=torch.float64)
    accuracies, perplexities = [], []
    for m in range(5):
        level = 0.5 - 1.2 * m + 1.0 * torch.randn(n, generator=draw, dtype=torch.float64)
        known = level < true_threshold
        accuracies.append(torch.where(known, torch.ones(()).double(), skill * (m + 1) / 5))
        perplexities.append(level.exp().exp())
    curves = torch.stack(accuracies), torch.stack(perplexities)
    test = pre_memorization_accuracies(*curves, true_threshold).mean(1)
    return LearningCurves(name, *curves, test)


def test_the_sweep_finds_a_known_threshold_and_a_single_peak() -> None:
    runs = [simulated(str(s), s) for s in range(4)]
    sweep = ThresholdSweep(runs)
    assert sweep.best() == pytest.approx(-2.0)
    values = [q.r2_identity for q in sweep.qualities()]
    peak = values.index(max(values))
    assert values[peak] == pytest.approx(1.0)
    assert values[0] < 0.9
    assert values[-1] < 0.9
    assert quality_of_train_accuracy(runs).r2_identity < 0
    left = sweep.leave_one_run_out()
    assert set(left.thresholds.values()) == {-2.0}
    assert left.quality.r2_identity == pytest.approx(1.0)


def test_a_left_out_run_has_no_part_in_its_threshold() -> None:
    runs = [simulated(str(s), s) for s in range(3)]
    before = ThresholdSweep(runs).leave_one_run_out().thresholds["1"]
    runs[1] = runs[1]._replace(test_accuracies=torch.zeros(5).double())
    after = ThresholdSweep(runs).leave_one_run_out()
    assert after.thresholds["1"] == before
    assert after.thresholds["0"] != before, "the others do see it"


def test_ties_take_the_middle_and_a_run_that_never_memorizes_is_trivial() -> None:
    accuracies = torch.tensor([[0.2, 0.4], [0.4, 0.6]], dtype=torch.float64)
    never = LearningCurves("n", accuracies, accuracies * 0 + 3.0, accuracies.mean(1))
    grid = threshold_grid(-3, 1, 0.5)
    best = ThresholdSweep([never], grid).best()
    tied = [t for t in grid if perplexity_at(t) <= 3.0]
    assert best == tied[(len(tied) - 1) // 2]
    assert is_trivial(never, best)
    assert not is_trivial(simulated("s", 0), -2.0)


def test_bad_sweeps() -> None:
    run = simulated("a", 0)
    with pytest.raises(ValueError, match="at least one run"):
        ThresholdSweep([])
    with pytest.raises(ValueError, match="names of their own"):
        ThresholdSweep([run, run])
    with pytest.raises(ValueError, match="at least two"):
        ThresholdSweep([run]).leave_one_run_out()


#: log log p -> (R² of the fit, R² of the identity) of the specification, section 3.
SENSITIVITY = {
    -4.0: (0.65, -1.3), -3.0: (0.87, 0.39), -2.6: (0.94, 0.82), -2.4: (0.948, 0.924), -2.2: (0.92, 0.91),
    -2.0: (0.84, 0.73), -1.6: (0.56, -0.28), -1.0: (0.17, -3.5), 0.0: (0.01, -8.2),
}  # fmt: skip


def test_the_authors_runs_give_the_authors_numbers(data_root: Path) -> None:
    runs = read_recorded_runs(data_root / "learning_dynamics/gsm8k_llama3_8b.npz")
    curves = learning_curves(runs, equal_samples=False)
    sweep = ThresholdSweep(curves, sorted({*SENSITIVITY, -2.5, -2.3}))
    found = dict(zip(sweep.thresholds, sweep.qualities(), strict=True))
    best = found[-2.3]
    assert best.n_points == 51
    assert best.r2_fit == pytest.approx(0.939, abs=5e-4)
    assert best.r2_identity == pytest.approx(0.935, abs=5e-4)
    assert best.mean_absolute_error == pytest.approx(0.0285, abs=5e-5)
    plain = quality_of_train_accuracy(curves)
    assert plain.r2_fit == pytest.approx(0.398, abs=1e-3)
    assert plain.r2_identity == pytest.approx(-6.04, abs=0.01)
    for threshold, (fit, identity) in SENSITIVITY.items():
        assert found[threshold].r2_fit == pytest.approx(fit, abs=0.006), threshold
        assert found[threshold].r2_identity == pytest.approx(identity, abs=0.06), threshold
    left = sweep.leave_one_run_out()
    assert sum(t == -2.3 for t in left.thresholds.values()) >= 12
    assert left.quality.r2_identity == pytest.approx(0.92, abs=0.006)
