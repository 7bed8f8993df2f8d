"""A user's own classes: modules of the working folder, and packages of the user's that are named like Surefoot's.

Configs name classes by import path, so what lies in the working folder has to be importable, however the command was
started. It comes last on the path, so that a file there never hides a library; and Surefoot's own folder comes first,
so that a folder ``callbacks`` there adds modules to Surefoot's package of that name instead of hiding it.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import surefoot

__all__ = ("find_own_modules", "join_own_packages")

_PACKAGES = ("lightning_modules", "datamodules", "callbacks")


def find_own_modules() -> None:
    """Put Surefoot's folder first and the working folder last on the import path."""
    home, here = str(Path(surefoot.__file__).parents[1]), str(Path.cwd())
    rest = [p for p in sys.path if p not in ("", here, home)]
    sys.path[:] = [home, *rest, here] if here != home else [home, *rest]


def join_own_packages() -> None:
    """Let Surefoot's imported packages find those of the same names in the working folder and on ``PYTHONPATH``."""
    named = [Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    for place in dict.fromkeys([Path.cwd(), *named]):
        if (place / "surefoot" / "__init__.py").is_file():
            continue  # a checkout of Surefoot: its packages are no user's
        for name in _PACKAGES:
            if name in sys.modules:
                _join(sys.modules[name], place / name)


def _join(package: ModuleType, folder: Path) -> None:
    if not folder.is_dir() or str(folder) in package.__path__:
        return
    homes = [Path(p) for p in package.__path__]
    for own in sorted(folder.iterdir()):
        known = sys.modules.get(f"{package.__name__}.{own.stem}")
        if own.is_dir() and hasattr(known, "__path__"):
            assert known is not None
            _join(known, own)
        elif own.name != "__init__.py" and any((home / own.name).is_file() for home in homes):
            print(
                f"surefoot: note: {own} is not used: Surefoot has a module {package.__name__}.{own.stem};"
                " give it another name.",
                file=sys.stderr,
            )
    package.__path__.append(str(folder))
    if (folder / "__init__.py").is_file():
        package.__dict__["__getattr__"] = _attributes_of(folder / "__init__.py", package)


def _attributes_of(file: Path, package: ModuleType) -> Callable[[str], object]:
    """Return a function that looks up what a package lacks in another's ``__init__.py``, run when first asked."""
    own: ModuleType | None = None

    def attribute(name: str) -> object:
        nonlocal own
        if name.startswith("_"):
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        if own is None:
            spec = importlib.util.spec_from_file_location(
                package.__name__, file, submodule_search_locations=list(package.__path__)
            )
            assert spec is not None
            assert spec.loader is not None
            own = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(own)
        return getattr(own, name)

    return attribute
