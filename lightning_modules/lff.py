"""LfF: learning from failure."""

import copy
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.classification import AllExamples, ClassifierModule
from surefoot.classification.networks import Encoder
from surefoot.losses import class_maximum, generalized_cross_entropy, relative_difficulty
from surefoot.training.distributed import gather_batch, local_slice

__all__ = ("LfF",)


class LfF(ClassifierModule):
    """Train a biased network on what it finds easy, and a debiased one on what the biased one finds hard.

    Departures from the authors' code: both networks start from the same weights, so that pretrained encoders work;
    one optimizer holds both, which for element-wise optimizers equals one each.

    Reference: Nam et al., NeurIPS 2020, arXiv 2007.02561, Algorithm 1.
    """

    needs_cross_entropy = True

    biased_losses: Tensor
    debiased_losses: Tensor
    targets: Tensor

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable,
        q: float = 0.7,
        decay: float = 0.7,
        **classifier: Any,
    ) -> None:
        """Initialize LfF.

        Args:
            encoder: Network from inputs to features; a linear head is put on it, and both are copied once.
            optimizer: Optimizer of both networks' parameters.
            q: Exponent of the generalised cross-entropy, in (0, 1].
            decay: Decay of the moving average of each example's losses, in [0, 1).
            classifier: Arguments of `ClassifierModule`.
        """
        super().__init__(encoder, optimizer, **classifier)
        self.biased = copy.deepcopy(self.network)
        self.q, self.decay = q, decay
        if classifier.get("compile"):
            self.biased.compile()

    def setup(self, stage: str) -> None:
        """Allocate the moving averages; NaN marks an example not seen yet."""
        if stage == "fit":
            self.register_example_buffer("biased_losses", float("nan"))
            self.register_example_buffer("debiased_losses", float("nan"))
            self.register_example_buffer("targets", 0.0)

    def trained(self) -> nn.Module:
        """Return both networks."""
        return nn.ModuleList([self.network, self.biased])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the biased network's own loss plus the debiased network's weighted loss."""
        examples = self.run_network(batch)
        biased_logits = self.outputs_of(self.biased, batch["input"])[0].float()
        biased_losses = F.cross_entropy(biased_logits.detach(), batch["target"], reduction="none")
        weights = self.difficulty(gather_batch(biased_losses), AllExamples(examples))
        weights = local_slice(weights) / (len(biased_losses) * self.n_ranks)
        biased_loss = generalized_cross_entropy(biased_logits, batch["target"], self.q).mean()
        loss = self.check_finite(biased_loss + self.n_ranks * (weights * examples.losses).sum())
        return self.finish_step(loss, examples, weights)

    def difficulty(self, biased_losses: Tensor, examples: AllExamples) -> Tensor:
        """Update the moving averages and return W, the relative difficulty of all ranks' examples."""
        index, target = examples.column("index"), examples.column("target")
        self.targets[index] = target.float()
        scaled = []
        for buffer, losses in (
            (self.biased_losses, biased_losses),
            (self.debiased_losses, examples.losses),
        ):
            before = buffer[index]
            buffer[index] = torch.where(before.isnan(), losses, self.decay * before + (1 - self.decay) * losses)
            highest = class_maximum(buffer.nan_to_num(), self.targets.long(), self.network.head.out_features)
            scaled.append(buffer[index] / highest[target].clamp_min(1e-8))
        return relative_difficulty(scaled[0], scaled[1])
