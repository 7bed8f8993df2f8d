"""Estimators of a subspace from public data, chosen by class path."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.privacy.subspace import (
    Basis,
    alternating_minimisation,
    method_of_moments,
    principal_directions,
    tasks_svd,
)

__all__ = (
    "AlternatingMinimisation",
    "MethodOfMoments",
    "PrincipalDirections",
    "PublicData",
    "SubspaceEstimator",
    "TasksSVD",
    "TrueSubspace",
)


class PublicData(NamedTuple):
    """What a datamodule knows without touching private examples."""

    inputs: Tensor  # (public, features)
    target: Tensor | None = None  # (public,)
    task: Tensor | None = None  # (public,)
    basis: Tensor | None = None  # the true subspace, where the data are made up


class SubspaceEstimator(ABC):
    """Finds the directions in which a private model may lie, from public data alone."""

    def __init__(self, n_directions: int) -> None:
        """Initialize the estimator.

        Args:
            n_directions: Directions of the subspace, k.
        """
        self.n_directions = n_directions

    @abstractmethod
    def estimate(self, data: PublicData) -> Basis:
        """Return an orthonormal basis, ``(features, directions)``."""

    def _tasks(self, data: PublicData) -> tuple[Tensor, Tensor]:
        if data.target is None or data.task is None:
            raise ConfigError(
                f"{type(self).__name__} needs public regression tasks, and the data have public inputs only:"
                " take PrincipalDirections."
            )
        return data.target, data.task


class MethodOfMoments(SubspaceEstimator):
    """Leading eigenvectors of ``mean y^2 x x^T`` over all public tasks."""

    def estimate(self, data: PublicData) -> Basis:
        """Return the basis."""
        return method_of_moments(data.inputs, self._tasks(data)[0], self.n_directions)


class TasksSVD(SubspaceEstimator):
    """Leading directions of the public tasks' least-squares solutions."""

    def estimate(self, data: PublicData) -> Basis:
        """Return the basis."""
        return tasks_svd(data.inputs, *self._tasks(data), self.n_directions)


class AlternatingMinimisation(SubspaceEstimator):
    """Joint least squares over all public tasks."""

    def estimate(self, data: PublicData) -> Basis:
        """Return the basis."""
        return alternating_minimisation(data.inputs, *self._tasks(data), self.n_directions)


class PrincipalDirections(SubspaceEstimator):
    """Leading directions of the public inputs themselves, such as an encoder's features of public classes."""

    def estimate(self, data: PublicData) -> Basis:
        """Return the basis."""
        return principal_directions(data.inputs, self.n_directions)


class TrueSubspace(SubspaceEstimator):
    """The subspace that made the data, unknown in practice: an upper bound on what an estimator can give."""

    def __init__(self) -> None:
        """Initialize the estimator."""
        super().__init__(0)

    def estimate(self, data: PublicData) -> Basis:
        """Return the basis.

        Raises:
            ConfigError: If the data are real.
        """
        if data.basis is None:
            raise ConfigError("real data have no true subspace.")
        return data.basis
