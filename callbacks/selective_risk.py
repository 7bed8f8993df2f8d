"""What decisions earn under shift, when a wrong answer costs more than none."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from callbacks.evaluation import EvaluationObserver
from surefoot.contracts import ExampleBatch, PredictingModule, offers
from surefoot.errors import ConfigError
from surefoot.losses.prediction import UNLABELLED, CrossEntropy, PredictionLoss, RewardPrediction
from surefoot.metrics.selective_risk import (
    ABSTAIN,
    DecisionRewards,
    act_above,
    act_always,
    act_on_rewards,
    area_under_risk_coverage,
    fit_temperatures,
    reward_of,
)
from surefoot.report.figures import interval_curves
from surefoot.report.shift_figures import by_family
from surefoot.training.distributed import gather_rows

__all__ = ("SelectiveRisk",)


class SelectiveRisk(EvaluationObserver):
    """Mean reward and share of abstentions of each policy, on val or test and on every shifted set.

    A module trained with ``RewardPrediction`` takes the action of the largest predicted reward (``reward_prediction``):
    it gets cautious out of distribution as its predictions revert to a constant that prefers to abstain. A classifier
    trained with cross-entropy has the baselines: ``always_act``; ``max_softmax``, which answers where its probability
    pays; ``calibrated_max_softmax``, the same after a temperature per class fitted on the first set; ``oracle``, with
    temperatures fitted on the very set that is judged, which no one can have. Of inputs without a label every answer is
    wrong.

    It works during ``validate`` and ``test``. Logged: ``shift/<set>/reward_<policy>``,
    ``shift/<set>/abstention_<policy>`` and ``shift/<set>/risk_coverage``; all in ``selective_risk.csv`` of the run
    folder, beside curves of the reward.

    Reference: Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873, section 6.

    Attributes:
        results: One row per set and policy.
    """

    def __init__(self, right: float = 1.0, wrong: float = -4.0, abstain: float = 0.0, figures: bool = True) -> None:
        """Initialize the callback.

        Args:
            right: Reward of the right answer.
            wrong: Reward of a wrong answer.
            abstain: Reward of no answer.
            figures: Whether figures are drawn.

        Raises:
            ConfigError: Unless wrong < abstain < right.
        """
        if not wrong < abstain < right:
            raise ConfigError(f"rewards must be ordered wrong < abstain < right, got {wrong}, {abstain}, {right}.")
        super().__init__()
        self.rewards, self.figures = DecisionRewards(right, wrong, abstain), figures
        self.results: list[dict[str, Any]] = []
        self._outputs: dict[str, list[tuple[list[float], int]]] = {}

    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Keep a batch's outputs and targets."""
        if trainer.state.fn == "fit":
            return
        if not isinstance(outputs, Mapping) or "logits" not in outputs:
            raise ConfigError("SelectiveRisk needs a classifier or a predictor of rewards.")
        rows = zip(outputs["outputs"].float().tolist(), batch["target"].tolist(), strict=True)
        self._outputs.setdefault(split, []).extend(rows)

    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what each policy earns."""
        if trainer.state.fn == "fit":
            return
        loss = pl_module.prediction_loss if offers(pl_module, PredictingModule) else None
        if not isinstance(loss, CrossEntropy | RewardPrediction):
            raise ConfigError("SelectiveRisk needs a module whose prediction_loss is CrossEntropy or RewardPrediction.")
        names = self.splits(trainer)
        rows = {n: gather_rows(self._outputs.get(n, [])) for n in names}
        sets = {n: (torch.tensor([o for o, _ in r]), torch.tensor([t for _, t in r])) for n, r in rows.items()}
        temperatures = fit_temperatures(*sets[names[0]]) if isinstance(loss, CrossEntropy) else None
        self.results = [row for n in names for row in self._judge(n, loss, *sets[n], temperatures)]
        self._outputs = {}
        for row in self.results:
            for kind in ("reward", "abstention"):
                key = f"shift/{row['set']}/{kind}_{row['policy']}"
                pl_module.log(key, row[kind], rank_zero_only=False)
            if row["risk_coverage"] is not None:
                key = f"shift/{row['set']}/risk_coverage"
                pl_module.log(key, row["risk_coverage"], rank_zero_only=False)
        self._write(trainer)

    def _judge(
        self,
        name: str,
        loss: PredictionLoss,
        outputs: Tensor,
        target: Tensor,
        temperatures: Tensor | None,
    ) -> list[dict[str, object]]:
        scores = loss.class_scores(outputs)
        assert scores is not None
        decisions = {"always_act": act_always(scores)}
        if temperatures is None:
            decisions["reward_prediction"] = act_on_rewards(outputs)
        else:
            threshold = self.rewards.threshold
            decisions["max_softmax"] = act_above(outputs, threshold)
            decisions["calibrated_max_softmax"] = act_above(outputs * temperatures, threshold)
            if bool((target != UNLABELLED).all()):
                own = fit_temperatures(outputs, target)
                decisions["oracle"] = act_above(outputs * own, threshold)
            else:  # no answer is right
                decisions["oracle"] = torch.full_like(target, ABSTAIN)
        confidences = loss.confidences(outputs)
        if confidences is None:
            confidences = scores.amax(1)
        area = float(area_under_risk_coverage(confidences, scores.argmax(1) != target))
        return [
            {
                "set": name,
                "policy": policy,
                "reward": float(reward_of(decision, target, self.rewards).mean()),
                "abstention": float((decision == ABSTAIN).double().mean()),
                "risk_coverage": area if policy == "always_act" else None,
            }
            for policy, decision in decisions.items()
        ]

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "selective_risk.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.results[0]))
            writer.writeheader()
            writer.writerows(self.results)
        policies = list(dict.fromkeys(row["policy"] for row in self.results))
        if not self.figures or len({row["set"] for row in self.results}) < 2:
            return
        for policy in policies:
            rows = [row for row in self.results if row["policy"] == policy]
            for kind in ("reward", "abstention"):
                interval_curves(
                    by_family(rows, None, kind),
                    ("level of the shift", f"{kind} ({policy.replace('_', ' ')})"),
                    folder / "selective_risk" / f"{kind}_{policy}",
                )
