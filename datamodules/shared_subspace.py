"""Made-up regression tasks that share a subspace."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datamodules.private import PrivateDataModule
from datamodules.splits import TensorExamples
from surefoot.errors import ConfigError
from surefoot.privacy.estimators import PublicData
from surefoot.privacy.noise import NoiseSource
from surefoot.privacy.shared_subspace import SubspaceProblem, make_problem

__all__ = ("SharedSubspaceDataModule",)

_PROBLEM = SubspaceProblem()


class SharedSubspaceDataModule(PrivateDataModule):
    """One private regression task, or one of several, and public tasks in the same subspace or a turned one.

    Attributes:
        true_weight: Of the private task, ``(d,)``; valid after `setup`.
    """

    def __init__(
        self,
        source: NoiseSource,
        problem: SubspaceProblem = _PROBLEM,
        private_task: int = 0,
        n_eval: int = 1000,
        **loading: Any,
    ) -> None:
        """Initialize the tasks.

        Args:
            source: Where the samples of a step come from.
            problem: Sizes and noise of the tasks.
            private_task: Which of the private tasks this run learns.
            n_eval: Samples of val and test each, drawn beside the task's training samples.
            loading: Arguments of `PrivateDataModule`.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__(source, **loading)
        if not 0 <= private_task < problem.n_private_tasks or n_eval < 1:
            raise ConfigError(
                f"private_task must be in [0, {problem.n_private_tasks}) and n_eval at least 1,"
                f" got {private_task} and {n_eval}."
            )
        self.problem = problem
        self.private_task, self.n_eval = private_task, n_eval
        self.true_weight = torch.zeros(0)
        self._public: PublicData | None = None

    def build(self) -> dict[str, TensorExamples]:
        """Draw the tasks."""
        sizes = [self.problem.n_private, self.n_eval, self.n_eval]
        drawn = make_problem(replace(self.problem, n_private=sum(sizes)), self.seed)
        self._public = PublicData(
            drawn.public_inputs.float(),
            drawn.public_target.float(),
            drawn.public_task,
            drawn.basis.float(),
        )
        self.true_weight = drawn.weights[self.private_task].float()
        inputs, target = (t[self.private_task].float() for t in (drawn.inputs, drawn.target))
        parts: list[tuple[Tensor, Tensor]] = list(zip(inputs.split(sizes), target.split(sizes), strict=True))
        return {
            name: TensorExamples(input=x, target=y)
            for name, (x, y) in zip(("train", "val", "test"), parts, strict=True)
        }

    def public(self) -> PublicData:
        """Return the public tasks."""
        assert self._public is not None
        return self._public
