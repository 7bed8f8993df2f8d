"""What a paper claims, how it was measured again, and whether it holds."""

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from surefoot.reproduce.results import NotMeasured, Results, computed_from
from surefoot.statistics import Estimate, mean_interval

__all__ = (
    "ABOVE_ONE",
    "ABOVE_ZERO",
    "FALLS",
    "RISES",
    "Claim",
    "ClaimDefinition",
    "Criterion",
    "Keys",
    "Measurement",
    "Scale",
    "Verdict",
    "at_least",
    "at_most",
    "claim",
    "close_to",
    "interval_above",
    "measure_claims",
    "reported",
    "shares_of_seconds",
    "undecided",
)

Scale = Literal["quick", "laptop", "paper"]


#: The interval lies within what is claimed, outside it, or reaches into both; or nothing is claimed.
Verdict = Literal["holds", "contradicted", "undecided", "reported"]


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


#: Criteria that claims of several papers share. Of a difference, and of a ratio:
ABOVE_ZERO = interval_above(0, "a difference has to stand out from the seeds")
ABOVE_ONE = interval_above(1, "a difference has to stand out from the seeds")
#: Of Kendall's tau along a series.
FALLS = at_most(-0.6, "at least four fifths of the pairs in order")
RISES = at_least(0.6, "at least four fifths of the pairs in order")


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
    seconds: float | None  # its share of the work; none where no timings were recorded

    def as_json(self) -> dict[str, object]:
        """Return plain types; numbers that are not finite become null."""
        row = asdict(self)
        if not math.isfinite(self.measured):
            row["measured"] = None
        if self.interval is not None:
            row["interval"] = [v if math.isfinite(v) else None for v in self.interval]
        return row


class Measurement(NamedTuple):
    """What was found about one claim, before it is judged."""

    id: str
    claim: str
    source: str
    criterion: Criterion
    estimate: Estimate
    unit: str
    at_any_scale: bool = False  # measured on given data, which quick scale does not make smaller
    key: Mapping[str, Any] = {}  # of a claim that is made of several things: which one
    tables: frozenset[str] = frozenset()  # that it was read from

    def judge(self, paper: str, scale: Scale, seconds: float | None) -> Claim:
        """Compare the estimate with the criterion; at quick scale nothing is judged but what is the same at any."""
        judged = self.at_any_scale or scale != "quick"
        verdict = self.criterion.verdict(self.estimate)
        holds = None
        if judged and self.criterion.test is not None:
            holds = bool(self.criterion.test(self.estimate))
        if not judged and verdict != "reported":
            verdict = "undecided"
        return Claim(
            id=self.id,
            paper=paper,
            claim=self.claim,
            source=self.source,
            criterion=self.criterion.text,
            measured=self.estimate.mean,
            interval=(self.estimate.low, self.estimate.high),
            unit=self.unit,
            n_seeds=self.estimate.n,
            holds=holds,
            verdict=verdict,
            scale=scale,
            seconds=seconds,
        )


#: The things that a claim is made of, each with the entries that fill its text; see `claim`.
Keys = Iterable[Mapping[str, Any]]
#: One value per seed (of which the mean is claimed), or a mean with its interval.
Values = Mapping[int, float] | Sequence[float] | Estimate


