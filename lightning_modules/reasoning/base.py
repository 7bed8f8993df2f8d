"""What methods that sample share: an engine with the same weights, and evaluation by sampling."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from lightning_modules.reasoning.language_model import LanguageModelModule
from surefoot.contracts import RecordBatch
from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.metrics import ProblemResult, outcome_of, problem_results, summarise_results
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.rollouts import HFEngine, RolloutEngine, Sampling, SeedOf
from surefoot.reasoning.samplers import GroupSampler, TrajectorySampler
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.distributed import gather_rows
from surefoot.training.seeds import derive_seed

__all__ = ("ReasoningModule",)

#: What is drawn anew at every step; evaluation draws the same each time.
TRAINING_PURPOSES = ("train", "values")


class ReasoningModule(LanguageModelModule):
    """A language model that is trained, how problems are put to it, and how it is evaluated: by sampling."""

    def __init__(
        self,
        prompt: Prompt | None = None,
        engine: RolloutEngine | None = None,
        grader: Grader | None = None,
        evaluation: Sampling | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize the module.

        Args:
            prompt: How problems become token ids; the question and a line break by default.
            engine: Samples completions; without one evaluation does not sample.
            grader: Finds and compares final answers; by default the mixed extraction rule.
            evaluation: How completions are sampled in evaluation; by default one greedy completion of 256 tokens.
            kwargs: Arguments of `LanguageModelModule`.
        """
        super().__init__(**kwargs)
        self.prompt = prompt or PlainPrompt()
        self.engine, self.grader = engine, grader or Grader()
        self.evaluation = evaluation or Sampling(temperature=0.0)
        #: The last rollout, and the trajectories of the evaluation under way; for callbacks.
        self.rollout: list[Trajectory] = []
        self.evaluated: list[Trajectory] = []
        self._results: list[ProblemResult] = []
        self._policy: Policy | None = None
        self._sampling_seed = 0

    # Sampling

    def on_fit_start(self) -> None:
        """Fix the seed that all sampling of this run derives from."""
        super().on_fit_start()
        if not self._sampling_seed:
            self._sampling_seed = torch.initial_seed() % 2**62 + 1

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the seed of sampling."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["sampling_seed"] = self._sampling_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the seed of sampling."""
        super().on_load_checkpoint(checkpoint)
        self._sampling_seed = checkpoint.get("sampling_seed", 0)

    def ready_policy(self) -> Policy:
        """Return the policy with the present weights, stamped with the number of optimizer steps.

        Raises:
            ConfigError: If there is no engine.
        """
        if self.engine is None:
            raise ConfigError(
                f"{type(self).__name__} samples completions: set model.init_args.engine, such as HFEngine or"
                " VLLMEngine."
            )
        if self._policy is None:
            self._policy = Policy(self.language_model, self.prompt, self.engine, self.grader)
        self._policy.ready(self.global_step)
        return self._policy

    def seed_of(self, purpose: str) -> SeedOf:
        """Return what gives draws their seeds, which depend on run, step of training, purpose and what is drawn for."""
        step = self.global_step if purpose in TRAINING_PURPOSES else 0
        return partial(derive_seed, self._sampling_seed, purpose, step)

    def sample(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        purpose: str,
        sampler: TrajectorySampler | None = None,
    ) -> list[Trajectory]:
        """Sample and grade completions; a problem's seed depends on run, step, purpose and its id alone."""
        return (sampler or GroupSampler())(self.ready_policy(), problems, sampling, self.seed_of(purpose))

    def teardown(self, stage: str) -> None:
        """End the engine and the grader's processes."""
        if self._policy is not None:
            self._policy.close()
        self.grader.pool.close()

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self._results, self.evaluated = [], []

    def on_test_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.on_validation_epoch_start()

    def evaluate_problems(self, batch: RecordBatch, stage: str) -> None:
        """Sample, grade and keep the results of a batch of problems."""
        if self.engine is None or "problem" not in batch:
            return
        trajectories = self.sample(batch["problem"], self.evaluation, stage)
        self.evaluated += trajectories
        self._results += problem_results([outcome_of(t) for t in trajectories], self.grader)

    def validation_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate a batch."""
        self.evaluate_problems(batch, "val")

    def test_step(self, batch: RecordBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate a batch."""
        self.evaluate_problems(batch, "test")

    def on_predict_start(self) -> None:
        """Sample with the model's own forward pass where there is no engine: to predict is to sample."""
        if self.engine is None:
            self.engine = HFEngine()

    def predict_step(self, batch: RecordBatch, batch_idx: int) -> list[dict[str, object]]:
        """Return a batch's completions, sampled as in evaluation, one row each, with their problem's position."""
        starts, seed_of = self.starts(batch), self.seed_of("predict")
        trajectories = self.ready_policy().complete(starts, self.evaluation, [seed_of(s.problem.id) for s in starts])
        return [{"index": int(batch["index"][t.group]), "sample": t.sample, **t.as_shown()} for t in trajectories]

    def starts(self, batch: RecordBatch) -> list[Start]:
        """Return where the answers to a batch begin, numbered by their group."""
        return [Start(problem, group=i) for i, problem in enumerate(batch["problem"])]

    def on_validation_epoch_end(self) -> None:
        """Log what all ranks' evaluations say."""
        self._log_results("val")

    def on_test_epoch_end(self) -> None:
        """Log what all ranks' evaluations say."""
        self._log_results("test")

    def _log_results(self, stage: str) -> None:
        results = gather_rows(self._results)
        if results:
            for name, value in summarise_results(results).items():
                self.log(f"{stage}/{name}", value, batch_size=1)


class Stopwatch:
    """Seconds spent in the phases of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
