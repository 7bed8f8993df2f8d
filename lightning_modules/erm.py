"""ERM: the mean loss."""

from torch import Tensor

from lightning_modules.classification import Examples, ReweightedClassifier

__all__ = ("ERM",)


class ERM(ReweightedClassifier):
    """Minimise the mean loss; with a balanced sampler of the datamodule, the RWY and RWG baselines."""

    def example_weights(self, examples: Examples) -> Tensor:
        """Weight every example alike."""
        return self.uniform_weights(examples.losses)
