"""The 12-dimensional linear problem of the authors' notebook, all seeds of a method trained as one tensor program.

Reference: repository of arXiv 2302.02931 (toy notebooks); Setlur et al., ICLR 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.classification.groups import group_means
from surefoot.losses import (
    br_dro_example_weights,
    cvar_example_weights,
    group_dro_example_weights,
    loss_quantile,
    update_group_log_weights,
)

__all__ = ("METHODS", "LinearData", "LinearMethod", "LinearOutcome", "LinearProblem", "make_data", "train")


@dataclass(frozen=True)
class LinearProblem:
    """How the data are drawn; the labels' noise is a simple function of (core, label) by construction."""

    n_train: int = 500
    n_test: int = 1000
    majority: float = 0.95
    n_nuisance: int = 10
    label_noise: float = 0.0


class LinearData(NamedTuple):
    """Training and shifted test examples of every seed."""

    x: Tensor  # (seeds, examples, features)
    y: Tensor  # observed label in {0, 1}, (seeds, examples)
    minority: Tensor  # the spurious feature disagrees with the clean label, (seeds, examples)
    noisy: Tensor  # (seeds, examples)
    group: Tensor  # clean label x spurious sign, (seeds, examples)
    test_x: Tensor
    test_y: Tensor
    test_group: Tensor


def make_data(problem: LinearProblem, n_seeds: int) -> LinearData:
    """Draw every seed's data.

    y is uniform on {-1, +1}; core = 0.5 N(y, 0.5^2); spurious = y in the majority, -y in the minority; nuisance N(0,
    1).

    Args:
        problem: How to draw.
        n_seeds: Number of seeds, 0 to ``n_seeds - 1``.

    Returns:
        The data; the test set has half of its examples in the minority and clean labels.
    """
    drawn = []
    for seed in range(n_seeds):
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for n, majority in ((problem.n_train, problem.majority), (problem.n_test, 0.5)):
            sign = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
            minority = torch.rand(n, generator=generator) >= majority
            core = 0.5 * (sign + 0.5 * torch.randn(n, generator=generator))
            spurious = torch.where(minority, -sign, sign)
            nuisance = torch.randn(n, problem.n_nuisance, generator=generator)
            x = torch.cat([core[:, None], spurious[:, None], nuisance], 1)
            group = (sign > 0).long() * 2 + (spurious > 0).long()
            parts.append((x, (sign > 0).long(), minority, group))
        (x, clean, minority, group), (test_x, test_y, _, test_group) = parts
        noisy = torch.rand(problem.n_train, generator=generator) < problem.label_noise
        drawn.append((x, clean ^ noisy.long(), minority, noisy, group, test_x, test_y, test_group))
    return LinearData(*(torch.stack(column) for column in zip(*drawn, strict=True)))


@dataclass(frozen=True)
class LinearMethod:
    """A way to weight examples, with the settings of the reference table."""

    kind: Literal["erm", "cvar", "jtt", "br_dro", "group_dro"]
    n_steps: int = 10_000
    batch_size: int | None = 64  # None takes all examples
    weight_decay: float = 1e-2
    level: float = 0.1
    penalty: float = 0.1
    norm: Literal["l1", "l2", "none"] = "l2"


#: Fixed in advance, as the reference table says; learning rate 0.1 for learner and adversary.
METHODS: dict[str, LinearMethod] = {
    "ERM (no weight decay)": LinearMethod("erm", batch_size=None, weight_decay=0.0),
    "ERM": LinearMethod("erm", batch_size=None),
    "CVaR-DRO": LinearMethod("cvar"),
    "JTT": LinearMethod("jtt", batch_size=None),
    "BR-DRO (l1)": LinearMethod("br_dro", norm="l1", level=0.05),
    "BR-DRO (l2)": LinearMethod("br_dro", norm="l2", level=0.05),
    "BR-DRO (no penalty)": LinearMethod("br_dro", norm="none", penalty=0.0, level=0.05),
    "Group DRO": LinearMethod("group_dro", batch_size=128, weight_decay=1e-3),
}
_RATE, _JTT_STEPS, _JTT_UPWEIGHT, _GROUP_STEP = 0.1, 500, 20.0, 0.01