@dataclass(frozen=True)
class ClaimDefinition:
    """A claim as `claim` makes it from a function."""

    function: Callable[..., Values]
    source: str
    unit: str
    criterion: Criterion | Callable[..., Criterion]
    id: str
    over: Callable[[Results], Keys] | None
    at_any_scale: bool | Callable[..., bool]

    @property
    def name(self) -> str:
        """Its id, or the function's name where several things have each an id."""
        return self.id if self.over is None else self.function.__name__

    def measure(self, results: Results) -> list[Measurement]:
        """Return what the results say of the claim, for each thing that it is made of.

        Raises:
            NotMeasured: If the results lack what it reads.
            DataError: If they hold values that it cannot be computed from.
        """
        with computed_from(results, f"The claim {self.name}"):
            keys = [{}] if self.over is None else [*self.over(results)]
        return [self._measure(Results(results.tables), key) for key in keys]

    def _measure(self, results: Results, key: Mapping[str, object]) -> Measurement:
        with computed_from(results, f"The claim {self.id.format(**key)}"):
            values = _given(self.function, key, results)
            if not isinstance(values, Estimate):
                values = mean_interval([*values.values()] if isinstance(values, Mapping) else values)
        text = " ".join((self.function.__doc__ or "").split()).removesuffix(".")
        criterion, at_any_scale = self.criterion, self.at_any_scale
        return Measurement(
            id=self.id.format(**key),
            claim=text.format(**key),
            source=self.source.format(**key),
            criterion=criterion if isinstance(criterion, Criterion) else _given(criterion, key),
            estimate=values,
            unit=self.unit,
            at_any_scale=at_any_scale if isinstance(at_any_scale, bool) else _given(at_any_scale, key),
            key=key,
            tables=frozenset(results.used),
        )


def _given(function: Callable[..., object], key: Mapping[str, object], *arguments: object) -> Any:
    """Call a function with those of a key's entries that it names."""
    names = inspect.signature(function).parameters
    return function(*arguments, **{k: v for k, v in key.items() if k in names})


def claim(
    *,
    source: str,
    unit: str,
    criterion: Criterion | Callable[..., Criterion],
    id: str | None = None,
    over: Callable[[Results], Keys] | None = None,
    at_any_scale: bool | Callable[..., bool] = False,
) -> Callable[[Callable[..., Values]], ClaimDefinition]:
    """Make a claim of a function from `Results` to one value per seed, or to an `Estimate`; its docstring is the text.

    Args:
        source: Where in the paper, and its number.
        unit: Of the values.
        criterion: What is claimed of the mean; may be a function of the key.
        id: The function's name by default.
        over: For a claim that is made of several things (data sets, methods): from the results to keys, whose entries
            fill the braces in id, text and source, and the function's parameters of the same names.
        at_any_scale: Whether it is judged at quick scale too; may be a function of the key.
    """

    def decorate(function: Callable[..., Values]) -> ClaimDefinition:
        return ClaimDefinition(function, source, unit, criterion, id or function.__name__, over, at_any_scale)

    return decorate


def measure_claims(
    claims: Sequence[ClaimDefinition], results: Results
) -> tuple[list[Measurement], dict[str, NotMeasured]]:
    """Return what the results say of the claims, and of which claims they say nothing: name -> reason.

    Raises:
        ValueError: If two claims have the same id.
    """
    found: list[Measurement] = []
    missing = {}
    for definition in claims:
        try:
            found += definition.measure(results)
        except NotMeasured as reason:
            missing[definition.name] = reason
    twice = [i for i, n in Counter(m.id for m in found).items() if n > 1]
    if twice:
        raise ValueError(f"claims must have distinct ids, got twice: {', '.join(twice)}.")
    return found, missing


def undecided(claims: Sequence[ClaimDefinition], results: Results) -> list[Measurement]:
    """Return those claims of which the results say something, but not enough.

    Raises:
        ValueError: If no claim reads these tables.
    """
    found, _ = measure_claims(claims, results)
    if not found:
        raise ValueError(f"no claim reads {', '.join(results.tables)}.")
    return [m for m in found if m.criterion.verdict(m.estimate) == "undecided"]


def shares_of_seconds(measurements: Sequence[Measurement], seconds: Mapping[str, float]) -> list[float | None]:
    """Return each claim's share of the work: of every table that it reads, an equal part with the others that do.

    Args:
        measurements: All claims that were measured.
        seconds: Table -> seconds of work.

    Returns:
        Seconds per claim; none where a table's are not known.
    """
    readers = Counter(table for m in measurements for table in m.tables)
    return [
        round(sum(seconds[t] / readers[t] for t in m.tables), 1) if m.tables <= seconds.keys() else None
        for m in measurements
    ]
