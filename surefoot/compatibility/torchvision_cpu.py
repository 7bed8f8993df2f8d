"""Let torchvision import beside a CPU build of torch.

PyPI's torchvision is compiled against CUDA builds of torch. Beside a CPU build its extension cannot load,
and ``import torchvision`` fails because two operators have no schema. Declaring the schemas is enough for
transforms and models; calling the operators themselves then fails with torch's own message.

`prepare_torchvision` is called when ``surefoot`` is imported, and waits until somebody imports torchvision: torch is
not imported for it, and no program that does not import ``surefoot`` is touched.
"""

import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

__all__ = ("declare_missing_operators", "prepare_torchvision")

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES: list[object] = []  # torch drops a library's schemas when it is garbage-collected


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing; declares the operators when torchvision is about to be looked for."""

    asked = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision" and not self.asked:
            self.asked = True
            declare_missing_operators()
        return None


def prepare_torchvision() -> None:
    """Let a later ``import torchvision`` find its operators declared; in this process, once."""
    if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_missing_operators() -> bool:
    """Declare torchvision's schemas when torch has no CUDA and torchvision's extension cannot load.

    Returns:
        Whether they are declared by now.
    """
    import torch

    # looking for the extension asks _BeforeTorchvision, which may declare them first
    if torch.version.cuda is not None or _extension_loads() or _LIBRARIES:
        return bool(_LIBRARIES)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _LIBRARIES.append(library)
    return True


def _extension_loads() -> bool:
    """Return whether torchvision is absent or its compiled extension loads into this torch."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for extension in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
        except OSError:
            return False
    return True
