"""ERM: the mean loss."""

from torch import Tensor

from lightning_modules.classification import AllExamples, ReweightedClassifier, uniform_weights

__all__ = ("ERM",)


class ERM(ReweightedClassifier):
    """Minimise the mean loss; with a balanced sampler of the datamodule, the RWY and RWG baselines."""

    def example_weights(self, examples: AllExamples) -> Tensor:
        """Weight every example alike."""
        return uniform_weights(examples)
