"""Let vLLM's own processes import ``surefoot`` first, for its preparation of torchvision, which vLLM imports.

Engines and workers of vLLM are spawned: Python imports the parent's main module in them, and nothing else of ours. A
server is started as ``python -m surefoot.compatibility.vllm``, which hands its options to vLLM's server; processes that
start within `spawned_with_surefoot` have this module as their main one.
"""

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn

__all__ = ("SERVER", "spawned_with_surefoot")

#: The module to start a server with.
SERVER = "surefoot.compatibility.vllm"


@contextmanager
def spawned_with_surefoot() -> Iterator[None]:
    """Let processes that are spawned import this module in place of the parent's main one, and their children too."""
    original = spawn.get_preparation_data

    def with_surefoot(name: str) -> dict[str, object]:
        data = {k: v for k, v in original(name).items() if k != "init_main_from_path"}
        return data | {"init_main_from_name": SERVER}

    spawn.get_preparation_data = with_surefoot
    try:
        yield
    finally:
        spawn.get_preparation_data = original


if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
