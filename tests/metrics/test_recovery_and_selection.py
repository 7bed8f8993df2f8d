import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from surefoot.metrics import precision_recall_of_top, roc_auc, select_checkpoints


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_scikit_learn_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (200,), generator=generator).double()
    member = torch.rand(200, generator=generator) < 0.2
    assert float(roc_auc(scores, member)) == pytest.approx(roc_auc_score(member, scores), rel=1e-9)


def test_auc_of_nothing_is_nan() -> None:
    assert math.isnan(float(roc_auc(torch.rand(3), torch.zeros(3, dtype=torch.bool))))


def test_precision_and_recall_by_hand() -> None:
    # The top 2 of 4 hold one of three members.
    found = precision_recall_of_top(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, True, True]), 2)
    assert (float(found.precision), float(found.recall)) == (0.5, pytest.approx(1 / 3))


def test_each_rule_takes_the_first_maximum_of_its_own_quantity() -> None:
    history = [
        {
            "epoch": 0.0,
            "val/accuracy": 0.7,
            "val/worst_group_accuracy": 0.5,
            "test/worst_group_accuracy": 0.1,
        },
        {
            "epoch": 1.0,
            "val/accuracy": 0.9,
            "val/worst_group_accuracy": 0.2,
            "test/worst_group_accuracy": math.nan,
        },
        {
            "epoch": 2.0,
            "val/accuracy": 0.9,
            "val/worst_group_accuracy": 0.5,
            "test/worst_group_accuracy": 0.3,
        },
    ]
    chosen = {rule: entry["epoch"] for rule, entry in select_checkpoints(history).items()}
    assert chosen == {"val_average": 1, "val_worst_group": 0, "test_oracle": 2}
    assert "test_oracle" not in select_checkpoints([{"val/accuracy": 0.5}])
