"""What engines start and leave behind: servers, workers, weights in memory, and one line for a start that fails."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sharp_models import sharp_model

from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import ProcessTree, marked_processes
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.rollouts import (
    VLLMEngine,
    VLLMServerEngine,
)
from surefoot.reasoning.rollouts import vllm as vllm_engine
from surefoot.reasoning.rollouts.vllm import start_error
from surefoot.reasoning.rollouts.vllm_server import ServerLaunch, is_local, root_cause

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return sharp_model(0)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_this_machine_is_reached_past_the_environment_s_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine = VLLMServerEngine(["http://x"], startup_seconds=0.2)
        for host in ("127.0.0.1", "localhost"):
            engine.await_server(f"http://{host}:{server.server_port}")
        server.shutdown()
    assert [is_local(f"http://{h}:8") for h in ("127.8.8.8", "[::1]", "localhost")] == [True] * 3
    assert [is_local(f"http://{h}:8") for h in ("10.0.0.1", "example.org", "127.example.org")] == [False] * 3


def test_a_start_that_fails_leaves_nothing(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    joined = VLLMServerEngine(["http://127.0.0.1:9"], tmp_path / "new", startup_seconds=0.1)
    with pytest.raises(SurefootError, match="no vLLM server answers"):
        joined.start(model)
    assert not list((tmp_path / "new").iterdir())

    def interrupted(self: VLLMServerEngine, dtype: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(VLLMServerEngine, "start_server", interrupted)
    with pytest.raises(KeyboardInterrupt):
        VLLMServerEngine(exchange=tmp_path / "new").start(model)
    assert not list((tmp_path / "new").iterdir())
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(vllm_engine, "shared_memory", lambda: str(tmp_path / "new"))
    with pytest.raises(ConfigError, match="VLLMEngine needs vLLM"):
        VLLMEngine().start(model)
    assert not list((tmp_path / "new").iterdir())


PYDANTIC = """(APIServer pid=7)   File "x.py", line 3, in __init__
(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=7)   Value error, User-specified max_model_len (4096) is greater than 256
(APIServer pid=7)     For further information visit https://errors.pydantic.dev
"""

ENGINE = """(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8) ValueError: No available memory for the cache blocks.
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (PYDANTIC, "User-specified max_model_len (4096) is greater than 256"),
        (ENGINE, "ValueError: No available memory for the cache blocks."),
        ("usage: x\nx: error: argument --dtype: invalid choice", "--dtype: invalid choice"),
        ("", "it said nothing"),
    ],
)
def test_the_root_cause_of_a_server_that_does_not_start(log: str, cause: str) -> None:
    found = str(start_error(RuntimeError(root_cause(log))))
    assert cause in found
    assert "\n" not in found
    assert "See root cause" not in found


def test_bad_engine_settings_end_in_one_line_before_vllm_starts() -> None:
    from pydantic import BaseModel, Field

    for arguments, message in (
        ({"memory_share": 1.5}, r"memory_share in \(0, 1\]"),
        ({"block_size": 33}, "block_size must be a multiple of"),
        ({"cache_gib": 0.0}, "cache_gib > 0"),
        ({"max_model_length": 0}, "max_model_length >= 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            VLLMEngine(**arguments)  # type: ignore[arg-type]
        length = int(arguments.pop("max_model_length", 256))
        with pytest.raises(ConfigError, match=message):
            VLLMServerEngine(max_model_length=length, launch=ServerLaunch(**arguments))  # type: ignore[arg-type]

    class Model(BaseModel):
        a: int = Field(gt=0)
        b: int

    with pytest.raises(ValueError, match="validation error") as raised:
        Model(a=0, b="x")  # type: ignore[arg-type]
    found = str(start_error(raised.value))
    assert "\n" not in found
    assert "greater than 0; Input should be a valid integer" in found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["VLLMServerEngine(max_model_length=256)", "VLLMEngine(256, in_process=False)"])
def test_vllm_s_processes_and_weights_end_with_a_killed_parent(engine: str) -> None:
    code = f"""
import sys, time
sys.path.insert(0, "tests")
from sharp_models import sharp_model
from surefoot.reasoning.rollouts import VLLMEngine, VLLMServerEngine
engine = {engine}
engine.start(sharp_model(0))
print(engine.processes.mark, engine.folder.path, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "http_proxy": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    mark, folder = parent.stdout.readline().split()
    assert marked_processes([mark]), "the engine core is there"
    assert Path(folder).is_dir()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not marked_processes([mark]) and not Path(folder).exists(), 10)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("joined", [False, True], ids=["own-cluster", "joined-cluster"])
def test_ray_s_workers_and_weights_end_with_a_killed_driver(joined: bool, tmp_path: Path) -> None:
    """In the midst of sampling; a cluster that the driver joined stays, without the driver's workers."""
    pytest.importorskip("ray")
    code = """
import sys
sys.path.insert(0, "tests")
from sharp_models import prompts, sharp_model
from surefoot.reasoning.rollouts import HFEngine, RayEngine, Sampling
from surefoot.training.seeds import derive_seed
model, address = sharp_model(0), sys.argv[2] or None
engine = RayEngine(HFEngine(), n_workers=2, batch_size=1, address=address, exchange=sys.argv[1])
engine.start(model)
print(engine.processes.mark, flush=True)
many = prompts(model) * 2000
engine.generate(many, Sampling(max_tokens=200), range(len(many)))
"""
    root = Path(__file__).parents[3]
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {"PYTHONPATH": str(root), "RAY_AUTH_MODE": "disabled"}
    cluster, address = ProcessTree(), ""
    try:
        if joined:
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"127.0.0.1:{free.getsockname()[1]}"
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=3"]
            where = [f"--port={address.split(':')[1]}", "--include-dashboard=false", "--disable-usage-stats"]
            subprocess.run([*command, *where], env=cluster.environment(environment), check=True, capture_output=True)
        driver = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), address],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert driver.stdout is not None
        mark = driver.stdout.readline().strip()
        marks = [cluster.mark if joined else mark]
        assert wait_until(lambda: len(ray_workers(marks)) == 2, 60)
        assert list(tmp_path.glob("surefoot-weights-*/"))
        driver.kill()
        driver.wait()
        driver.stdout.close()
        assert wait_until(lambda: not ray_workers(marks), 30)
        assert joined or wait_until(lambda: not marked_processes(marks), 10), "its own cluster ends with it"
        assert not joined or marked_processes(marks), "that of others stays"
        assert wait_until(lambda: not list(tmp_path.glob("surefoot-weights-*")), 10)
    finally:
        cluster.kill()


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def ray_workers(marks: list[str]) -> list[int]:
    """Return the marked processes that sample."""
    return [p for p in marked_processes(marks) if b"RolloutWorker" in Path(f"/proc/{p}/cmdline").read_bytes()]
