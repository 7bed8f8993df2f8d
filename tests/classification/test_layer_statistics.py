import pytest
import torch
from torch import Tensor, nn

from surefoot.classification.layer_statistics import (
    LayerProbe,
    constants_without_signal,
    energy_within,
    principal_subspace,
    row_space,
    weight_layers,
)
from surefoot.classification.networks import MLP, CIFARResNet, Classifier, ConvNet
from surefoot.classification.pretrained_encoders import TimmEncoder
from surefoot.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 2, stride=2, bias=False),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(5 * 9, 3),
    )


def observed(n_batches: int, **settings: int) -> tuple[nn.Sequential, Tensor, LayerProbe]:
    net, images = network(), torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    probe = LayerProbe(weight_layers(net), **settings)
    probe.attach()
    probe.watch("a")
    with torch.no_grad():
        for part in images.chunk(n_batches):
            net(part)
    probe.detach()
    return net, images, probe


def test_norms_equal_outputs_minus_biases() -> None:
    net, images, probe = observed(3)
    with torch.no_grad():
        hidden = images
        for name, layer in net.named_children():
            out = layer(hidden)
            if name in probe.sums["a"]:
                bias = layer.bias
                clean = out - (bias[:, None, None] if out.ndim == 4 else bias) if bias is not None else out
                expected = clean.flatten(1).norm(dim=1).double().sum()
                sums = probe.sums["a"][name]
                torch.testing.assert_close(sums.norms, expected, rtol=1e-5, atol=0)
                assert int(sums.n_examples) == 24
            hidden = out


def test_moments_are_those_of_real_patches_and_stop_at_the_limit() -> None:
    net, images, probe = observed(1)
    sums = probe.sums["a"]["5"]
    with torch.no_grad():
        features = net[:5](images)
    unit = torch.nn.functional.normalize(features)
    assert sums.moments is not None
    torch.testing.assert_close(sums.moments, unit.T @ unit, rtol=1e-4, atol=1e-5)
    patches = probe.sums["a"]["0"]
    assert patches.moments is not None
    assert patches.moments.shape == (18, 18)
    assert float(patches.moments.trace()) == pytest.approx(24, rel=1e-5), "24 of length 1"
    # each row of a batch shows one real patch: the moment lies in the span of all patches' outer products
    unfolded = torch.nn.functional.unfold(images, 3)  # every patch that lies inside
    unit = torch.nn.functional.normalize(unfolded, dim=1)
    largest = float(torch.linalg.eigvalsh(torch.einsum("bdp,bep->de", unit, unit))[-1])
    assert float(torch.linalg.eigvalsh(patches.moments)[-1]) <= largest
    _, _, limited = observed(4, n_inputs=10)
    assert int(limited.sums["a"]["5"].n_inputs) == 10
    assert int(limited.sums["a"]["5"].n_examples) == 24
    _, _, narrow = observed(2, max_features=20)
    assert narrow.sums["a"]["5"].moments is None
    assert narrow.sums["a"]["0"].moments is not None


def test_batches_add_up_and_sets_stay_apart() -> None:
    _, _, whole = observed(1)
    _, _, parts = observed(3)  # 8 rows a batch: the same positions come up
    for name, sums in whole.sums["a"].items():
        torch.testing.assert_close(parts.sums["a"][name].norms, sums.norms, rtol=1e-6, atol=0)
        torch.testing.assert_close(parts.sums["a"][name].moments, sums.moments)
    net, images, probe = observed(1)
    before = {k: float(v.norms) for k, v in probe.sums["a"].items()}
    probe.attach()
    probe.watch(None)
    with torch.no_grad():
        net(images)
    probe.watch("b")
    with torch.no_grad():
        net(2 * images)
    assert {k: float(v.norms) for k, v in probe.sums["a"].items()} == before
    first = probe.sums["b"]["0"].norms / probe.sums["a"]["0"].norms
    assert float(first) == pytest.approx(2, rel=1e-5), "without its bias the first layer is linear"
    probe.detach()
    assert not any(m._forward_hooks for m in net.modules())


def test_the_probe_keeps_no_activation() -> None:
    """Sums stay as large as they were, however many batches pass."""
    sizes = []
    for n_batches in (1, 12):
        _, _, probe = observed(n_batches)
        sizes.append(sum(t.numel() for s in probe.sums["a"].values() for t in s if t is not None))
    assert sizes[0] == sizes[1]


