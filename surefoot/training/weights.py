"""What is loaded from files of others: never with code that comes along, never by unpickling objects."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from surefoot.errors import DataError, SurefootError

__all__ = ("load_pretrained", "read_checkpoint")


def load_pretrained(auto_class: Any, source: str, expected: str, **settings: object) -> Any:
    """Return what one of transformers' ``Auto`` classes loads; code in the model's folder is not run.

    Args:
        auto_class: Such as ``AutoTokenizer``.
        source: Folder or hub name.
        expected: What the user should give, for the message.
        settings: Arguments of ``from_pretrained``.

    Raises:
        DataError: If it cannot be loaded.
    """
    try:
        return auto_class.from_pretrained(source, trust_remote_code=False, **settings)
    except Exception as error:
        if not isinstance(error, (OSError, ValueError, KeyError, TypeError, ImportError)) and (
            type(error).__module__.split(".")[0] not in ("safetensors", "transformers", "tokenizers")
        ):
            raise
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "it needs code that comes with the model, which Surefoot does not run"
        raise DataError(f"{source!r} cannot be loaded ({reason[:300]}): give {expected}.") from error


def read_checkpoint(path: Path | str, **settings: Any) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU, without unpickling anything but tensors and plain types.

    Args:
        path: The file.
        settings: Further arguments of ``torch.load``.

    Raises:
        SurefootError: If the file is missing, damaged, or holds other objects.
    """
    try:
        with warnings.catch_warnings():  # torch's, about other pickles than its own, before it refuses them
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True, **settings)
    except pickle.UnpicklingError as error:
        raise SurefootError(
            f"checkpoint {path} is damaged, or holds objects other than tensors and plain types, which are not loaded"
            " because that can run code."
        ) from error
    except OSError as error:
        raise SurefootError(f"checkpoint {path} cannot be read ({error.strerror or error}).") from error
    except (RuntimeError, EOFError, ValueError) as error:  # torch's words are about its own formats
        raise SurefootError(f"checkpoint {path} cannot be read: it is damaged or cut short.") from error
    if not isinstance(content, dict):
        raise SurefootError(f"checkpoint {path} holds a {type(content).__name__}, not a run's state.")
    return content
