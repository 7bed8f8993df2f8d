"""Credit: from rewards of trajectories, or of their spans, to an advantage for every token."""

from surefoot.reasoning.credit.base import CreditAssigner
from surefoot.reasoning.credit.effective_reward import EffectiveRewardAdvantage
from surefoot.reasoning.credit.group import GroupAdvantage
from surefoot.reasoning.credit.leave_one_out import LeaveOneOutAdvantage
from surefoot.reasoning.credit.per_step import PerStepAdvantage
from surefoot.reasoning.credit.progress import EffectiveReward, progress, prover_values
from surefoot.reasoning.credit.prover_ranking import RankedProver, attempts_behind_values, check_shares, rank_provers
from surefoot.reasoning.credit.provers import ProverQuality, prover_quality

__all__ = (
    "CreditAssigner",
    "EffectiveReward",
    "EffectiveRewardAdvantage",
    "GroupAdvantage",
    "LeaveOneOutAdvantage",
    "PerStepAdvantage",
    "ProverQuality",
    "RankedProver",
    "attempts_behind_values",
    "check_shares",
    "progress",
    "prover_quality",
    "prover_values",
    "rank_provers",
)
