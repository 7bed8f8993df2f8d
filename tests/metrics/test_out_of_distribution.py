import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from surefoot.metrics.ood_detection import (
    energy_scores,
    fit_class_gaussians,
    fpr_at_tpr,
    knn_scores,
    mahalanobis_scores,
    max_softmax_scores,
)
from surefoot.metrics.ood_score import ood_score
from surefoot.metrics.recovery import roc_auc
from surefoot.metrics.selective_risk import (
    ABSTAIN,
    DecisionRewards,
    act_above,
    act_always,
    act_on_rewards,
    area_under_risk_coverage,
    fit_temperatures,
    reward_of,
)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_logit_scores_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert float(max_softmax_scores(logits)) == pytest.approx(0.25)
    assert float(energy_scores(logits)) == pytest.approx(-math.log(4))
    assert float(energy_scores(logits, 2.0)) == pytest.approx(-2 * math.log(3**0.5 + 1))


def test_mahalanobis_equals_a_loop_in_numpy() -> None:
    features, target = draws(60, 4), torch.arange(60) % 3
    gaussians = fit_class_gaussians(features, target, 3)
    x = features.double().numpy()
    means = [x[(target == c).numpy()].mean(0) for c in range(3)]
    centred = np.concatenate([x[(target == c).numpy()] - means[c] for c in range(3)])
    inverse = np.linalg.inv(centred.T @ centred / 60)
    expected = [min((v - m) @ inverse @ (v - m) for m in means) for v in x]
    torch.testing.assert_close(mahalanobis_scores(features, gaussians), torch.tensor(expected), rtol=1e-8, atol=1e-9)
    absent = fit_class_gaussians(features, target, 5)
    assert len(absent.means) == 3, "classes without examples attract nothing"
    with pytest.raises(ValueError, match="too few"):
        fit_class_gaussians(features[:2], target[:2], 3)


def test_nearest_neighbours_equal_scikit_learns() -> None:
    bank, features = draws(40, 6), draws(7, 6, seed=1)
    unit = torch.nn.functional.normalize
    distances, _ = NearestNeighbors(n_neighbors=5).fit(unit(bank).numpy()).kneighbors(unit(features).numpy())
    torch.testing.assert_close(knn_scores(features, bank, 5), torch.from_numpy(distances[:, -1]).float())
    assert knn_scores(features, bank, 1000).shape == (7,)


def test_auroc_and_fpr95_equal_scikit_learns() -> None:
    outside = torch.arange(300) < 120
    scores = draws(300).double() + outside.double()
    assert float(roc_auc(scores, outside)) == pytest.approx(roc_auc_score(outside, scores))
    # scikit-learn's curve takes insiders as positives when scores are turned around
    fpr, tpr, _ = roc_curve(~outside, -scores, drop_intermediate=False)
    expected = fpr[np.argmax(tpr >= 0.95)]
    assert float(fpr_at_tpr(scores, outside)) == pytest.approx(expected)
    assert float(fpr_at_tpr(outside.double(), outside)) == 0, "told apart without an error"
    assert math.isnan(float(fpr_at_tpr(scores, torch.zeros(300, dtype=torch.bool))))


def test_ood_score_grows_with_the_shift_and_is_half_without_one() -> None:
    clean = draws(400, 20).numpy()
    scores = [ood_score(clean, draws(400, 20, seed=1).numpy() + s, 5) for s in (0, 0.3, 1, 3)]
    assert scores == sorted(scores)
    assert scores[0] == pytest.approx(0.5, abs=0.02)
    assert scores[-1] > 0.6  # a weak classifier
    assert ood_score(clean, clean + 1, 3) == ood_score(clean, clean + 1, 3), "the seed decides"
    assert math.isfinite(ood_score(np.zeros((9, 3)), np.zeros((30, 3)), 2)), "constant features"
    with pytest.raises(ValueError, match="two examples of each set, got 1 and 5"):
        ood_score(clean[:1], clean[:5])


def test_policies_by_hand() -> None:
    rewards = DecisionRewards()
    assert rewards.threshold == pytest.approx(0.8)  # c / (1 + c) with c = 4
    predicted = torch.tensor([[0.5, -1.0, 0.0], [-0.5, -1.0, 0.0]])
    assert act_on_rewards(predicted).tolist() == [0, ABSTAIN]
    logits = torch.tensor([[math.log(9.0), 0.0], [math.log(3.0), 0.0]])  # 0.9 and 0.75
    assert act_always(logits).tolist() == [0, 0]
    decision = act_above(logits, rewards.threshold)
    assert decision.tolist() == [0, ABSTAIN]
    assert reward_of(decision, torch.tensor([1, 0]), rewards).tolist() == [-4.0, 0.0]
    assert reward_of(decision, torch.tensor([0, 0]), rewards).tolist() == [1.0, 0.0]
    assert reward_of(act_always(logits), torch.tensor([-100, -100]), rewards).tolist() == [-4, -4]


def test_temperatures_mend_an_overconfident_classifier() -> None:
    generator = torch.Generator().manual_seed(0)
    true_logits = torch.randn(4000, 3, generator=generator)
    target = torch.multinomial(true_logits.softmax(1), 1, generator=generator)[:, 0]
    factors = fit_temperatures(4 * true_logits, target)
    torch.testing.assert_close(factors, torch.full((3,), 0.25).double(), rtol=0.1, atol=0)
    with torch.inference_mode():  # as during trainer.test
        inside = fit_temperatures((4 * true_logits), target)
    torch.testing.assert_close(inside, factors)


def test_risk_coverage_by_hand() -> None:
    confidences = torch.tensor([0.9, 0.8, 0.7, 0.6])
    wrong = torch.tensor([False, True, False, True])
    # error rates 0, 1/2, 1/3, 1/2 at coverages 1/4 to 1
    area = float(area_under_risk_coverage(confidences, wrong))
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
