"""The linear toy: its data, and that its tensor program is what a plain loop would do."""

import pytest
import torch

from surefoot.reproduce.tasks.linear import (
    METHODS,
    LinearData,
    LinearMethod,
    LinearProblem,
    make_data,
    train,
    with_penalty,
)


def test_toy_data_are_what_the_specification_says() -> None:
    data = make_data(LinearProblem(n_train=4000, label_noise=0.1), 2)
    assert data.x.shape == (2, 4000, 12)
    clean = torch.where(data.minority, -data.x[..., 1], data.x[..., 1])
    assert bool(((clean > 0) == ((data.y == 1) ^ data.noisy)).all())
    assert float(data.minority.float().mean()) == pytest.approx(0.05, abs=0.01)
    assert float(data.noisy.float().mean()) == pytest.approx(0.1, abs=0.01)
    core = data.x[..., 0] * clean
    assert float(core.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(core.std()) == pytest.approx(0.25, abs=0.02)
    again = make_data(LinearProblem(n_train=4000, label_noise=0.1), 1)
    assert again.x[0].equal(data.x[0]), "a seed's data do not depend on how many seeds there are"


@pytest.mark.parametrize("name", METHODS)
def test_toy_seeds_do_not_see_each_other(name: str) -> None:
    """All seeds are one tensor program: shuffling another seed's data changes nothing for the first."""
    from dataclasses import replace

    method = replace(METHODS[name], n_steps=30)
    data = make_data(LinearProblem(n_train=100), 2)
    spoilt = LinearData(*(torch.stack([t[0], t[1].flip(0)]) for t in data))
    first, second = train(data, method), train(spoilt, method)
    torch.testing.assert_close(first.worst_group[0], second.worst_group[0])
    torch.testing.assert_close(first.weights[0], second.weights[0])


def test_toy_erm_equals_a_plain_autograd_loop() -> None:
    method = LinearMethod("erm", n_steps=20, batch_size=None, weight_decay=0.01)
    data = make_data(LinearProblem(n_train=60), 1)
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(1, 12, 2, generator=generator) * (2 / 12) ** 0.5)[0].requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, weight_decay=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(data.x[0] @ weight + bias, data.y[0]).backward()
        optimizer.step()
    right = (data.test_x[0] @ weight + bias).argmax(1) == data.test_y[0]
    assert float(train(data, method).average[0]) == pytest.approx(float(right.float().mean()), abs=1e-6)


def test_toy_penalty_bounds_the_adversary() -> None:
    from dataclasses import replace

    data = make_data(LinearProblem(), 2)
    spread = []
    for penalty in (0.03, 3.0):
        method = replace(with_penalty(METHODS["BR-DRO (l2)"], penalty), n_steps=300)
        spread.append(float(train(data, method).weights.std()))
    assert spread[1] < spread[0]
