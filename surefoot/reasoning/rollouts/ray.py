"""Ray Data over many engines: prompts are spread over workers of one machine or a cluster."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from surefoot.errors import ConfigError
from surefoot.processes import OwnedFolder, ProcessTree
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel
from surefoot.reasoning.rollouts.engine import (
    Completion,
    RolloutEngine,
    Sampling,
)
from surefoot.reasoning.rollouts.vllm import write_weights

__all__ = ("RayEngine",)


class RayEngine(RolloutEngine):
    """Spreads prompts over workers that each run an engine of their own.

    Workers start with every call and load the weights from ``exchange``: it is meant for `surefoot generate` and the
    like, where one call has much to do, rather than for reinforcement learning.
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
            ConfigError: If a number is not positive.
        """
        if n_workers < 1 or batch_size < 1:
            raise ConfigError(f"n_workers and batch_size must be positive, got {n_workers} and {batch_size}.")
        self.engine, self.n_workers, self.batch_size = engine, n_workers, batch_size
        self.cpus_per_worker, self.gpus_per_worker = cpus_per_worker, gpus_per_worker
        self.address, self.exchange = address, exchange
        #: Where workers find the weights, while it is started.
        self.folder: OwnedFolder | None = None
        self.processes = ProcessTree()

    @property
    def sampling_engine(self) -> RolloutEngine:
        """The engine that every worker runs."""
        return self.engine

    def start(self, model: LanguageModel, version: int = 0) -> None:
        """Join or start the cluster and put the weights where the workers find them.

        Raises:
            ConfigError: If Ray is not installed, or no cluster answers at the address.
        """
        self.close()
        try:
            import ray
        except ImportError as error:
            raise ConfigError("RayEngine needs Ray: pip install 'ray[data]'.") from error
        try:
            self._join(ray, model)
        except BaseException:
            self.close()
            raise
        self.begin(model, version)

    def _join(self, ray: Any, model: LanguageModel) -> None:
        if not ray.is_initialized():
            root = str(Path(__file__).parents[3])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            try:
                with self.processes.starting():
                    ray.init(
                        address=self.address,
                        num_cpus=None if self.address else max(2, int(self.n_workers * self.cpus_per_worker) + 1),
                        include_dashboard=None if self.address else False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        runtime_env={"env_vars": {"PYTHONPATH": path}},
                    )
            except ConnectionError as error:
                raise ConfigError(
                    f"no Ray cluster can be joined at {self.address}: {str(error).splitlines()[0]}. Start one with `ray"
                    " start --head`; one with token authentication (Ray's default) needs RAY_AUTH_MODE=token here too."
                ) from error
        self.folder = OwnedFolder("surefoot-weights-", self.exchange)
        model.save(self.folder.path)
        self._dtype = str(next(model.parameters()).dtype).removeprefix("torch.")

    def sample(
        self, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Sample completions; the result is in the order of the prompts, whichever worker was faster."""
        import ray.data

        kinds = list(dict.fromkeys(samplings))
        rows = [
            {"position": i, "prompt": list(p), "sampling": kinds.index(samplings[i]), "seed": seeds[i]}
            for i, p in enumerate(prompts)
        ]
        assert self.folder is not None
        folder = self.folder.path
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), 4 * self.n_workers))
        sampled = dataset.map_batches(
            _Worker,
            fn_constructor_args=(self.engine, str(folder), self._dtype, [asdict(s) for s in kinds]),
            batch_size=self.batch_size,
            compute=ray.data.ActorPoolStrategy(size=self.n_workers),
            num_cpus=self.cpus_per_worker,
            num_gpus=self.gpus_per_worker or None,
        ).take_all()
        results: list[list[Completion]] = [[] for _ in prompts]
        for row in sampled:
            results[row["position"]] = [
                Completion([int(t) for t in c], [float(x) for x in p], r, self.version)
                for c, p, r in zip(row["completions"], row["logprobs"], row["finish_reasons"], strict=True)
            ]
        return results

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Put new weights where the next call's workers find them."""
        assert self.folder is not None
        write_weights(weights, self.folder.path)

    def close(self) -> None:
        """Remove the weights; the cluster stays, for it may be shared."""
        self.started = False
        if self.folder is not None:
            self.folder.remove()
            self.folder = None


class _Worker:
    """One worker: a model and an engine, for as long as one call lasts."""

    def __init__(self, engine: RolloutEngine, folder: str, dtype: Any, samplings: list[dict[str, Any]]) -> None:
        self.engine, self.samplings = engine, [Sampling(**s) for s in samplings]
        self.engine.start(PretrainedLanguageModel(folder, dtype=dtype))

    def __call__(self, batch: dict[str, Any]) -> dict[str, object]:
        prompts = [[int(t) for t in p] for p in batch["prompt"]]
        samplings = [self.samplings[int(i)] for i in batch["sampling"]]
        sampled = self.engine.generate(prompts, samplings, [int(s) for s in batch["seed"]])
        return {
            "position": batch["position"],
            "completions": _objects([[c.tokens for c in r] for r in sampled]),
            "logprobs": _objects([[c.logprobs for c in r] for r in sampled]),
            "finish_reasons": _objects([[c.finish_reason for c in r] for r in sampled]),
        }


def _objects(values: list[object]) -> object:
    """Return an array of Python objects, which Ray stores as nested lists."""
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
