"""Whether updates of weights in half precision are large enough to change them."""

import warnings

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

__all__ = ("LostUpdates", "watch_updates")

HALF = (torch.bfloat16, torch.float16)


class LostUpdates(UserWarning):
    """Most updates of weights were rounded away."""


class watch_updates:
    """Measure which share of an optimizer's first updates change their weights; warn where most are rounded away.

    Numbers of bfloat16 stand 1/256 of their size apart and those of float16 1/2048, so an update much below that is
    lost, however many steps are taken. Only trained weights in half precision are looked at, at most some thousand of
    each tensor, where there is a gradient and the learning rate is past half of its warm-up. Training is not changed.
    """

    def __init__(self, optimizer: Optimizer, n_steps: int = 5, n_weights: int = 4096) -> None:
        """Look at the next steps.

        Args:
            optimizer: The optimizer.
            n_steps: Steps that are looked at.
            n_weights: Most weights of a tensor that are looked at.
        """
        self.n_steps, self.n_weights = n_steps, n_weights
        self._n_done = 0
        self._before: list[tuple[Tensor, Tensor]] = []
        self._counts = [0, 0]  # changed weights, updates
        self._rate = 0.0
        if any(p.dtype in HALF for g in optimizer.param_groups for p in g["params"]):
            self._handles = (
                optimizer.register_step_pre_hook(self._remember),
                optimizer.register_step_post_hook(self._compare),
            )

    def _some(self, tensor: Tensor) -> Tensor:
        """Return some of this rank's elements, the same ones of a weight and its gradient."""
        local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach().reshape(-1)
        return local[:: max(1, len(local) // self.n_weights)]

    def _remember(self, optimizer: Optimizer, *_: object) -> None:
        self._before = []
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            if rate > 0 and rate >= 0.5 * float(group.get("initial_lr", rate)):
                self._rate = rate
                self._before += [(p, self._some(p).clone()) for p in group["params"] if p.dtype in HALF]

    def _compare(self, optimizer: Optimizer, *_: object) -> None:
        n_updates = 0
        for parameter, before in self._before:
            if parameter.grad is not None:
                has_gradient = self._some(parameter.grad) != 0
                changed = (self._some(parameter) != before) & has_gradient
                self._counts[0] += int(changed.sum())
                n_updates += int(has_gradient.sum())
        self._before = []
        self._counts[1] += n_updates
        self._n_done += n_updates > 0
        if self._n_done == self.n_steps:
            for handle in self._handles:
                handle.remove()
            self._report()

    def _report(self) -> None:
        share = self._counts[0] / self._counts[1]
        if share < 0.5:
            warnings.warn(
                f"only {share:.1%} of the first {self.n_steps} steps' updates changed their weight: at learning rate"
                f" {self._rate:g} the others are below the spacing of half-precision numbers and are lost. Keep the"
                " trained weights in float32 (dtype: float32 with trainer.precision: bf16-mixed), or raise the learning"
                " rate.",
                LostUpdates,
                stacklevel=2,
            )