def test_subspaces_by_hand() -> None:
    moments = torch.diag(torch.tensor([6.0, 3.0, 1.0, 0.0]))
    basis = principal_subspace(moments, 0.9)
    assert basis.shape == (4, 2)
    assert float(energy_within(moments, basis)) == pytest.approx(0.9)
    assert float(energy_within(torch.diag(torch.tensor([0.0, 0, 1, 1])), basis)) == pytest.approx(0)
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[3.0, 0, 0, 0], [0, 1.0, 0, 0]])
    # squared singular values 9 and 1: sqrt(0.9) = 0.949 does not exceed 0.95, both are kept
    assert row_space(layer, 0.95).shape == (4, 2)
    assert row_space(layer, 0.9).shape == (4, 1)
    assert float(energy_within(moments, row_space(layer, 0.9))) == pytest.approx(0.6)
    assert bool(energy_within(torch.zeros(4, 4), basis).isnan())


def test_constants_of_an_mlp_by_hand() -> None:
    torch.manual_seed(0)
    net = Classifier(MLP(5, (4,)), 3)
    inputs = torch.randn(2, 5)
    found = constants_without_signal(net, lambda x: net(x)[0], inputs)
    bias = net.encoder.layers[1].bias  # type: ignore[union-attr,index]
    torch.testing.assert_close(found["head"], net.head.bias)
    torch.testing.assert_close(found["encoder"], net.head(bias.relu()))
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_signals_that_get_around_are_no_cuts() -> None:
    torch.manual_seed(0)
    net = Classifier(CIFARResNet(depth=8, width=4), 3).eval()
    for module in net.modules():  # other biases than the zeros of a new network
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    inputs = torch.randn(2, 3, 16, 16)
    found = constants_without_signal(net, lambda x: net(x)[0], inputs)
    assert "encoder.stages" in found
    assert "encoder.stages.2" in found
    assert "head" in found
    assert not any("conv" in name for name in found), "within blocks the signal passes by"
    with torch.no_grad():
        maps = net.encoder.stages[2](torch.zeros(1, 8, 8, 8))  # type: ignore[union-attr,index]
        expected = net.head(maps.mean((2, 3)))[0]
    torch.testing.assert_close(found["encoder.stages.2"], expected)


def test_token_ids_are_left_alone() -> None:
    torch.manual_seed(0)

    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.inner = nn.Embedding(9, 4), MLP(4, (4,))
            self.head = nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.inner(self.embedding(ids).mean(1)))

    net = Texts()
    found = constants_without_signal(net, net, torch.tensor([[1, 2], [3, 4]]))
    assert list(found) == ["inner", "head"]


def test_layers_are_named() -> None:
    net = Classifier(ConvNet(1, 12, (2,), 4), 3)
    assert list(weight_layers(net)) == ["encoder.layers.0", "encoder.layers.4", "head"]
    assert list(weight_layers(net, ["head"])) == ["head"]
    with pytest.raises(ConfigError, match="no convolution or linear layer nose; the network has enc"):
        weight_layers(net, ["nose"])
    with pytest.raises(ConfigError, match="at all; the network has none"):
        weight_layers(nn.ReLU())


def test_grouped_and_dilated_convolutions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 3, dilation=2), nn.Conv2d(2, 2, 7, padding=3))
    probe = LayerProbe(weight_layers(net))
    probe.attach()
    probe.watch("a")
    with torch.no_grad():
        net(torch.randn(5, 4, 9, 9))
    assert probe.sums["a"]["0"].moments is None, "a grouped layer reads each group by itself"
    assert probe.sums["a"]["1"].moments is not None
    assert probe.sums["a"]["2"].moments is not None, "a kernel larger than its input is padded"


@pytest.mark.slow
def test_a_real_network_of_timm() -> None:
    torch.manual_seed(0)
    net = Classifier(TimmEncoder("resnet18"), 4).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
    found = constants_without_signal(net, lambda x: net(x)[0], torch.randn(2, 3, 64, 64), max_depth=3)
    assert {"encoder.body.layer2", "encoder.body.layer4", "head"} <= set(found)
