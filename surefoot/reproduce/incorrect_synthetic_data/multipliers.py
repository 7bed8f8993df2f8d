"""How many times more synthetic problems SFT needs for a method's error."""

from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean

from surefoot.reasoning.metrics.scaling import DataEfficiency, data_efficiency
from surefoot.reproduce.incorrect_synthetic_data.studies import SFT
from surefoot.reproduce.results import PerSeed, Row, Rows, Table
from surefoot.statistics import bootstrap_interval

__all__ = ("errors", "multiplier_rows", "multipliers", "positive")

#: Error below which a curve says nothing any more: fewer than one of two test sets.
LEAST_ERROR = 1e-3

#: Number of synthetic problems -> error by seed.
Curve = Mapping[int, PerSeed]


def errors(table: Table, method: str, part: str = "scaling", quantity: str = "error") -> dict[int, PerSeed]:
    """Return a method's error by seed, for each number of synthetic problems, ascending.

    Args:
        table: Of errors.
        method: As the table names it.
        part: Of the study.
        quantity: The column.
    """
    own = table.where(part=part, method=method)
    return {n: own.per_seed(quantity, n=n) for n in sorted(own.distinct("n"))}


def positive(error: float) -> float:
    """Return an error that has a logarithm."""
    return max(error, LEAST_ERROR)


def multipliers(table: Table, method: str) -> PerSeed:
    """Return how many times more problems SFT needs for a method's error, geometric mean over numbers of problems.

    Each seed is compared with its own curve of SFT. Where a method is better than SFT ever is, the ratio is a lower
    bound, that of the largest number of problems.
    """
    baseline, own = errors(table, SFT), errors(table, method)
    return PerSeed({s: geometric_mean(_ratio(baseline, own, n, [s]).ratio for n in own) for s in own[min(own)]})


def multiplier_rows(rows: Sequence[Row]) -> Rows:
    """Return the multiplier of each method at each number of problems, with intervals over redrawn seeds.

    The errors are means over seeds. ``bound`` says that the method is better, or worse, than SFT ever is.

    Args:
        rows: Of errors.
    """
    table = Table([row for row in rows if row["part"] == "scaling"], "arithmetic_errors")
    baseline, found = errors(table, SFT), Rows()
    for method in (m for m in table.distinct("method") if m != SFT):
        own = errors(table, method)
        for n, by_seed in own.items():
            seeds = [*by_seed]

            def ratio(drawn: Sequence[int], own: Curve = own, n: int = n, seeds: Sequence[int] = seeds) -> float:
                return _ratio(baseline, own, n, [seeds[i] for i in drawn]).ratio

            low, high = bootstrap_interval(ratio, len(seeds))[1:3]
            best = _ratio(baseline, own, n, seeds)
            found.append(
                {"method": method, "n": n, "ratio": best.ratio, "low": low, "high": high, "bound": best.is_bound}
            )
    return found


def _ratio(baseline: Curve, own: Curve, n: int, seeds: Sequence[int]) -> DataEfficiency:
    """Return the multiplier at a number of problems, by errors that are means over seeds."""
    of_sft = [positive(fmean(by_seed[s] for s in seeds)) for by_seed in baseline.values()]
    return data_efficiency([*baseline], of_sft, n, positive(fmean(own[n][s] for s in seeds)))
