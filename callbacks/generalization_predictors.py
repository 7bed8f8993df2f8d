"""Older predictors of generalisation, measured during a run to compare with pre-memorization accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from surefoot.contracts import ProblemSource, PromptedModule, datamodule_as, module_as
from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.metrics.generalization import gradient_variance, squared_distance
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences
from surefoot.training.distributed import is_sharded
from surefoot.training.modes import evaluation_mode

__all__ = ("GeneralizationPredictors",)


class GeneralizationPredictors(Callback):
    """Logs ``predictors/gradient_variance`` and ``predictors/distance_from_start`` at epochs' ends.

    The distance is squared and leaves out embedding and head. Gradients are those of the mean loss per token of
    reference solutions, in batches of training problems that are the same at every epoch. A copy of the initial weights
    is kept, and goes into checkpoints. Training is not touched. Every rank computes the same; sharded weights are not
    supported.

    Reference: Kang et al. 2024, arXiv 2411.07681, baselines.
    """

    def __init__(self, n_batches: int = 5, batch_size: int = 128, every_n_epochs: int = 1) -> None:
        """Initialize the callback.

        Args:
            n_batches: Batches between which the gradients' variance is taken.
            batch_size: Training problems of a batch.
            every_n_epochs: Epochs between measurements.

        Raises:
            ConfigError: If there are fewer than two batches, or another number is not positive.
        """
        if n_batches < 2 or batch_size < 1 or every_n_epochs < 1:
            raise ConfigError(
                "expected n_batches >= 2, batch_size >= 1 and every_n_epochs >= 1, got"
                f" {n_batches}, {batch_size} and {every_n_epochs}."
            )
        self.n_batches, self.batch_size = n_batches, batch_size
        self.every_n_epochs = every_n_epochs
        self._start: dict[str, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the run trains a language model on problems.

        Raises:
            ConfigError: If it does not.
        """
        self._module(pl_module)
        self._problems(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the initial weights, unless a checkpoint brought them."""
        model = self._module(pl_module).language_model
        if is_sharded(model):
            raise ConfigError("GeneralizationPredictors does not support sharded weights.")
        if self._start is None:
            self._start = {n: p.detach().cpu().clone() for n, p in self._body(model)}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        assert self._start is not None
        module = self._module(pl_module)
        with trainer.precision_plugin.forward_context():
            gradients = [self._gradient(module, batch) for batch in self._batches(trainer)]
        distance = squared_distance(dict(self._body(module.language_model)), self._start)
        pl_module.log("predictors/distance_from_start", distance, rank_zero_only=False)
        if len(gradients) > 1:
            variance = gradient_variance(gradients)
            pl_module.log("predictors/gradient_variance", variance, rank_zero_only=False)

    def _module(self, module: LightningModule) -> PromptedModule:
        return module_as(module, PromptedModule, "GeneralizationPredictors")

    def _body(self, model: LanguageModel) -> list[tuple[str, Tensor]]:
        """Return the trained parameters but for embedding and head."""
        base = model.base
        outside = {
            id(p) for layer in (base.get_input_embeddings(), base.get_output_embeddings()) for p in layer.parameters()
        }
        return [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in outside]

    def _problems(self, trainer: Trainer) -> ProblemSource:
        return datamodule_as(trainer, ProblemSource, "GeneralizationPredictors")

    def _batches(self, trainer: Trainer) -> list[list[Problem]]:
        problems = list(self._problems(trainer).problems("train"))
        problems = problems[: self.n_batches * self.batch_size]
        size = min(self.batch_size, max(1, len(problems) // self.n_batches))
        return [problems[i * size : (i + 1) * size] for i in range(len(problems) // size)][: self.n_batches]

    def _gradient(self, module: PromptedModule, problems: Sequence[Problem]) -> list[Tensor]:
        """Return the gradient of the mean loss per token; no parameter's own gradient is touched."""
        model = module.language_model
        sequences = [
            PromptCompletion(module.prompt.prompt_ids(p, model), module.prompt.target_ids(p, model)) for p in problems
        ]
        n_tokens = sum(len(s.completion) for s in sequences)
        parameters = [p for p in model.parameters() if p.requires_grad]
        total = [torch.zeros_like(p) for p in parameters]
        with evaluation_mode(model):
            for pack in pack_sequences(sequences, module.max_tokens_per_pack):
                weights = torch.full((len(pack.targets),), -1 / n_tokens, device=model.device)
                with torch.enable_grad():
                    loss = model.weighted_logprob_sum(pack.to(model.device), weights)
                    parts = torch.autograd.grad(loss, parameters)
                total = [t + g for t, g in zip(total, parts, strict=True)]
        return total

    def state_dict(self) -> dict[str, object]:
        """Return the initial weights."""
        return {"start": self._start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self._start = state_dict["start"]
