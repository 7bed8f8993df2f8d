"""A number for each token of a sequence, read off the hidden states of a language model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ("ValueHead",)


class ValueHead(nn.Module):
    """A linear map from last hidden states to one number a token, computed in float32 whatever the model's precision.

    It starts at 0 for every token: a value of 0, or as a logit a probability of 1/2.
    """

    def __init__(self, width: int) -> None:
        """Initialize the head.

        Args:
            width: Width of the hidden states, `LanguageModel.width`.
        """
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, " tokens"]:
        """Return a number for each hidden state.

        Args:
            hidden: Rows of `LanguageModel.hidden_states`.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = nn.functional.linear(hidden.float(), self.linear.weight.float(), self.linear.bias.float())
        return values[:, 0]
