"""Shifts: sets of another distribution than the training data; one kind a file, arguments of every datamodule."""

from datamodules.shifts.base import Shift
from datamodules.shifts.corruption import Corruption
from datamodules.shifts.held_out import HeldOut
from datamodules.shifts.other_dataset import OtherDataset
from datamodules.shifts.text_perturbation import TextPerturbation

__all__ = ("Corruption", "HeldOut", "OtherDataset", "Shift", "TextPerturbation")
