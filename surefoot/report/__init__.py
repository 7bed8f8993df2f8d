"""``surefoot report``: tables, figures and one page from run folders."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.errors import SurefootError

if TYPE_CHECKING:
    from surefoot.report.runs import RecordedRun

__all__ = ("run_report",)

_RULES = ("val_average", "val_worst_group", "test_oracle", "last")
#: What is compared unless a metric is named: the first that a run has.
_METRICS = (
    "test/worst_group_accuracy",
    "test/accuracy",
    "val/worst_group_accuracy",
    "val/accuracy",
    "val/loss",
    "train/loss",
)


def run_report(arguments: Sequence[str]) -> None:
    """Summarise run folders: tidy CSV, tables with 95% intervals, paired comparison, figures, HTML page.

    Args:
        arguments: The verb, run folders (or folders of them) and options.
    """
    parser = argparse.ArgumentParser(
        "surefoot report",
        description="Summarise run folders. Runs that differ in their seeds alone (and in where they ran) are averaged;"
        " of runs that are equal in all, the newest counts. Whatever is left out is listed with its reason.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold some, at any depth")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the results")
    parser.add_argument(
        "--metric",
        help="quantity to compare, by its logged name; by default test/worst_group_accuracy, or where no run has it"
        " another accuracy",
    )
    parser.add_argument(
        "--rule",
        choices=_RULES,
        help="which epoch counts; last takes the last logged value; by default val_worst_group, or last where no epoch"
        " was selected",
    )
    options = parser.parse_args(list(arguments[1:]))
    from surefoot.report.methods import group_runs
    from surefoot.report.runs import read_runs
    from surefoot.report.tables import write_report

    runs, left_out = read_runs(options.runs)
    metric, rule = _choose(runs, options.metric, options.rule)
    methods, without = group_runs(runs, metric, rule)
    left_out += without
    if not methods:
        given = ", ".join(str(p) for p in options.runs)
        reasons = "; ".join(f"{o.path}: {o.reason}" for o in left_out[:5])
        more = f"; and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        raise SurefootError(
            f"no finished run to report in {given}"
            + (f": {reasons}{more}." if left_out else ": one holds config.yaml and finished.json.")
        )
    print(write_report(methods, left_out, metric, rule, options.out, time.time()))
    print(f"\nwritten to {options.out}: {', '.join(sorted(p.name for p in options.out.iterdir()))}")


def _choose(runs: Sequence["RecordedRun"], metric: str | None, rule: str | None) -> tuple[str, str]:
    """Return the metric and the rule asked for, or the first that some run has."""
    metrics = [metric] if metric else _METRICS
    rules = [rule] if rule else ["val_worst_group", "last"]
    for candidate in metrics:
        for way in rules:
            if any(candidate in run.chosen(way) for run in runs):
                return candidate, way
    return metrics[0], rules[0]
