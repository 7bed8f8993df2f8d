"""vLLM as a server: started here, or joined on one host or several."""

import ipaddress
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from surefoot.compatibility.started_processes import importing_surefoot
from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import OwnedFolder, ProcessTree, end_process
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.rollouts.engine import (
    Completion,
    EngineStatistics,
    RolloutEngine,
    Sampling,
    check_lengths,
)
from surefoot.reasoning.rollouts.vllm import (
    EXTENSION,
    MAX_MODEL_LENGTH,
    check_positions,
    check_settings,
    drop_weights,
    start_error,
    weights_folder,
    write_weights,
)

__all__ = ("ServerLaunch", "VLLMServerEngine")

#: Seconds that a server has to end by itself.
_PATIENCE_SECONDS = 20.0
_ERROR = re.compile(r"\b\w*(Error|Exception): |\d+ validation errors? for")
_METRICS = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")


@dataclass(frozen=True)
class ServerLaunch:
    """How a server is started.

    Args:
        memory_share: Share of a GPU's memory, in [0, 1].
        cache_gib: Memory for keys and values on a CPU, GiB.
        block_size: Tokens of a block of the prefix cache; a multiple of 32 on a CPU.
        enforce_eager: Do not compile; starts faster.
        dtype: Precision; auto takes the model's.
    """

    memory_share: float = 0.9
    cache_gib: float = 1.0
    block_size: int = 32
    enforce_eager: bool = True
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class VLLMServerEngine(RolloutEngine):
    """Talks to ``vllm serve`` over HTTP; prompts go to all hosts in turn.

    A server that is joined has to be started with ``VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --worker-extension-cls
    surefoot.reasoning.rollouts.vllm_worker.WeightReloader --logprobs-mode processed_logprobs --generation-config vllm``
    (greedy decoding and the trainer's log-probabilities agree only then). New weights are handed over as a file in
    ``exchange``, which every host has to see.
    """

    def __init__(
        self,
        urls: list[str] | None = None,
        exchange: Path | None = None,
        max_model_length: int = 2048,
        launch: ServerLaunch | None = None,
        max_requests: int = 64,
        startup_seconds: float = 600.0,
        request_seconds: float = 3600.0,
    ) -> None:
        """Initialize the engine.

        Args:
            urls: Addresses of running servers, such as http://host:8000; by default one is started here.
            exchange: Folder for new weights that every server sees; by default one in this host's memory.
            max_model_length: Most tokens of prompt and completion together.
            launch: Settings of a server that is started here.
            max_requests: Prompts that are under way at once.
            startup_seconds: How long to wait for a server.
            request_seconds: How long to wait for a completion.

        Raises:
            ConfigError: If a number is out of range.
        """
        self.launch = launch or ServerLaunch()
        check_settings(max_model_length, self.launch.memory_share, self.launch.cache_gib, self.launch.block_size)
        if max_requests < 1:
            raise ConfigError(f"max_requests must be positive, got {max_requests}.")
        if not 0 < startup_seconds < math.inf or not 0 < request_seconds < math.inf:
            raise ConfigError(
                f"startup_seconds and request_seconds must be positive and finite, got {startup_seconds} and"
                f" {request_seconds}."
            )
        self.urls = [u.rstrip("/") for u in urls] if urls else None
        self.exchange, self.max_model_length = exchange, max_model_length
        self.max_requests = max_requests
        self.startup_seconds, self.request_seconds = startup_seconds, request_seconds
        self._hosts: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        #: Where weights are handed over, and the log of a server that was started here, while it is started.
        self.folder: OwnedFolder | None = None
        self.processes = ProcessTree()

    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Start or join the servers and give them the model's weights; a start that fails leaves nothing behind.

        Raises:
            SurefootError: If a server does not answer in time, cannot take new weights, or would have other rotary
                positions than the model.
        """
        self.close()
        check_positions(model, self.max_model_length)
        try:
            self._join(model)
        except BaseException:
            self.close()
            raise
        self.begin(model, version)
        self._cache_base = self._cache_counts()

    def _join(self, model: LanguageModel) -> None:
        self.folder = weights_folder(self.exchange)
        model.save(self.folder.path)
        if self.urls is None:
            self._hosts = [self.start_server(str(next(model.parameters()).dtype).removeprefix("torch."))]
        else:
            self._hosts = self.urls
        for host in self._hosts:
            self.await_server(host)
        self._names = [self._get(h, "/v1/models")["data"][0]["id"] for h in self._hosts]
        if self.urls is not None:
            self._push()
        drop_weights(self.folder.path)

    def start_server(self, dtype: str) -> str:
        """Start a server with the weights in the folder, and return its address; it does not answer yet.

        Args:
            dtype: The model's precision, for where none is set.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert self.folder is not None
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        options = {
            "model": str(self.folder.path),
            "host": "127.0.0.1",
            "port": port,
            "max-model-len": self.max_model_length,
            "dtype": dtype if self.launch.dtype == "auto" else self.launch.dtype,
            "block-size": self.launch.block_size,
            "gpu-memory-utilization": self.launch.memory_share,
            "worker-extension-cls": EXTENSION,
            "logprobs-mode": "processed_logprobs",
            "generation-config": "vllm",
        }
        command += [x for k, v in options.items() for x in (f"--{k}", str(v))]
        command += ["--enable-prefix-caching", *(["--enforce-eager"] if self.launch.enforce_eager else [])]
        if not torch.cuda.is_available():  # as in VLLMEngine
            batched = max(8192, self.max_model_length)
            command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(batched)]
            command += ["--kv-cache-memory-bytes", str(round(self.launch.cache_gib * 2**30))]
        environment = importing_surefoot(os.environ) | {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        environment = self.processes.environment(environment)
        log = (self.folder.path / "server.log").open("wb")
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        log.close()
        self._finalizer = weakref.finalize(self, end_process, self._process, self.processes, _PATIENCE_SECONDS)
        return f"http://127.0.0.1:{port}"

    def await_server(self, host: str) -> None:
        """Wait until a server answers.

        Args:
            host: Its address, such as http://host:8000.

        Raises:
            SurefootError: If it does not within ``startup_seconds``, or ended.
        """
        deadline = time.monotonic() + self.startup_seconds
        while True:
            try:
                with _open(f"{host}/health", 5):
                    return
            except OSError as error:
                if self._process is not None and self._process.poll() is not None:
                    assert self.folder is not None
                    log = (self.folder.path / "server.log").read_text(errors="replace")
                    raise start_error(RuntimeError(root_cause(log))) from error
                if time.monotonic() > deadline:
                    raise SurefootError(
                        f"no vLLM server answers at {host} within {self.startup_seconds:g} s ({error})."
                    ) from error
            time.sleep(0.5)

    def _get(self, host: str, path: str) -> Any:
        with _open(host + path, 60) as reply:
            return json.loads(reply.read())

    def _post(self, host: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        request = urllib.request.Request(
            host + path,
            data=json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _open(request, self.request_seconds) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise SurefootError(f"the vLLM server at {host} refused {path} ({error.code}): {detail}") from error
        except OSError as error:
            raise SurefootError(f"the vLLM server at {host} is gone: {error}.") from error
        return json.loads(text) if text.strip() else None

    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Sample completions."""
        check_lengths(prompts, samplings, self.max_model_length, *MAX_MODEL_LENGTH)

        def ask(i: int) -> list[Completion]:
            host, sampling = i % len(self._hosts), samplings[i]
            body: dict[str, object] = {
                "model": self._names[host],
                "prompt": list(prompts[i]),
                "n": sampling.n,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_tokens,
                "stop": list(sampling.stop) or None,
                "stop_token_ids": list(sampling.stop_token_ids),
                "include_stop_str_in_output": True,
                "add_special_tokens": False,
                "logprobs": 0,
                "return_token_ids": True,
                "seed": seeds[i],
            }
            reply = self._post(self._hosts[host], "/v1/completions", body)
            return [_completion(c, self.version) for c in reply["choices"]]

        with ThreadPoolExecutor(self.max_requests) as pool:
            results = list(pool.map(ask, range(len(prompts))))
        return results

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Hand new weights to every server and empty its prefix cache."""
        assert self.folder is not None
        write_weights(weights, self.folder.path)
        self._push()
        drop_weights(self.folder.path)

    def _push(self) -> None:
        assert self.folder is not None
        path = str(self.folder.path)
        body = {"method": "surefoot_reload", "kwargs": {"weights_path": path}}
        for host in self._hosts:
            try:
                self._post(host, "/collective_rpc", body)
            except SurefootError as error:
                raise ConfigError(
                    f"{error} A server that is joined has to be started with VLLM_SERVER_DEV_MODE=1 and"
                    f" --worker-extension-cls {EXTENSION}, and must see the folder {path}."
                ) from error
            self._post(host, "/reset_prefix_cache")

    def _cache_counts(self) -> tuple[int, ...]:
        counts = dict.fromkeys(_METRICS, 0)
        for host in self._hosts:
            with _open(f"{host}/metrics", 60) as reply:
                for line in reply.read().decode().splitlines():
                    name = line.split("{")[0]
                    if name in counts and not line.startswith("#"):
                        counts[name] += int(float(line.rsplit(" ", 1)[1]))
        return tuple(counts[n] for n in _METRICS)

    def statistics(self) -> EngineStatistics:
        """Return the counts since the start."""
        if not self._hosts:
            return super().statistics()
        queries, hits = self._cache_counts()
        return replace(
            super().statistics(),
            prefix_queries=queries - self._cache_base[0],
            prefix_hits=hits - self._cache_base[1],
        )

    def close(self) -> None:
        """End the server that was started here; leave those that were joined."""
        self.started = False
        if self._process is not None:
            self._finalizer()
            self._process = None
        if self.folder is not None:
            self.folder.remove()
            self.folder = None
        self._hosts = []


def root_cause(log: str) -> str:
    """Return the first error of a server's log: later ones say that the first one happened."""
    lines = [re.sub(r"^\(\w+ pid=\d+\)\s*", "", line.strip()) for line in log.splitlines()]
    at = next((i for i, line in enumerate(lines) if _ERROR.search(line)), None)
    if at is None:
        return " ".join(lines[-3:]) or "it said nothing"
    if "validation error" in lines[at] and at + 1 < len(lines):  # pydantic's next line says which
        return lines[at + 1].strip().removeprefix("Value error, ")
    match = _ERROR.search(lines[at])
    assert match is not None
    return lines[at][match.start() :]


def is_local(url: str) -> bool:
    """Return whether an address is this machine's own, which no proxy can reach for it."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _open(request: str | urllib.request.Request, timeout: float) -> Any:
    """Send a request, past the environment's proxy where it is to this machine."""
    url = request if isinstance(request, str) else request.full_url
    handlers = [urllib.request.ProxyHandler({})] if is_local(url) else []
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def _completion(choice: dict[str, Any], version: int) -> Completion:
    reason: Literal["stop", "length"] = "stop" if choice["finish_reason"] == "stop" else "length"
    logprobs = [float(x) for x in choice["logprobs"]["token_logprobs"]]
    return Completion(list(choice["token_ids"]), logprobs, reason, version)
