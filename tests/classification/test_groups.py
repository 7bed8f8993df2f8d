import pytest
import torch

from surefoot.classification.groups import combine_attributes, group_counts, group_means, group_names, membership


def test_combining_numbers_every_pair_once_and_in_the_order_of_the_names() -> None:
    y, a = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    assert combine_attributes([y, a], [3, 2]).tolist() == [0, 1, 2, 3, 4, 5]
    assert group_names([("y", 3), ("a", 2)])[3] == "y=1,a=1"


def test_combining_refuses_mismatched_columns() -> None:
    with pytest.raises(ValueError, match="got 1 columns and 2 sizes"):
        combine_attributes([torch.zeros(2, dtype=torch.long)], [2, 2])


@pytest.mark.parametrize(("batch", "n_groups"), [(0, 2), (1, 1), (30, 4)])
def test_means_and_counts_equal_a_loop(batch: int, n_groups: int) -> None:
    values, group = torch.rand(batch, dtype=torch.float64), torch.randint(0, n_groups, (batch,))
    for g in range(n_groups):
        members = [float(v) for v, h in zip(values, group, strict=True) if int(h) == g]
        assert int(group_counts(group, n_groups)[g]) == len(members)
        expected = sum(members) / len(members) if members else 0.0
        assert float(group_means(values, group, n_groups)[g]) == pytest.approx(expected, rel=1e-9)


def test_membership_takes_indices_or_a_table() -> None:
    table = torch.tensor([[True, True], [False, False]])
    assert membership(table, 2).equal(table)
    assert membership(torch.tensor([1, 0]), 2).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("bad", [torch.tensor([0, 2]), torch.tensor([-1])])
def test_unknown_groups_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"group indices must be in \[0, 2\)"):
        membership(bad, 2)
    with pytest.raises(ValueError, match="must have shape"):
        membership(torch.zeros(2, 3), 2)


def test_shapes_are_checked() -> None:
    with pytest.raises(Exception, match="batch"):
        group_means(torch.zeros(3), torch.zeros(2, dtype=torch.long), 2)
