"""Linear regression tasks whose weights share a subspace: public ones with many samples, private ones with few.

Reference: Thaker et al., arXiv 2312.15551, section on the model: ``y = x^T B a_t + noise``, B of k orthonormal
directions in d dimensions.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.privacy.risk import orthonormal

__all__ = ("SharedSubspace", "SubspaceProblem", "make_problem")


@dataclass(frozen=True)
class SubspaceProblem:
    """Sizes and noise of a problem.

    Args:
        d: Dimensions.
        k: Directions of the subspace.
        n_public_tasks: Public tasks.
        n_public_per_task: Samples of each.
        n_private: Training samples of each private task.
        n_private_tasks: Private tasks (users).
        noise: Deviation of the labels' noise.
        misalignment: Sine of the angle of each private direction to the public subspace.

    Raises:
        ConfigError: If a number is out of range.
    """

    d: int = 25
    k: int = 5
    n_public_tasks: int = 20
    n_public_per_task: int = 100
    n_private: int = 1000
    n_private_tasks: int = 1
    noise: float = 0.5
    misalignment: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        sizes = (self.n_public_tasks, self.n_public_per_task, self.n_private, self.n_private_tasks)
        if not 1 <= self.k <= self.d or min(sizes) < 1 or not 0 <= self.noise < math.inf:
            raise ConfigError(
                "a shared-subspace problem needs 1 <= k <= d, at least one of each task and sample, and a finite noise"
                f" of at least 0, got {self}."
            )
        if not 0 <= self.misalignment <= 1 or (self.misalignment > 0 and 2 * self.k > self.d):
            raise ConfigError(f"misalignment must be in [0, 1], and 0 where 2 k > d, got {self.misalignment}.")


class SharedSubspace(NamedTuple):
    """A problem's data, float64."""

    public_inputs: Tensor  # (public, d)
    public_target: Tensor  # (public,)
    public_task: Tensor  # (public,)
    inputs: Tensor  # private, (tasks, n_private, d)
    target: Tensor  # (tasks, n_private)
    weights: Tensor  # true, (tasks, d), of norm 1
    basis: Tensor  # of the private tasks, (d, k)


def make_problem(problem: SubspaceProblem, seed: int) -> SharedSubspace:
    """Draw a problem: standard normal inputs, public coefficients of expected norm 1, private ones of norm 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    both = orthonormal(problem.d, min(problem.d, 2 * problem.k), generator)
    public, other = both[:, : problem.k], both[:, problem.k :]
    basis = public
    if problem.misalignment > 0:
        cosine = math.sqrt(1 - problem.misalignment**2)
        basis = cosine * public + problem.misalignment * other
    alphas = normal(problem.n_public_tasks, problem.k) / math.sqrt(problem.k)
    task = torch.arange(problem.n_public_tasks).repeat_interleave(problem.n_public_per_task)
    x = normal(len(task), problem.d)
    y = (x * (alphas @ public.T)[task]).sum(1) + problem.noise * normal(len(task))
    own = normal(problem.n_private_tasks, problem.k)
    weights = own / own.norm(dim=1, keepdim=True) @ basis.T
    inputs = normal(problem.n_private_tasks, problem.n_private, problem.d)
    target = (inputs @ weights[:, :, None])[:, :, 0]
    target = target + problem.noise * normal(*target.shape)
    return SharedSubspace(x, y, task, inputs, target, weights, basis)
