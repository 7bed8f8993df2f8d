"""``surefoot report``: tables, figures and one page from run folders."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from surefoot.errors import SurefootError

__all__ = ("run_report",)


def run_report(arguments: Sequence[str]) -> None:
    """Summarise run folders: tidy CSV, tables with 95% intervals, paired comparison, figure, HTML page.

    Args:
        arguments: The verb, run folders (or folders of them) and options.
    """
    parser = argparse.ArgumentParser(
        "surefoot report",
        description="Summarise run folders. Runs of one experiment with the same method and settings but another"
        " seed are averaged.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders, or folders that hold some, at any depth"
    )
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the results")
    parser.add_argument(
        "--metric",
        default="test/worst_group_accuracy",
        help="quantity to compare, by its logged name",
    )
    parser.add_argument(
        "--rule",
        default="val_worst_group",
        choices=("val_average", "val_worst_group", "test_oracle", "last"),
        help="which epoch counts; last takes the last logged value",
    )
    options = parser.parse_args(list(arguments[1:]))
    from surefoot.report.runs import read_runs
    from surefoot.report.tables import write_report

    runs = read_runs(options.runs)
    if not runs:
        given = ", ".join(str(p) for p in options.runs)
        raise SurefootError(
            f"no finished run folder in {given}: one holds config.yaml and finished.json."
        )
    table = write_report(runs, options.metric, options.rule, options.out)
    print(table)
    print(
        f"written to {options.out}: runs.csv, table.md, table.tex, report.html, comparison.svg, groups.svg"
    )
