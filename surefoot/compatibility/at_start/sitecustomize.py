"""Python imports this before anything else where its folder is on ``PYTHONPATH``: import ``surefoot``.

A ``sitecustomize`` that the environment has besides, and that this one hides, runs as it would have.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

__all__ = ()

_HERE = Path(__file__).parent

if find_spec("surefoot") is None:  # it was imported from the folder that the first process was started in
    sys.path.append(str(_HERE.parents[2]))
import_module("surefoot")

_hidden = PathFinder.find_spec("sitecustomize", [p for p in sys.path if Path(p) != _HERE])
if _hidden is not None and _hidden.loader is not None:
    _hidden.loader.exec_module(module_from_spec(_hidden))
