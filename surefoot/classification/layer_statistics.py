"""What happens to a signal from layer to layer: norms, subspaces, and the outputs that remain when it is taken away.

Reference: Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873, section 5 (mechanisms of reversion).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surefoot.errors import ConfigError

__all__ = (
    "LayerProbe",
    "LayerSums",
    "constants_without_signal",
    "energy_within",
    "principal_subspace",
    "row_space",
    "weight_layers",
)

#: Of each layer's many positions, this many are looked at, other ones in other rows of a batch.
_N_POSITIONS = 8


def weight_layers(network: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return a network's convolutions and linear layers by name, in their order.

    Args:
        network: The network.
        names: Which ones; all by default.

    Raises:
        ConfigError: If a name is not that of a convolution or linear layer.
    """
    found = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    unknown = [n for n in names or () if n not in found]
    if unknown or not found:
        shown = ", ".join(list(found)[:12]) or "none"
        raise ConfigError(f"no convolution or linear layer {', '.join(unknown) or 'at all'}; the network has {shown}.")
    return {n: m for n, m in found.items() if names is None or n in names}


class LayerSums(NamedTuple):
    """Sums over a set's examples, which add up over batches and ranks."""

    norms: Tensor  # of the layer's output without its bias, float64 scalar
    n_examples: Tensor
    moments: Tensor | None  # outer products of inputs of length 1, (features, features); none where too wide
    n_inputs: Tensor


class LayerProbe:
    """Watches layers through forward hooks, without keeping or copying activations.

    Of each layer: the norm of what it makes of its input (output minus bias), and the second moment of its inputs (for
    a convolution, of the patches that it sees), each scaled to length 1. Memory per layer is O(features^2).
    """

    def __init__(
        self,
        layers: dict[str, nn.Module],
        max_features: int = 576,
        n_inputs: int = 4096,
    ) -> None:
        """Initialize the probe.

        Args:
            layers: Layers by name.
            max_features: Wider inputs (patches: channels x height x width of the kernel) have no second moment taken.
            n_inputs: Inputs per layer and set whose second moment is taken.
        """
        self.layers, self.max_features, self.n_inputs = layers, max_features, n_inputs
        self.sums: dict[str, dict[str, LayerSums]] = {}  # set -> layer -> sums
        self._handles: list[RemovableHandle] = []
        self._set: str | None = None
        self._n_seen: dict[tuple[str, str], int] = {}

    def attach(self) -> None:
        """Put the hooks on."""
        if not self._handles:
            self._handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self.layers.items()]

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def watch(self, set_name: str | None) -> None:
        """Count what comes next to this set; to none of them if none is given."""
        self._set = set_name

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._set is not None:
                self._observe(self._set, name, layer, inputs[0].detach(), output.detach())

        return hook

    def _observe(self, set_name: str, name: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> None:
        norms = _norms_without_bias(layer, output)
        n_seen = self._n_seen.get((set_name, name), 0)
        moments, n_taken = None, 0
        if _n_features(layer) <= self.max_features and n_seen < self.n_inputs:
            rows = _inputs_seen(layer, inputs)[: self.n_inputs - n_seen].float()
            rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-12)
            moments, n_taken = rows.T @ rows, len(rows)
            self._n_seen[set_name, name] = n_seen + n_taken
        before = self.sums.setdefault(set_name, {}).get(name)
        counts = torch.tensor([len(norms), n_taken], device=norms.device)
        total = norms.sum(dtype=torch.float64)
        if before is None:
            width = _n_features(layer)
            if moments is None and width <= self.max_features:
                moments = norms.new_zeros(width, width, dtype=torch.float32)
            self.sums[set_name][name] = LayerSums(total, counts[0], moments, counts[1])
            return
        if moments is not None and before.moments is not None:
            before.moments.add_(moments)
        self.sums[set_name][name] = LayerSums(
            before.norms + total,
            before.n_examples + counts[0],
            before.moments,
            before.n_inputs + counts[1],
        )

    def reset(self) -> None:
        """Forget all sums."""
        self.sums, self._n_seen = {}, {}


def _n_features(layer: nn.Module) -> int:
    """Return the length of one input: a vector, or a patch under the kernel of all channels of a group."""
    if isinstance(layer, nn.Conv2d):
        return layer.weight[0].numel() if layer.groups == 1 else 1 << 62  # grouped: left out
    return int(layer.weight.shape[1])  # type: ignore[index]


def _norms_without_bias(layer: nn.Module, output: Tensor) -> Tensor:
    """Return the norm of output minus bias per example, ``(batch,)``, without storing a large difference."""
    flat = output.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float32)
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    if bias is None:
        return norms
    bias = bias.detach().float()
    if isinstance(layer, nn.Conv2d):
        summed, n_places = output.float().sum((2, 3)), output[0, 0].numel()
    else:
        summed = output.float().flatten(1, -2).sum(1) if output.ndim > 2 else output.float()
        n_places = flat.shape[1] // len(bias)
    if n_places == 1:
        norms = torch.linalg.vector_norm(summed - bias, dim=1)
        return norms
    return (norms.square() - 2 * (summed @ bias) + n_places * bias.square().sum()).clamp_min(0).sqrt()


