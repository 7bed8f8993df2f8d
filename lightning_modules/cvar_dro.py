"""CVaR-DRO."""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_modules.classification import AllExamples, ReweightedClassifier
from surefoot.classification.networks import Encoder
from surefoot.errors import ConfigError
from surefoot.losses import cvar_example_weights

__all__ = ("CVaRDRO",)


class CVaRDRO(ReweightedClassifier):
    """Minimise the mean loss of the batch's worst share.

    Reference: Levy et al., NeurIPS 2020, arXiv 2010.05893, the batch estimator.
    """

    def __init__(
        self,
        encoder: Encoder,
        optimizer: OptimizerCallable,
        level: float = 0.1,
        **classifier: Any,
    ) -> None:
        """Initialize CVaR-DRO.

        Args:
            encoder: Network from inputs to features; a linear head is put on it.
            optimizer: Optimizer of the network's parameters.
            level: Share of the examples in the tail, in (0, 1]; 1 is ERM. Batches of 10/level or more keep the
                bias of the batch estimator small.
            classifier: Arguments of `ClassifierModule`.

        Raises:
            ConfigError: If the level is outside (0, 1].
        """
        super().__init__(encoder, optimizer, **classifier)
        if not 0 < level <= 1:
            raise ConfigError(f"level must be in (0, 1], got {level}.")
        self.level = level

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Share the weight evenly among the highest losses."""
        return cvar_example_weights(examples.losses, self.level)
