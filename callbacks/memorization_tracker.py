"""Which training examples a language model solves, and which it has only memorized, over a fine-tuning run."""

import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from surefoot.contracts import PolicyModule, ProblemSource, contract_of, datamodule_as, module_as
from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import perplexities
from surefoot.reasoning.learning_dynamics import checkpoint_step, write_checkpoint
from surefoot.reasoning.metrics.memorization import advance_pre_memorization, is_memorized
from surefoot.reasoning.policy import Policy, Start
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.rollouts import HFEngine, RolloutEngine, Sampling
from surefoot.reasoning.sequences import PromptCompletion
from surefoot.reasoning.trajectories import Trajectory
from surefoot.training.distributed import gather_rows
from surefoot.training.seeds import derive_seed

__all__ = ("MemorizationTracker", "TrackedAnswers", "TrackedProblems")

Row = dict[str, Any]


@dataclass(frozen=True)
class TrackedProblems:
    """Which problems are tracked.

    Args:
        data: Datamodule whose training problems are tracked, where the run's own has none (pairs, completions).
        test_split: Also sample answers to this split's problems, to compare; none by default.
        samples_per_checkpoint: Most answers sampled at a checkpoint, which bounds the cost: of more training (and test)
            problems than that allows a fixed subset is tracked.
    """

    data: LightningDataModule | None = None
    test_split: Literal["val", "test"] | None = None
    samples_per_checkpoint: int = 10_000


@dataclass(frozen=True)
class TrackedAnswers:
    """How tracked problems are answered.

    Args:
        sampling: How answers are sampled; by default 5 at temperature 0.8 and top_p 0.95 of at most 512 tokens.
        greedy: Also take each training problem's greedy answer and its log-probability (for ATC).
        prefixes: At the end of training, also sample with the answer started by each of these texts: what was memorized
            fails under such a start.
    """

    sampling: Sampling | None = None
    greedy: bool = False
    prefixes: tuple[str, ...] = ()