def _inputs_seen(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return one input per example, ``(batch, features)``: a vector, or the patch at one of a few fixed positions."""
    if not isinstance(layer, nn.Conv2d):
        return inputs if inputs.ndim == 2 else inputs.flatten(1, -2)[:, 0]  # the first token
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    missing = [max(0, r - s) for r, s in zip(reach, inputs.shape[-2:], strict=True)]
    if any(missing):
        inputs = nn.functional.pad(inputs, (0, missing[1], 0, missing[0]))
    rows = []
    for position in range(min(_N_POSITIONS, len(inputs))):
        starts = [
            round(fraction % 1 * (size - r))  # a low-discrepancy sequence: spread evenly
            for fraction, size, r in zip(
                (0.5 + 0.7549 * position, 0.5 + 0.5698 * position), inputs.shape[-2:], reach, strict=True
            )
        ]
        top, left = starts
        patch = inputs[
            position::_N_POSITIONS,
            :,
            top : top + reach[0] : layer.dilation[0],
            left : left + reach[1] : layer.dilation[1],
        ]
        rows.append(patch.flatten(1))
    return torch.cat(rows)


def principal_subspace(moments: Tensor, energy: float = 0.95) -> Tensor:
    """Return an orthonormal basis of the leading directions that hold a share of a second moment's trace.

    Args:
        moments: Sum of outer products, ``(features, features)``.
        energy: Share of the trace in (0, 1].

    Returns:
        Basis, ``(features, directions)``, float64.
    """
    values, vectors = torch.linalg.eigh(moments.double())
    values, basis = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values.cumsum(0) / values.sum().clamp_min(1e-300)
    kept: Tensor = basis[:, : int((share < energy - 1e-9).sum()) + 1]
    return kept


def row_space(layer: nn.Module, energy: float = 0.95) -> Tensor:
    """Return an orthonormal basis of what a layer reads: right singular vectors of its weight.

    Components are kept until the square root of the cumulative share of squared singular values exceeds ``energy``, as
    in the authors' code.

    Returns:
        Basis, ``(features, directions)``, float64.
    """
    weight: Tensor = layer.weight.detach().flatten(1).double()  # type: ignore[operator]
    rows: Tensor
    _, values, rows = torch.linalg.svd(weight, full_matrices=False)
    share = (values.square().cumsum(0) / values.square().sum().clamp_min(1e-300)).sqrt()
    return rows[: int((share <= energy).sum()) + 1].T


def energy_within(moments: Tensor, basis: Tensor) -> Tensor:
    """Return the share of a second moment's trace inside a subspace, in [0, 1]; NaN for no moment at all.

    Of inputs scaled to length 1 it is the mean over inputs of ``|P x|^2 / |x|^2``.
    """
    basis = basis.to(moments.device)
    return (basis * (moments.double() @ basis)).sum() / moments.double().trace()


@contextmanager
def _silenced(module: nn.Module) -> Iterator[list[bool]]:
    """Let a module see zeros instead of its first input; yields a list that is not empty once that has happened.

    Inputs that are no floating-point tensor (token ids, a dict) are left alone.
    """
    happened: list[bool] = []

    def silence(
        _: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        signal = inputs[0] if inputs else next(iter(named.values()), None)
        if not isinstance(signal, Tensor) or not signal.is_floating_point():
            return None
        happened.append(True)
        silent = torch.zeros_like(signal)
        if inputs:
            return (silent, *inputs[1:]), named
        return inputs, {**named, next(iter(named)): silent}

    handle = module.register_forward_pre_hook(silence, with_kwargs=True)
    try:
        yield happened
    finally:
        handle.remove()


@torch.no_grad()
def constants_without_signal(
    network: nn.Module, forward: Callable[[object], Tensor], inputs: object, max_depth: int = 4
) -> dict[str, Tensor]:
    """Return the outputs that accumulated biases make when the signal is cut off before a module.

    A module is a cut where the outputs no longer depend on the input once its own input is zero; where the signal gets
    around it (within a residual block, say) it is left out. Modules with the same input are named once, by the
    outermost.

    Args:
        network: The network.
        forward: From inputs to outputs ``(batch, outputs)``.
        inputs: At least two different examples, as `forward` takes them.
        max_depth: How deep modules may lie within the network.

    Returns:
        Name -> outputs ``(outputs,)``, from the first layer to the last.
    """
    containers = {
        name.rsplit(".", depth)[0] for name, _ in weight_layers(network).items() for depth in range(name.count(".") + 1)
    }
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not name or name not in containers or name.count(".") >= max_depth:
            continue
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        with _silenced(module) as happened:
            outputs = forward(inputs).float()
        if (
            not happened
            or not bool(torch.isfinite(outputs).all())
            or not torch.allclose(outputs, outputs[:1].expand_as(outputs), rtol=1e-4, atol=1e-5)
        ):
            continue
        around = (o for n, o in found.items() if name.startswith(f"{n}."))
        if not any(outputs[0].equal(other) for other in around):
            found[name] = outputs[0]
    return found
