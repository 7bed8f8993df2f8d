"""Credit: from rewards of trajectories, or of their spans, to an advantage for every token."""

from surefoot.credit.base import CreditAssigner
from surefoot.credit.group import GroupAdvantage
from surefoot.credit.leave_one_out import LeaveOneOutAdvantage
from surefoot.credit.per_step import PerStepAdvantage

__all__ = ("CreditAssigner", "GroupAdvantage", "LeaveOneOutAdvantage", "PerStepAdvantage")