class MemorizationTracker(Callback):
    """Measures pre-memorization train accuracy, which predicts test accuracy without a test set.

    At every checkpoint it samples answers to training problems, grades them, measures the perplexity of their reference
    traces, and appends a file to ``<run folder>/memorization`` (`surefoot.reasoning.learning_dynamics` reads it). It
    logs ``memorization/train_accuracy``, ``memorization/pre_memorization_accuracy``, ``memorization/share_memorized``,
    ``memorization/median_perplexity`` and ``memorization/share_of_time``. Training is not touched: a run with it and a
    run without it end in the same weights.

    Reference: Kang et al. 2024, arXiv 2411.07681.

    Attributes:
        accuracies: Pre-memorization accuracy of each tracked example, by id, at the last checkpoint.
    """

    def __init__(
        self,
        problems: TrackedProblems | None = None,
        answers: TrackedAnswers | None = None,
        log_log_threshold: float = -2.3,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        engine: RolloutEngine | None = None,
        folder: str = "memorization",
        seed: int | None = None,
    ) -> None:
        """Initialize the tracker.

        Args:
            problems: Which problems are tracked; by default the training problems, within a budget.
            answers: How they are answered; by default by 5 samples of each problem.
            log_log_threshold: log(log()) of the perplexity below which an example counts as memorized; the paper's are
                -2.3 for GSM8K and -1.7 for MATH. The record holds perplexities: another threshold needs no other run.
            every_n_epochs: Epochs between checkpoints.
            every_n_steps: Optimizer steps between checkpoints, instead of epochs.
            engine: Samples; by default the module's own, or else an HFEngine.
            folder: Name of the record's folder within the run folder.
            seed: Seed of the subset and of the sampling; the run's ``seed_everything`` by default, 0 outside the
                command line.

        Raises:
            ConfigError: If a number is out of range.
        """
        self.problems, self.answers = problems or TrackedProblems(), answers or TrackedAnswers()
        self.sampling = self.answers.sampling or Sampling(n=5, temperature=0.8, top_p=0.95, max_tokens=512)
        samples_per_checkpoint = self.problems.samples_per_checkpoint
        if min(every_n_epochs, every_n_steps or 1) < 1 or every_n_steps == 0:
            raise ConfigError(
                f"every_n_epochs and every_n_steps must be positive, got {every_n_epochs} and {every_n_steps}."
            )
        if samples_per_checkpoint < self.sampling.n:
            raise ConfigError(
                f"samples_per_checkpoint is {samples_per_checkpoint}, fewer than the {self.sampling.n} samples of one"
                " problem."
            )
        if not math.isfinite(log_log_threshold):
            raise ConfigError(f"log_log_threshold must be finite, got {log_log_threshold}.")
        self.log_log_threshold = log_log_threshold
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.engine, self.folder, self.seed = engine, folder, seed or 0
        self.accuracies: dict[str, float] = {}
        self._best: dict[str, float] = {}  # best accuracy so far while not memorized
        self._ever_memorized = False
        self._last = -1
        self._seconds = {"tracking": 0.0, "before": 0.0}
        self._began = 0.0
        self._policy: Policy | None = None  # with an engine of one's own
        self._problems: dict[str, list[Problem]] = {}

    # When

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the run has what is tracked.

        Raises:
            ConfigError: If it trains no language model that answers problems, or has no training problems.
        """
        try:
            self._module(pl_module)
        except ConfigError as error:
            raise ConfigError(f"{error} For classifiers use ExampleDynamics.") from error
        try:
            self._source(trainer)
        except ConfigError as error:
            raise ConfigError(
                f"{error} Set the tracker's init_args.problems.data, such as {{class_path: GSM8KDataModule}}."
            ) from error

    def _module(self, module: LightningModule) -> PolicyModule:
        return module_as(module, PolicyModule, "MemorizationTracker")

    def _source(self, trainer: Trainer) -> ProblemSource:
        if self.problems.data is not None:
            return contract_of(self.problems.data, ProblemSource, "MemorizationTracker")
        return datamodule_as(trainer, ProblemSource, "MemorizationTracker")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose what is tracked; drop the record of steps that are about to be taken again."""
        self._began = time.perf_counter()
        source = self._source(trainer)
        train = list(source.problems("train"))
        test = list(source.problems(self.problems.test_split)) if self.problems.test_split else []
        self._problems = self._within_budget({"train": train, "test": test})
        unsolved = next((p.id for p in self._problems["train"] if not p.solution), None)
        if unsolved is not None:
            raise ConfigError(
                f"MemorizationTracker measures the perplexity of reference solutions, and the problem {unsolved} has"
                " none."
            )
        if trainer.is_global_zero:
            for path in self._record(trainer).glob("step-*.parquet"):
                if checkpoint_step(path) > trainer.global_step:
                    path.unlink()
        if self.every_n_steps is not None:
            self._last = trainer.global_step // self.every_n_steps

    def _within_budget(self, problems: dict[str, list[Problem]]) -> dict[str, list[Problem]]:
        """Return as many problems of each split as the budget allows, the same in every run; their order stays."""
        per_problem = self.sampling.n + int(self.answers.greedy)
        allowed = max(1, self.problems.samples_per_checkpoint // per_problem)
        n_all = sum(len(p) for p in problems.values())
        kept = {}
        for split, given in problems.items():
            n = len(given) if n_all <= allowed else max(1, allowed * len(given) // n_all)
            order = sorted(range(len(given)), key=lambda i: derive_seed(self.seed, "tracked", given[i].id))
            kept[split] = [given[i] for i in sorted(order[:n])]
        return kept

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Measure when the next interval of steps has begun."""
        if self.every_n_steps is not None:
            interval = trainer.global_step // self.every_n_steps
            if interval > self._last:
                self._last = interval
                self._checkpoint(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at the end of every so many epochs, unless steps are counted."""
        if self.every_n_steps is None and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._checkpoint(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample with started answers, warn if the metric was trivial, and close an engine that is not the method's."""
        if self.answers.prefixes and self.accuracies:
            self._perturb(trainer, pl_module)
        if self.accuracies and not self._ever_memorized and trainer.is_global_zero:
            warnings.warn(
                "no tracked example was ever memorized in this run: its pre-memorization accuracy is then a running"
                " maximum of plain train accuracy and is no evidence for or against the method.",
                stacklevel=2,
            )
        if self._policy is not None:
            self._policy.close()
            self._policy = None

    # What

    def _checkpoint(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, record and log."""
        began = time.perf_counter()
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            rows = gather_rows(self._measure(trainer, pl_module))
        if trainer.is_global_zero:
            write_checkpoint(self._record(trainer), trainer.global_step, rows)
        values = self._update(rows)
        now = time.perf_counter()
        self._seconds["tracking"] += now - began
        elapsed = self._seconds["before"] + now - self._began
        values["share_of_time"] = self._seconds["tracking"] / elapsed
        self._log(trainer, pl_module, {f"memorization/{n}": v for n, v in values.items()})

    def _log(self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float]) -> None:
        """Log, once: within an epoch Lightning would repeat values in the rows of later steps."""
        if self.every_n_steps is None:
            pl_module.log_dict(values, rank_zero_only=False)
            return
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> list[Row]:
        """Return this rank's rows."""
        module = self._module(pl_module)
        rows: list[Row] = []
        for split, problems in self._problems.items():
            mine = problems[trainer.global_rank :: trainer.world_size]
            groups = self._sample(trainer, pl_module, mine, self.sampling)
            traces = [
                PromptCompletion(
                    module.prompt.prompt_ids(p, module.language_model),
                    module.prompt.target_ids(p, module.language_model),
                )
                for p in (mine if split == "train" else [])
            ]
            measured = perplexities(
                module.language_model, traces, module.max_tokens_per_pack, module.equalise_packs
            ).tolist()
            greedy: Sequence[Sequence[Trajectory]] = ()
            if self.answers.greedy and split == "train":
                one = Sampling(n=1, temperature=0.0, max_tokens=self.sampling.max_tokens)
                greedy = self._sample(trainer, pl_module, mine, one)
            for i, (problem, group) in enumerate(zip(mine, groups, strict=True)):
                rows.append(
                    {
                        "split": split,
                        "id": problem.id,
                        "step": trainer.global_step,
                        "epoch": trainer.current_epoch,
                        "n_samples": len(group),
                        "n_correct": _n_correct(group),
                        "perplexity": measured[i] if split == "train" else None,
                        "greedy_logprob": sum(greedy[i][0].behaviour_logprobs) if greedy else None,
                    }
                )
        return rows

    def _sample(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        problems: Sequence[Problem],
        sampling: Sampling,
        prefix: str = "",
    ) -> list[list[Trajectory]]:
        """Return each problem's graded answers; seeds depend on problem, step and tracker alone."""
        if not problems:
            return []
        policy = self._ready_policy(trainer, pl_module)
        given = policy.model.encode(prefix) if prefix else []
        starts = [Start(p, given, i) for i, p in enumerate(problems)]
        seeds = [derive_seed(self.seed, trainer.global_step, prefix, p.id) for p in problems]
        groups: list[list[Trajectory]] = [[] for _ in problems]
        for trajectory in policy.complete(starts, sampling, seeds):
            groups[trajectory.group].append(trajectory)
        return groups

    def _ready_policy(self, trainer: Trainer, pl_module: LightningModule) -> Policy:
        """Return the policy with the present weights: with an engine of one's own, or the module's."""
        module = self._module(pl_module)
        if self.engine is None and module.engine is not None:
            return module.ready_policy()
        if self._policy is None:
            self._policy = Policy(module.language_model, module.prompt, self.engine or HFEngine(), module.grader)
        self._policy.ready(trainer.global_step)
        return self._policy

    def _update(self, rows: Sequence[Row]) -> dict[str, float]:
        """Take the rows into account and return what is logged."""
        train = [r for r in rows if r["split"] == "train"]
        accuracies = torch.tensor([r["n_correct"] / r["n_samples"] for r in train])
        measured = torch.tensor([r["perplexity"] for r in train])
        memorized = is_memorized(measured, self.log_log_threshold)
        self._ever_memorized |= bool(memorized.any())
        best = torch.tensor([self._best.get(r["id"], 0.0) for r in train])
        best, pre = advance_pre_memorization(best, accuracies, measured, self.log_log_threshold)
        ids = [r["id"] for r in train]
        self._best |= dict(zip(ids, best.tolist(), strict=True))
        self.accuracies = dict(zip(ids, pre.tolist(), strict=True))
        values = {
            "train_accuracy": accuracies.mean(),
            "pre_memorization_accuracy": pre.mean(),
            "share_memorized": memorized.float().mean(),
            "median_perplexity": measured.median(),
        }
        test = [r["n_correct"] / r["n_samples"] for r in rows if r["split"] == "test"]
        if test:
            values["test_accuracy"] = torch.tensor(test).mean()
        return {name: float(value) for name, value in values.items()}

    def _perturb(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``prefixes.json``: per start of an answer, how many samples of each training problem are correct."""
        problems = self._problems["train"][trainer.global_rank :: trainer.world_size]
        rows: list[Row] = []
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            for prefix in ("", *self.answers.prefixes):
                groups = self._sample(trainer, pl_module, problems, self.sampling, prefix)
                rows += [
                    {
                        "prefix": prefix,
                        "id": p.id,
                        "n_samples": len(group),
                        "n_correct": _n_correct(group),
                        "pre_memorization_accuracy": self.accuracies[p.id],
                    }
                    for p, group in zip(problems, groups, strict=True)
                ]
        rows = gather_rows(rows)
        if trainer.is_global_zero:
            path = self._record(trainer) / "prefixes.json"
            path.write_text(json.dumps(rows), encoding="utf-8")

    def _record(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.folder

    def state_dict(self) -> dict[str, object]:
        """Return what the next checkpoints build on."""
        elapsed = self._seconds["before"] + time.perf_counter() - self._began
        return {
            "best": dict(self._best),
            "accuracies": dict(self.accuracies),
            "ever_memorized": self._ever_memorized,
            "seconds": {"tracking": self._seconds["tracking"], "before": elapsed},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._best, self.accuracies = dict(state_dict["best"]), dict(state_dict["accuracies"])
        self._ever_memorized = bool(state_dict["ever_memorized"])
        self._seconds = dict(state_dict["seconds"])


def _n_correct(group: Sequence[Trajectory]) -> int:
    return sum(t.is_correct for t in group)
