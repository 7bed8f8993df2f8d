"""What methods that train a language model share: updates over packs, their schedule, sharded weights."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.base import ResumableModule
from surefoot.errors import ConfigError
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.sequences import Pack, empty_pack
from surefoot.training.distributed import is_sharded, sum_over_ranks, whole_tensor

__all__ = ("LanguageModelModule",)


@runtime_checkable
class _Deferring(Protocol):
    """A wrapper that sums gradients over ranks (DDP), and can wait with it."""

    def no_sync(self) -> contextlib.AbstractContextManager[None]: ...


class LanguageModelModule(ResumableModule):
    """A language model, and how its weights are updated; other parts that a method trains are modules beside it.

    An update is one optimizer step over a batch that is cut into packs of at most ``max_tokens_per_pack`` tokens:
    memory is bounded by a pack, while the batch is as large as the paper says. Losses are normalised over all ranks'
    tokens before the first pack, so that packs and ranks add up to the loss of the whole batch.

    Dropout is off in training, the model's own and that of adapters: the log-probabilities of reinforcement learning
    and of preferences are then those of the policy that is sampled from. Supervised methods train with dropout as it is
    configured.
    """

    trains_with_dropout = False
    _sharded = False

    def __init__(
        self,
        language_model: LanguageModel,
        optimizer: OptimizerCallable,
        max_tokens_per_pack: int = 2048,
        max_gradient_norm: float | None = 1.0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        warmup: float = 0.0,
    ) -> None:
        """Initialize the module.

        Args:
            language_model: The model to train.
            optimizer: Optimizer of its parameters.
            max_tokens_per_pack: Most tokens that are put through the model at once; a single longer sequence still is.
            max_gradient_norm: Gradients are scaled down to this norm; null to leave them.
            schedule: Learning rate after warm-up: constant, or falling to 0 linearly or along a cosine.
            warmup: Warm-up, in optimizer steps, or below 1 as a share of all steps.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__()
        if max_tokens_per_pack < 1 or not 0 <= warmup < math.inf:
            raise ConfigError(
                f"expected max_tokens_per_pack >= 1 and a finite warmup >= 0, got {max_tokens_per_pack} and {warmup}."
            )
        if max_gradient_norm is not None and not max_gradient_norm > 0:
            raise ConfigError(f"max_gradient_norm must be positive, or null, got {max_gradient_norm}.")
        self.automatic_optimization = False
        self.language_model = language_model
        self.optimizer, self.schedule, self.warmup = optimizer, schedule, warmup
        self.max_tokens_per_pack, self.max_gradient_norm = max_tokens_per_pack, max_gradient_norm

    def configure_model(self) -> None:
        """Shard the model, and every part beside it, over ranks where the strategy asks for it (FSDP2).

        With the precision bf16-mixed each rank keeps its share of the weights in float32, computes with bfloat16 copies
        of them, and gradients are summed over ranks in float32.
        """
        mesh = self.device_mesh
        if mesh is None or self._sharded:
            return
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        data_mesh = mesh["data_parallel"]
        mixed = self.trainer.precision == "bf16-mixed"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=torch.float32 if mixed else None,
            cast_forward_inputs=False,  # weights of tokens in the loss are float32
        )
        for part in [p for p in self.children() if list(p.parameters())]:
            # A model's own shard holds embedding and head, which may be tied: both are used in its own methods alone.
            for module in (*_layers(part), part):
                fully_shard(module, mesh=data_mesh, mp_policy=policy)
            for name in part.forward_methods if isinstance(part, LanguageModel) else ():
                register_fsdp_forward_method(part, name)
        self._sharded = True

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and a schedule that is stepped with every update."""
        from transformers import get_scheduler

        optimizer = self.optimizer(self.trained_parameters())
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
        packs = self.equalise_packs(packs) or [empty_pack(self.language_model.eos_token_id)]
        for i, pack in enumerate(packs):
            with self._synchronised(i + 1 == len(packs)):
                loss = self.check_finite(pack_loss(pack.to(self.device)))
                self.manual_backward(self.n_ranks * loss)  # ranks' gradients are averaged
            total += loss.detach()
        if self.max_gradient_norm is not None:
            norm = nn.utils.clip_grad_norm_(list(self.trained_parameters()), self.max_gradient_norm)
            self.log("train/gradient_norm", whole_tensor(norm), batch_size=1)
        optimizer.step()
        scheduler: Any = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()
        return sum_over_ranks(total)

    def equalise_packs(self, packs: Sequence[Pack]) -> list[Pack]:
        """Return the packs; where weights are sharded, as many as the rank with the most has."""
        packs = list(packs)
        if not is_sharded(self):
            return packs
        most = torch.tensor(len(packs), device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        filler = empty_pack(self.language_model.eos_token_id)
        return packs + [filler] * (int(most) - len(packs))

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that the optimizer changes, those of the model first."""
        return (p for p in self.parameters() if p.requires_grad)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Exchange gradients between ranks only with the last pack."""
        wrapper: object = self.trainer.strategy.model
        return contextlib.nullcontext() if last or not isinstance(wrapper, _Deferring) else wrapper.no_sync()

    # The mode of the model

    def on_fit_start(self) -> None:
        """Put the model into training mode: Lightning warns of what is in evaluation mode; `on_train_start` decides."""
        self.language_model.train()

    def on_train_start(self) -> None:
        """Set the mode that the model is trained in."""
        super().on_train_start()
        self.language_model.training_mode(self.trains_with_dropout)
        lora = self.language_model.lora
        if not self.trains_with_dropout and lora is not None and lora.dropout > 0:
            rank_zero_warn(
                f"{type(self).__name__} trains with dropout off: lora.dropout {lora.dropout:g} has no effect."
            )


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder's layers: the longest list of modules."""
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])
