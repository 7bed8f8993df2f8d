"""The functional core of Surefoot: tensors, token ids and strings in, the same out."""

from surefoot.compatibility.torchvision_cpu import prepare_torchvision

__version__ = "0.1.0"

prepare_torchvision()
