"""What language-model methods share: updates over packs, an engine with the same weights, evaluation by sampling."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_modules.base import ResumableModule
from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.metrics import ProblemResult, problem_results, summarise_results
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.rollouts import (
    GroupSampler,
    HFEngine,
    RolloutEngine,
    Sampling,
    derive_seed,
    grade_trajectories,
    with_stops,
)
from surefoot.reasoning.sequences import Pack, empty_pack, split_spans
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.distributed import gather_rows, sum_over_ranks

__all__ = ("ReasoningModule",)


class ReasoningModule(ResumableModule):
    """A language model, how problems are put to it, and how its weights are updated.

    An update is one optimizer step over a batch that is cut into packs of at most ``max_tokens_per_pack`` tokens:
    memory is bounded by a pack, while the batch is as large as the paper says. Losses are normalised over all ranks'
    tokens before the first pack, so that packs and ranks add up to the loss of the whole batch.

    Dropout is off in training, the model's own and that of adapters: the log-probabilities of reinforcement learning
    and of preferences are then those of the policy that is sampled from. Supervised methods train with dropout as it is
    configured.
    """

    trains_with_dropout = False

    def __init__(
        self,
        language_model: LanguageModel,
        optimizer: OptimizerCallable,
        prompt: Prompt | None = None,
        max_tokens_per_pack: int = 2048,
        max_gradient_norm: float | None = 1.0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup: float = 0.0,
        engine: RolloutEngine | None = None,
        grader: Grader | None = None,
        evaluation: Sampling | None = None,
    ) -> None:
        """Initialize the module.

        Args:
            language_model: The model to train.
            optimizer: Optimizer of its parameters.
            prompt: How problems become token ids; the question and a line break by default.
            max_tokens_per_pack: Most tokens that are put through the model at once; a single longer sequence still is.
            max_gradient_norm: Gradients are scaled down to this norm; null to leave them.
            schedule: Learning rate after warm-up: constant, or falling to 0 linearly or along a cosine.
            warmup: Warm-up, in optimizer steps, or below 1 as a share of all steps.
            engine: Samples completions; without one evaluation does not sample.
            grader: Finds and compares final answers; by default the mixed extraction rule.
            evaluation: How completions are sampled in evaluation; by default one greedy completion of 256 tokens.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__()
        if max_tokens_per_pack < 1 or warmup < 0:
            raise ConfigError(
                f"expected max_tokens_per_pack >= 1 and warmup >= 0, got {max_tokens_per_pack} and {warmup}."
            )
        self.automatic_optimization = False
        self.language_model = language_model
        self.optimizer, self.schedule, self.warmup = optimizer, schedule, warmup
        self.prompt = prompt or PlainPrompt()
        self.max_tokens_per_pack, self.max_gradient_norm = max_tokens_per_pack, max_gradient_norm
        self.engine, self.grader = engine, grader or Grader()
        self.evaluation = evaluation or Sampling(temperature=0.0)
        #: The last rollout, and the trajectories of the evaluation under way; for callbacks.
        self.rollout: list[Trajectory] = []
        self.evaluated: list[Trajectory] = []
        self._results: list[ProblemResult] = []
        self._engine_version: int | None = None
        self._sampling_seed = 0

    # The model and its optimizer

    def configure_model(self) -> None:
        """Shard the model over ranks where the strategy asks for it (FSDP2).

        With the precision bf16-mixed each rank keeps its share of the weights in float32, computes with bfloat16 copies
        of them, and gradients are summed over ranks in float32.
        """
        mesh = self.device_mesh
        if mesh is None or getattr(self, "_sharded", False):
            return
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        data_mesh = mesh["data_parallel"]
        mixed = self.trainer.precision == "bf16-mixed"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=torch.float32 if mixed else None,
            cast_forward_inputs=False,  # weights of tokens in the loss are float32
        )
        for layer in _layers(self.language_model.base):
            fully_shard(layer, mesh=data_mesh, mp_policy=policy)
        # The root holds embedding and head, which may be tied: both are used in its forward pass alone.
        fully_shard(self.language_model, mesh=data_mesh, mp_policy=policy)
        self._sharded = True

    def configure_optimizers(self) -> Any:
        """Build the optimizer and a schedule that is stepped with every update."""
        from transformers import get_scheduler

        optimizer = self.optimizer(p for p in self.language_model.parameters() if p.requires_grad)
        if self.schedule == "constant" and self.warmup == 0:
            return optimizer
        n_steps = self.trainer.estimated_stepping_batches * self.updates_per_batch
        if self.trainer.max_steps > 0:  # counts optimizer steps
            n_steps = min(n_steps, self.trainer.max_steps)
        if not n_steps < float("inf"):
            raise ConfigError("a schedule needs trainer.max_steps or trainer.max_epochs.")
        warmup = round(self.warmup if self.warmup >= 1 else self.warmup * n_steps)
        name = "constant_with_warmup" if self.schedule == "constant" else self.schedule
        return [optimizer], [get_scheduler(name, optimizer, warmup, int(n_steps))]

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps for each batch of the loader."""
        return 1

    def update(self, packs: Sequence[Pack], pack_loss: Callable[[Pack], Tensor]) -> Tensor:
        """Take one optimizer step on the sum of the packs' losses over all ranks.

        Args:
            packs: This rank's packs; ranks may have different numbers of them.
            pack_loss: Returns a pack's share of the loss.

        Returns:
            The loss over all ranks, without gradient.
        """
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        packs = self.level(packs) or [empty_pack(self.language_model.eos_token_id)]
        for i, pack in enumerate(packs):
            with self._synchronised(i + 1 == len(packs)):
                loss = self.check_finite(pack_loss(pack.to(self.device)))
                self.manual_backward(self.n_ranks * loss)  # ranks' gradients are averaged
            total += loss.detach()
        if self.max_gradient_norm is not None:
            norm = nn.utils.clip_grad_norm_(list(self._trained()), self.max_gradient_norm)
            self.log("train/gradient_norm", _plain(norm), batch_size=1)
        optimizer.step()
        scheduler: Any = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()
        return sum_over_ranks(total)

    def level(self, packs: Sequence[Pack]) -> list[Pack]:
        """Return the packs; where weights are sharded, as many as the rank with the most has."""
        packs = list(packs)
        if not any(hasattr(p, "full_tensor") for p in self.language_model.parameters()):
            return packs
        most = torch.tensor(len(packs), device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        filler = empty_pack(self.language_model.eos_token_id)
        return packs + [filler] * (int(most) - len(packs))

    def _trained(self) -> Iterator[nn.Parameter]:
        return (p for p in self.language_model.parameters() if p.requires_grad)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Exchange gradients between ranks only with the last pack."""
        wrapper: Any = self.trainer.strategy.model
        if last or not hasattr(wrapper, "no_sync"):
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = wrapper.no_sync()
        return context

    # Sampling

    def on_fit_start(self) -> None:
        """Fix the seed that all sampling of this run derives from."""
        self.language_model.train()  # Lightning warns of what is in evaluation mode; `on_train_start` decides
        if not self._sampling_seed:
            self._sampling_seed = torch.initial_seed() % 2**62 + 1

    def on_train_start(self) -> None:
        """Set the mode that the model is trained in."""
        super().on_train_start()
        self.language_model.training_mode(self.trains_with_dropout)
        lora = self.language_model.lora
        if not self.trains_with_dropout and lora is not None and lora.dropout > 0:
            rank_zero_warn(
                f"{type(self).__name__} trains with dropout off: lora.dropout {lora.dropout:g} has no effect."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the seed of sampling."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["sampling_seed"] = self._sampling_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the seed of sampling."""
        super().on_load_checkpoint(checkpoint)
        self._sampling_seed = checkpoint.get("sampling_seed", 0)

    def ready_engine(self) -> RolloutEngine:
        """Return the engine with the present weights, stamped with the number of optimizer steps.

        Raises:
            ConfigError: If there is none.
        """
        if self.engine is None:
            raise ConfigError(
                f"{type(self).__name__} samples completions: set model.init_args.engine, such as HFEngine or"
                " VLLMEngine."
            )
        if self._engine_version is None:
            self.engine.start(self.language_model, self.global_step)
        elif self._engine_version != self.global_step:
            self.engine.update_weights(self.language_model.named_weights(), self.global_step)
        self._engine_version = self.global_step
        return self.engine

    def sample(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        purpose: str,
        sampler: Any = None,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> list[Trajectory]:
        """Sample and grade completions; a problem's seed depends on run, step, purpose and its id alone."""
        engine = self.ready_engine()
        if prompts is None:
            prompts = [self.prompt.prompt_ids(p, self.language_model) for p in problems]
        step = self.global_step if purpose == "train" else 0
        seeds = [derive_seed(self._sampling_seed, purpose, step, p.id) for p in problems]
        sampling = with_stops(sampling, self.prompt, self.language_model)
        trajectories: list[Trajectory] = (sampler or GroupSampler())(engine, problems, prompts, sampling, seeds)
        grade_trajectories(trajectories, self.language_model, self.grader, self.prompt, sampling)
        return trajectories

    def cut_into_steps(self, trajectories: Sequence[Trajectory], separator: str) -> None:
        """Fill in the trajectories' spans and steps; the end of sequence, or a stop text, belongs to the last span."""
        for t in trajectories:
            t.spans, t.steps = split_spans(t.completion, self.language_model.decode, separator, t.text)

    def teardown(self, stage: str) -> None:
        """End the engine."""
        if self.engine is not None and self._engine_version is not None:
            self.engine.close()
            self._engine_version = None
        self.grader.pool.close()

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self._results, self.evaluated = [], []

    def on_test_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.on_validation_epoch_start()

    def evaluate_problems(self, batch: dict[str, Any], stage: str) -> None:
        """Sample, grade and keep the results of a batch of problems."""
        if self.engine is None or "problem" not in batch:
            return
        trajectories = self.sample(batch["problem"], self.evaluation, stage)
        self.evaluated += trajectories
        self._results += problem_results(trajectories, self.grader)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Evaluate a batch."""
        self.evaluate_problems(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Evaluate a batch."""
        self.evaluate_problems(batch, "test")

    def on_predict_start(self) -> None:
        """Sample with the model's own forward pass where there is no engine: to predict is to sample."""
        if self.engine is None:
            self.engine = HFEngine()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Return a batch's completions, sampled as in evaluation, one row each, with their problem's position."""
        problems, prompts = self.problems_and_prompts(batch)
        trajectories = self.sample(problems, self.evaluation, "predict", None, prompts)
        numbers: dict[int, int] = {}
        rows = []
        for t in trajectories:
            sample = numbers[t.group] = numbers.get(t.group, -1) + 1
            rows.append(
                {
                    "index": int(batch["index"][t.group]),
                    "sample": sample,
                    "problem": t.problem.id,
                    "question": t.problem.question,
                    "completion": t.text,
                    "answer": t.grade.answer if t.grade else None,
                    "reference": t.problem.answer or None,
                    "grade": t.grade.status if t.grade and t.problem.answer else None,
                    "finish_reason": t.finish_reason,
                    "tokens": len(t.completion),
                }
            )
        return rows

    def problems_and_prompts(self, batch: dict[str, Any]) -> tuple[list[Problem], list[list[int]]]:
        """Return a batch's problems and their prompts' token ids."""
        problems = list(batch["problem"])
        return problems, [self.prompt.prompt_ids(p, self.language_model) for p in problems]

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


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder's layers: the longest list of modules."""
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _plain(value: Tensor) -> Tensor:
    """Return a tensor that is whole on this rank."""
    gather = getattr(value, "full_tensor", None)
    return (value if gather is None else gather()).detach()