class LinearOutcome(NamedTuple):
    """What a method reached, one number a seed."""

    worst_group: Tensor  # accuracy on the shifted test set, (seeds,)
    average: Tensor  # (seeds,)
    weights: Tensor  # last weight of each training example, (seeds, examples)
    learner: Tensor  # logit of label 1 against 0: weights, then bias, (seeds, features + 1)
    adversary: Tensor | None  # one map per label, (seeds, labels, features)


def _train_loop(
    data: LinearData,
    method: LinearMethod,
    weigh: Callable[[Tensor, Tensor], Tensor],
    n_steps: int,
    draw: Callable[[], Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Run SGD on ``weigh(losses, rows)``-weighted sums of losses; returns weight and bias of every seed's learner."""
    n_seeds, _, n_features = data.x.shape
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n_seeds, n_features, 2, generator=generator) * (2 / n_features) ** 0.5
    bias = torch.zeros(n_seeds, 1, 2)
    for _ in range(n_steps):
        rows = draw()
        x, y = (data.x, data.y) if rows is None else (_rows(data.x, rows), _rows(data.y, rows))
        logits = x @ weight + bias
        losses = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")  # (seeds, batch)
        weights = weigh(losses, rows if rows is not None else torch.arange(x.shape[1]).expand(n_seeds, -1))
        slope = weights[..., None] * (logits.softmax(2) - F.one_hot(y, 2))  # gradient in the logits
        weight = weight - _RATE * (x.transpose(1, 2) @ slope + method.weight_decay * weight)
        bias = bias - _RATE * (slope.sum(1, keepdim=True) + method.weight_decay * bias)
    return weight, bias


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Take each seed's rows, ``(seeds, batch, ...)``."""
    return values[torch.arange(len(values))[:, None], rows]


def train(data: LinearData, method: LinearMethod) -> LinearOutcome:
    """Train every seed's learner and evaluate it on its shifted test set.

    Args:
        data: Data of all seeds.
        method: What to train.

    Returns:
        Accuracies and final example weights per seed.
    """
    seen = torch.zeros(data.y.shape)
    adversary = _Adversary(data, method) if method.kind == "br_dro" else None
    rule = adversary or _rule(data, method)

    def weigh(losses: Tensor, rows: Tensor) -> Tensor:
        weights = rule(losses, rows)
        if method.kind != "erm":
            seen.scatter_(1, rows, weights)
        return weights

    weight, bias = _train_loop(data, method, weigh, method.n_steps, _batches(data, method))
    correct = ((data.test_x @ weight + bias).argmax(2) == data.test_y).float()
    members = F.one_hot(data.test_group, 4).float()
    per_group = torch.einsum("st,stg->sg", correct, members) / members.sum(1)
    learner = torch.cat([weight[..., 1] - weight[..., 0], bias[..., 1] - bias[..., 0]], dim=1)
    if adversary is None:
        return LinearOutcome(per_group.min(1).values, correct.mean(1), seen, learner, None)
    weights = _adversary_weights(adversary.maps, data.x, F.one_hot(data.y, 2).float())
    return LinearOutcome(per_group.min(1).values, correct.mean(1), weights, learner, adversary.maps)


def _batches(data: LinearData, method: LinearMethod) -> Callable[[], Tensor | None]:
    """Return what draws each seed's next batch, ``(seeds, batch)``; none where all examples are taken."""
    generator = torch.Generator().manual_seed(1)
    n_seeds, n_train = data.y.shape

    def draw() -> Tensor | None:
        if method.batch_size is None:
            return None
        if method.kind == "group_dro":  # groups evenly, with replacement
            counts = F.one_hot(data.group, 4).sum(1).clamp_min(1)
            return torch.multinomial(1 / counts.gather(1, data.group), method.batch_size, True, generator=generator)
        return torch.randint(0, n_train, (n_seeds, method.batch_size), generator=generator)

    return draw


#: From losses and their examples' numbers, both ``(seeds, batch)``, to weights of that shape.
Rule = Callable[[Tensor, Tensor], Tensor]


def _rule(data: LinearData, method: LinearMethod) -> Rule:
    """Return how a method without an adversary weights examples."""
    if method.kind == "cvar":
        best_response = torch.vmap(lambda losses: cvar_example_weights(losses, method.level))
        return lambda losses, rows: best_response(losses)
    if method.kind == "jtt":
        return _jtt(data, method)
    return _group_dro(data) if method.kind == "group_dro" else _uniform


def _uniform(losses: Tensor, rows: Tensor) -> Tensor:
    return torch.full_like(losses, 1 / losses.shape[1])


def _jtt(data: LinearData, method: LinearMethod) -> Rule:
    """Return fixed weights that raise the examples which a first, short training gets wrong."""
    weight, bias = _train_loop(data, method, _uniform, _JTT_STEPS, _batches(data, method))
    errors = ((data.x @ weight + bias).argmax(2) != data.y).float()
    static = 1 + (_JTT_UPWEIGHT - 1) * errors
    static = static / static.sum(1, keepdim=True)
    return lambda losses, rows: static


def _group_dro(data: LinearData) -> Rule:
    """Return weights that follow the groups' losses."""
    log_q = torch.zeros(len(data.y), 4).log_softmax(1)
    means = torch.vmap(lambda losses, group: group_means(losses, group, 4))
    update = torch.vmap(lambda q, values: update_group_log_weights(q, values, _GROUP_STEP))
    spread = torch.vmap(group_dro_example_weights)

    def weigh(losses: Tensor, rows: Tensor) -> Tensor:
        nonlocal log_q
        group = _rows(data.group, rows)
        log_q = update(log_q, means(losses, group))
        return spread(log_q, group)

    return weigh


class _Adversary:
    """BR-DRO's adversary, one linear map per label, trained beside the learner."""

    def __init__(self, data: LinearData, method: LinearMethod) -> None:
        self.data, self.method = data, method
        n_seeds, _, n_features = data.x.shape
        self.maps = torch.zeros(n_seeds, 2, n_features)
        self.normalise = torch.vmap(lambda w: br_dro_example_weights(w, method.level))
        self.quantile = torch.vmap(lambda losses: loss_quantile(losses, method.level))

    def __call__(self, losses: Tensor, rows: Tensor) -> Tensor:
        """Go one step up on ``sum w (l - eta) - penalty * complexity``, by hand: w' = w (1 - w)."""
        x, y = _rows(self.data.x, rows), _rows(self.data.y, rows)
        one_hot = F.one_hot(y, 2).float()
        gap = losses - self.quantile(losses)[:, None]
        weights = _adversary_weights(self.maps, x, one_hot)
        slope = (gap * weights * (1 - weights))[..., None] * one_hot  # (seeds, batch, labels)
        ascent = slope.transpose(1, 2) @ x
        if self.method.norm == "l1":
            ascent = ascent - self.method.penalty * self.maps.sign()
        elif self.method.norm == "l2":
            ascent = ascent - self.method.penalty * 2 * self.maps
        self.maps = self.maps + _RATE * ascent
        return self.normalise(_adversary_weights(self.maps, x, one_hot))


def _adversary_weights(adversary: Tensor, x: Tensor, one_hot: Tensor) -> Tensor:
    """Return the sigmoid of each label's linear map, ``(seeds, batch)``."""
    return ((x @ adversary.transpose(1, 2)) * one_hot).sum(2).sigmoid()


def with_penalty(method: LinearMethod, penalty: float) -> LinearMethod:
    """Return the method at another penalty on complexity."""
    return replace(method, penalty=penalty)
