"""Graded changes of inputs: corruptions of images and perturbations of texts, the same for the same example id."""

from surefoot.classification.shifts.images import CORRUPTIONS, corrupt, fit_shape
from surefoot.classification.shifts.texts import PERTURBATIONS, perturb

__all__ = ("CORRUPTIONS", "PERTURBATIONS", "corrupt", "fit_shape", "perturb")
