"""Let torchvision import beside a CPU build of torch.

PyPI's torchvision is compiled against CUDA builds of torch. Beside a CPU build its extension cannot load,
and ``import torchvision`` fails because two operators have no schema. Declaring the schemas is enough for
transforms and models; calling the operators themselves then fails with torch's own message.

``import torch`` runs this through the entry-point group ``torch.backends``, in worker processes too.
"""

from importlib.util import find_spec
from pathlib import Path

__all__ = ("declare_missing_operators",)

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES: list[object] = []  # torch drops a library's schemas when it is garbage-collected


def declare_missing_operators() -> None:
    """Declare torchvision's schemas when torch has no CUDA and torchvision's extension cannot load."""
    import torch

    if torch.version.cuda is not None or _LIBRARIES or _extension_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _LIBRARIES.append(library)


def _extension_loads() -> bool:
    """Tell whether torchvision is absent or its compiled extension loads into this torch."""
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
