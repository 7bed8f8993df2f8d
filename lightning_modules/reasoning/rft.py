"""RFT: rejection-sampling fine-tuning, as a loop."""

from typing import Any

import torch

from lightning_modules.reasoning.sft import SFT
from surefoot.contracts import RecordBatch
from surefoot.errors import ConfigError
from surefoot.reasoning.completions.selection import correct_completions
from surefoot.reasoning.rollouts import Sampling
from surefoot.training.distributed import sum_over_ranks

__all__ = ("RFT",)


class RFT(SFT):
    """Samples completions of every problem, keeps correct ones, and fine-tunes on them; batch after batch.

    The same in stages over the whole training set, each from the base model, is ``surefoot pipeline
    configs/pipelines/rft_gsm8k_smollm2.yaml``.

    Reference: Yuan et al. 2023, Scaling relationship on learning mathematical reasoning; Zelikman et al. 2022 (STaR);
    Singh et al. 2024 (ReST-EM).
    """

    nothing_to_learn_from = (
        "no sampled completion was correct, so that nothing was learned: start from a better model, take easier"
        " problems, or look at the prompt and the grader"
    )

    def __init__(
        self,
        sampling: Sampling | None = None,
        max_per_problem: int = 4,
        distinct: bool = True,
        **kwargs: Any,
    ) -> None:
        """Initialize the method.

        Args:
            sampling: How completions are sampled; by default 8 at temperature 1 of at most 256 tokens.
            max_per_problem: Most correct completions kept of a problem.
            distinct: Keep equal completions once; see `correct_completions` for when not to.
            kwargs: Arguments of `SFT`.

        Raises:
            ConfigError: If nothing may be kept.
        """
        super().__init__(**kwargs)
        if max_per_problem < 1:
            raise ConfigError(f"max_per_problem must be positive, got {max_per_problem}.")
        self.sampling = sampling or Sampling(n=8)
        self.max_per_problem, self.distinct = max_per_problem, distinct

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Sample, grade, choose, and take one step on what was chosen."""
        trajectories = self.rollout = self.sample(batch["problem"], self.sampling, "train")
        chosen = correct_completions(trajectories, self.max_per_problem, self.global_step, self.distinct)
        counts = torch.tensor(
            [
                sum(t.is_correct for t in trajectories),
                len({t.problem.id for t in chosen}),
                len(trajectories),
                len(batch["problem"]),
            ],
            dtype=torch.float64,
            device=self.device,
        )
        n_correct, n_solved, n_sampled, n_problems = sum_over_ranks(counts).tolist()
        self.fine_tune([t.target_sequence for t in chosen], len(trajectories))
        self.log("rollout/accuracy", n_correct / n_sampled, batch_size=1, prog_bar=True)
        self.log("rollout/share_solved", n_solved / n_problems, batch_size=1)
