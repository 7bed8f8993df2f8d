"""Evaluation mode for a while: every module goes back into the mode that it was in, not all into one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ("evaluation_mode",)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and all its submodules into evaluation mode, and each back into its own mode afterwards.

    Args:
        module: Any module; parts of it may be in different modes, such as a frozen encoder under a trained head.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
