"""What a paper claims, how it was measured again, and whether it holds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from surefoot.statistics import Estimate

__all__ = (
    "MAX_SEEDS",
    "Claim",
    "Criterion",
    "Findings",
    "Measurement",
    "Paper",
    "Scale",
    "Verdict",
    "at_least",
    "at_most",
    "close_to",
    "interval_above",
    "reported",
    "settle",
)

Scale = Literal["quick", "laptop", "paper"]


#: The interval lies within what is claimed, outside it, or reaches into both; or nothing is claimed.
Verdict = Literal["holds", "contradicted", "undecided", "reported"]

Found = TypeVar("Found")

#: The option of papers whose undecided claims get more seeds.
MAX_SEEDS: Mapping[str, Any] = {
    "type": int,
    "help": "number of seeds up to which undecided claims get more; the paper's own multiple of --seeds by default",
}


@dataclass(frozen=True)
class Criterion:
    """What is claimed of the mean, fixed before the run, and why the bound is what it is."""

    text: str
    test: Callable[[Estimate], bool] | None  # of `Claim.holds`; none: reported, without a verdict
    claimed: tuple[float, float] = (-math.inf, math.inf)  # of the mean, both ends included

    def verdict(self, estimate: Estimate) -> Verdict:
        """Compare the 95% interval, not the mean, with what is claimed."""
        if self.test is None:
            return "reported"
        least, most = self.claimed
        if least <= estimate.low and estimate.high <= most:
            return "holds"
        return "contradicted" if estimate.high < least or most < estimate.low else "undecided"


def at_least(bound: float, reason: str) -> Criterion:
    """Claim that the mean reaches a bound."""
    return Criterion(f"mean >= {bound:g}: {reason}", lambda e: e.mean >= bound, claimed=(bound, math.inf))


def at_most(bound: float, reason: str) -> Criterion:
    """Claim that the mean stays within a bound."""
    return Criterion(f"mean <= {bound:g}: {reason}", lambda e: e.mean <= bound, claimed=(-math.inf, bound))


def interval_above(bound: float, reason: str) -> Criterion:
    """Claim that the mean exceeds a bound, by more than the seeds' chance."""
    above = (math.nextafter(bound, math.inf), math.inf)
    return Criterion(f"95% interval above {bound:g}: {reason}", lambda e: e.low > bound, claimed=above)


def close_to(reference: float, tolerance: float, reason: str) -> Criterion:
    """Claim that the mean is within a tolerance of a reference."""
    return Criterion(
        f"within {tolerance:g} of {reference:g}: {reason}",
        lambda e: abs(e.mean - reference) <= tolerance,
        claimed=(reference - tolerance, reference + tolerance),
    )


def reported(reason: str) -> Criterion:
    """Report a number on which no verdict is passed."""
    return Criterion(f"reported only: {reason}", None)


def settle(
    measure: Callable[[int], Found],
    measurements: Callable[[Found], Sequence["Measurement"]],
    n_seeds: int,
    most: int,
) -> Found:
    """Measure with some seeds, and once more with twice as many for as long as a claim is undecided.

    The rule asks only whether the 95% interval reaches into what is claimed and out of it, never on which side the
    mean lies. All arms get the new seeds; the last measurement, on all of them, is the one that counts.

    Args:
        measure: From a number of seeds to what was found on them; keeps its runs, so that only new seeds cost.
        measurements: What of it is to be settled.
        n_seeds: Seeds to begin with.
        most: The budget: with so many seeds a claim stays as it is.

    Returns:
        What was found in the end.
    """
    while True:
        found = measure(n_seeds)
        settled = all(m.criterion.verdict(m.estimate) != "undecided" for m in measurements(found))
        if settled or n_seeds >= most:
            return found
        n_seeds = min(2 * n_seeds, most)


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
    # by the criterion's own test, which may look at the mean alone; none where the scale is too small to judge, or
    # nothing is claimed
    holds: bool | None
    verdict: Verdict
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
        judged = self.at_any_scale or scale != "quick"
        verdict = self.criterion.verdict(self.estimate)
        holds = None
        if judged and self.criterion.test is not None:
            holds = bool(self.criterion.test(self.estimate))
        if not judged and verdict != "reported":
            verdict = "undecided"
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
            holds,
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
    default_seeds: Mapping[Scale, int] = field(default_factory=lambda: {"quick": 1, "laptop": 5, "paper": 5})
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # flag -> argparse arguments
