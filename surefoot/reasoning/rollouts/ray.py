"""Ray over many engines: prompts are spread over workers of one machine or a cluster."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import OwnedFolder, ProcessTree
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel
from surefoot.reasoning.rollouts.engine import Completion, EngineStatistics, RolloutEngine, Sampling
from surefoot.reasoning.rollouts.vllm import write_weights

__all__ = ("RayEngine",)

#: How often a worker that died is started again, and its batch sampled again.
_RESTARTS = 3


class RayEngine(RolloutEngine):
    """Spreads prompts over workers that each run an engine of their own.

    Workers start with the engine, load the weights from ``exchange`` and stay. Each takes neighbouring prompts, so that
    prompts that are sorted by what they begin with meet in one prefix cache. A worker that dies is replaced, and what
    it was sampling is sampled again, with the same seeds.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        n_workers: int = 2,
        batch_size: int = 32,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        address: str | None = None,
        exchange: Path | None = None,
    ) -> None:
        """Initialize the engine.

        Args:
            engine: What every worker runs: HFEngine or VLLMEngine.
            n_workers: Number of workers.
            batch_size: Prompts that a worker takes at once.
            cpus_per_worker: CPU cores of a worker.
            gpus_per_worker: GPUs of a worker.
            address: Address of a running cluster, or auto; by default one is started on this machine.
            exchange: Folder for the weights that every machine sees; by default one of this machine's.

        Raises:
            ConfigError: If a number is out of range.
        """
        if n_workers < 1 or batch_size < 1:
            raise ConfigError(f"n_workers and batch_size must be positive, got {n_workers} and {batch_size}.")
        if not 0 <= cpus_per_worker < math.inf or not 0 <= gpus_per_worker < math.inf:
            raise ConfigError(
                f"cpus_per_worker and gpus_per_worker must be finite and not negative, got {cpus_per_worker} and"
                f" {gpus_per_worker}."
            )
        self.engine, self.n_workers, self.batch_size = engine, n_workers, batch_size
        self.cpus_per_worker, self.gpus_per_worker = cpus_per_worker, gpus_per_worker
        self.address, self.exchange = address, exchange
        #: Where workers find the weights, while it is started.
        self.folder: OwnedFolder | None = None
        self.processes = ProcessTree()
        self._workers: list[Any] = []
        self._n_updates = 0

    @property
    def sampling_engine(self) -> RolloutEngine:
        """The engine that every worker runs."""
        return self.engine

    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Join or start the cluster and put the weights where the workers find them.

        Raises:
            ConfigError: If Ray is not installed, no cluster answers at the address, or it is too small for the workers.
        """
        self.close()
        try:
            import ray
        except ImportError as error:
            raise ConfigError("RayEngine needs Ray: pip install ray.") from error
        try:
            self._join(ray, model)
        except BaseException:
            self.close()
            raise
        self.begin(model, version)

    def _join(self, ray: Any, model: LanguageModel) -> None:
        if not ray.is_initialized():
            try:
                with self.processes.starting():
                    ray.init(
                        address=self.address or "local",  # none would join a cluster that happens to be there
                        num_cpus=None if self.address else max(2, int(self.n_workers * self.cpus_per_worker) + 1),
                        include_dashboard=None if self.address else False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
            except ConnectionError as error:
                raise ConfigError(
                    f"no Ray cluster can be joined at {self.address}: {str(error).splitlines()[0]}. Start one with `ray"
                    " start --head`; one with token authentication (Ray's default) needs RAY_AUTH_MODE=token here too."
                ) from error
        self._check_size(ray.cluster_resources())
        self.folder = OwnedFolder("surefoot-weights-", self.exchange)
        model.save(self.folder.path)
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))
        worker = ray.remote(_RolloutWorker).options(
            num_cpus=self.cpus_per_worker,
            num_gpus=self.gpus_per_worker or None,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
        self._workers = [worker.remote(self.engine, str(self.folder.path), dtype) for _ in range(self.n_workers)]
        self._n_updates = 0

    def _check_size(self, resources: dict[str, float]) -> None:
        """Refuse a cluster on which workers would wait for ever."""
        for name, each in (("CPU", self.cpus_per_worker), ("GPU", self.gpus_per_worker)):
            wanted, there = each * self.n_workers, resources.get(name, 0.0)
            if wanted > there:
                raise ConfigError(
                    f"{self.n_workers} workers of {each:g} {name} each need {wanted:g} {name}, the cluster has"
                    f" {there:g}: lower n_workers, or let it grow first."
                )

    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Sample completions; the result is in the order of the prompts, whichever worker was faster.

        Raises:
            SurefootError: If a worker fails, or died too often.
        """
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        size = self.batch_size
        batches = [
            _Batch(i, list(prompts[i : i + size]), list(samplings[i : i + size]), list(seeds[i : i + size]))
            for i in range(0, len(prompts), size)
        ]
        results: list[list[Completion]] = [[] for _ in prompts]
        pool, n_updates = ActorPool(self._workers), self._n_updates
        try:
            for first, sampled, counts in pool.map_unordered(lambda w, b: w.sample.remote(b, n_updates), batches):
                for i, own in enumerate(sampled):
                    results[first + i] = [Completion(c.tokens, c.logprobs, c.finish_reason, self.version) for c in own]
                self.count_cached(counts.prefix_queries, counts.prefix_hits)
        except RayTaskError as error:
            if isinstance(error.cause, SurefootError):
                raise error.cause from None
            raise
        except RayActorError as error:
            told = str(error).splitlines()
            raise SurefootError(f"a worker of Ray does not stay alive: {told[0]} {told[-1]}") from error
        return results

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Put new weights where workers find them before they sample next."""
        assert self.folder is not None
        write_weights(weights, self.folder.path)
        self._n_updates += 1

    def close(self) -> None:
        """End the workers and remove the weights; the cluster stays, for it may be shared."""
        self.started = False
        if self._workers:
            import ray

            for worker in self._workers:
                ray.kill(worker)
            self._workers = []
        if self.folder is not None:
            self.folder.remove()
            self.folder = None


class _Batch(NamedTuple):
    """Prompts that one worker takes at once."""

    first: int  # position among all prompts
    prompts: list[Sequence[int]]
    samplings: list[Sampling]
    seeds: list[int]


class _RolloutWorker:
    """One worker: a model and an engine, for as long as the driver's engine is started."""

    def __init__(self, engine: RolloutEngine, folder: str, dtype: Any) -> None:
        self.engine, self.folder, self.n_updates = engine, Path(folder), 0
        self.engine.start(PretrainedLanguageModel(folder, dtype=dtype))

    def sample(self, batch: _Batch, n_updates: int) -> tuple[int, list[list[Completion]], EngineStatistics]:
        """Return the position of a batch, its completions, and what they took.

        Args:
            batch: Prompts.
            n_updates: How often the weights have been replaced until now.
        """
        if n_updates != self.n_updates:
            from safetensors.torch import load_file

            self.engine.update_weights(load_file(self.folder / "model.safetensors").items(), n_updates)
            self.n_updates = n_updates
        before = self.engine.statistics()
        sampled = self.engine.generate(batch.prompts, batch.samplings, batch.seeds)
        return batch.first, sampled, self.engine.statistics().since(before)
