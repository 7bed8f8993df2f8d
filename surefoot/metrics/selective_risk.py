"""Acting or abstaining under a reward for right answers and a penalty for wrong ones.

Reference: Kang et al., ICLR 2024, arXiv 2310.00873, section 6: policies by reward prediction, by classification and by
an oracle.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = (
    "ABSTAIN",
    "DecisionRewards",
    "act_above",
    "act_always",
    "act_on_rewards",
    "area_under_risk_coverage",
    "fit_temperatures",
    "reward_of",
)

#: The decision not to answer.
ABSTAIN = -1


class DecisionRewards(NamedTuple):
    """What decisions earn."""

    right: float = 1.0
    wrong: float = -4.0
    abstain: float = 0.0

    @property
    def threshold(self) -> float:
        """Probability of being right above which answering pays: ``(abstain - wrong) / (right - wrong)``."""
        return (self.abstain - self.wrong) / (self.right - self.wrong)


def act_on_rewards(outputs: Float[Tensor, "batch actions"]) -> Int[Tensor, " batch"]:
    """Take the action of the largest predicted reward; the last action is to abstain."""
    action = outputs.argmax(1)
    return torch.where(action == outputs.shape[1] - 1, ABSTAIN, action)


def act_always(logits: Float[Tensor, "batch classes"]) -> Int[Tensor, " batch"]:
    """Answer with the most probable class."""
    return logits.argmax(1)


def act_above(logits: Float[Tensor, "batch classes"], threshold: float) -> Int[Tensor, " batch"]:
    """Answer with the most probable class if its probability exceeds a threshold, else abstain."""
    confidence, action = logits.softmax(1).max(1)
    return torch.where(confidence > threshold, action, ABSTAIN)


def reward_of(
    decision: Int[Tensor, " batch"], target: Int[Tensor, " batch"], rewards: DecisionRewards
) -> Float[Tensor, " batch"]:
    """Return what each decision earns, ``(batch,)``, float64."""
    earned = torch.full(decision.shape, rewards.wrong, dtype=torch.float64, device=decision.device)
    earned[decision == target] = rewards.right
    earned[decision == ABSTAIN] = rewards.abstain
    return earned


def fit_temperatures(
    logits: Float[Tensor, "examples classes"], target: Int[Tensor, " examples"], steps: int = 100
) -> Float[Tensor, " classes"]:
    """Return one factor per class on the logits that minimises cross-entropy (vector scaling without bias, by L-BFGS).

    Fitted on the very examples that are judged, it makes the paper's oracle; fitted on held-out examples, a
    calibration. Classes that the targets do not have keep their factor's gradient from the others' losses.

    Args:
        logits: Class scores, ``(examples, classes)``.
        target: Class per example, ``(examples,)``.
        steps: Iterations at most.

    Returns:
        Factors above 0, ``(classes,)``, float64.
    """
    scores = logits.detach().double()
    with torch.enable_grad(), torch.inference_mode(False):
        scores = scores.clone()
        log_factors = torch.zeros(scores.shape[1], dtype=torch.float64, device=scores.device)
        log_factors.requires_grad_(True)
        optimizer = torch.optim.LBFGS([log_factors], max_iter=steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(scores * log_factors.exp(), target.clone())
            loss.backward()
            return loss

        optimizer.step(closure)
    return log_factors.detach().exp()


def area_under_risk_coverage(confidences: Float[Tensor, " examples"], wrong: Tensor) -> Float[Tensor, ""]:
    """Return the mean error rate over all coverages, when the most confident examples are answered first.

    Args:
        confidences: Higher is answered earlier, ``(examples,)``; ties in the order given.
        wrong: True where the answer is wrong, ``(examples,)``.

    Returns:
        Area in [0, 1]; NaN without examples. Reference: Geifman & El-Yaniv, NeurIPS 2017.
    """
    errors = wrong[confidences.argsort(descending=True, stable=True)].double().cumsum(0)
    return (errors / torch.arange(1, len(errors) + 1, device=errors.device)).mean()
