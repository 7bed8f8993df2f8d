"""What a paper claims, how it was measured again, and whether it holds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from surefoot.statistics import Estimate

__all__ = (
    "Claim",
    "Criterion",
    "Findings",
    "Measurement",
    "Paper",
    "Scale",
    "at_least",
    "at_most",
    "close_to",
    "interval_above",
    "reported",
)

Scale = Literal["quick", "laptop", "paper"]


@dataclass(frozen=True)
class Criterion:
    """When a claim holds, fixed before the run, and why the bound is what it is."""

    text: str
    test: Callable[[Estimate], bool] | None  # none: reported, without a verdict


def at_least(bound: float, reason: str) -> Criterion:
    """Hold if the mean reaches a bound."""
    return Criterion(f"mean >= {bound:g}: {reason}", lambda e: e.mean >= bound)


def at_most(bound: float, reason: str) -> Criterion:
    """Hold if the mean stays within a bound."""
    return Criterion(f"mean <= {bound:g}: {reason}", lambda e: e.mean <= bound)


def interval_above(bound: float, reason: str) -> Criterion:
    """Hold if the whole 95% interval lies above a bound."""
    return Criterion(f"95% interval above {bound:g}: {reason}", lambda e: e.low > bound)


def close_to(reference: float, tolerance: float, reason: str) -> Criterion:
    """Hold if the mean is within a tolerance of a reference."""
    return Criterion(
        f"within {tolerance:g} of {reference:g}: {reason}",
        lambda e: abs(e.mean - reference) <= tolerance,
    )


def reported(reason: str) -> Criterion:
    """Report a number on which no verdict is passed."""
    return Criterion(f"reported only: {reason}", None)


@dataclass(frozen=True)
class Claim:
    """One row of ``claims.json``."""

    id: str
    paper: str
    claim: str
    source: str
    criterion: str
    measured: float
    interval: tuple[float, float] | None
    unit: str
    n_seeds: int
    holds: bool | None  # none where the scale is too small to judge, or nothing is claimed
    scale: Scale
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return plain types; numbers that are not finite become null."""
        row = asdict(self)
        if not math.isfinite(self.measured):
            row["measured"] = None
        if self.interval is not None:
            row["interval"] = [v if math.isfinite(v) else None for v in self.interval]
        return row


class Measurement(NamedTuple):
    """What an experiment found about one claim, before it is judged."""

    id: str
    claim: str
    source: str
    criterion: Criterion
    estimate: Estimate
    unit: str
    at_any_scale: bool = False  # measured on given data, which quick scale does not make smaller

    def judge(self, paper: str, scale: Scale, seconds: float) -> Claim:
        """Compare the estimate with the criterion; at quick scale nothing is judged but what is the same at any."""
        verdict = None
        judged = self.at_any_scale or scale != "quick"
        if judged and self.criterion.test is not None:
            verdict = bool(self.criterion.test(self.estimate))
        return Claim(
            self.id,
            paper,
            self.claim,
            self.source,
            self.criterion.text,
            self.estimate.mean,
            (self.estimate.low, self.estimate.high),
            self.unit,
            self.estimate.n,
            verdict,
            scale,
            seconds,
        )


class Findings(NamedTuple):
    """All that a paper's experiment produced."""

    measurements: Sequence[Measurement]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = {}  # name -> tidy rows, written as CSV
    notes: Sequence[str] = ()  # protocol and caveats, printed under the table
    figures: Sequence[Path] = ()


@dataclass(frozen=True)
class Paper:
    """One file of this folder: a paper and the function that measures its claims again."""

    id: str
    title: str
    reference: str
    measure: Callable[..., Findings]  # (scale, n_seeds, out, **options)
    default_seeds: Mapping[Scale, int] = field(
        default_factory=lambda: {"quick": 1, "laptop": 5, "paper": 5}
    )
    options: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # flag -> argparse arguments
