"""JTT: examples that a weak model gets wrong appear more often.

Reference: Liu et al., ICML 2021, arXiv 2107.09044, Algorithm 1.
"""

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ("upsampling_multiplicity",)


def upsampling_multiplicity(errors: Bool[Tensor, " examples"], upweight: float) -> Float[Tensor, " examples"]:
    """Return how often each example appears: once, and ``upweight`` times more if it is in the error set.

    The paper writes the multiplicity itself as lambda_up; the authors' code appends ``upweight`` copies, so does this.

    Args:
        errors: True for an example in the error set, ``(examples,)``.
        upweight: Extra copies of an example in the error set, at least 0.

    Returns:
        Multiplicity per example, ``(examples,)``.

    Raises:
        ValueError: If ``upweight`` is negative.
    """
    if upweight < 0:
        raise ValueError(f"upweight must be at least 0, got {upweight}.")
    return 1.0 + upweight * errors.float()
