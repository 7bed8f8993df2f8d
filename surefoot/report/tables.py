"""Tables with intervals, paired comparisons, and one page that holds everything."""

import csv
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from surefoot.report.figures import dot_plot
from surefoot.report.runs import RecordedRun
from surefoot.statistics import Estimate, mean_interval, paired_difference

__all__ = ("latex_table", "markdown_table", "write_report")

Rows = Sequence[Sequence[str]]


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex_table(header: Sequence[str], rows: Rows) -> str:
    """Return a LaTeX ``tabular`` in booktabs style."""

    def line(cells: Sequence[str]) -> str:
        return (
            " & ".join(
                c.replace("_", r"\_").replace("%", r"\%").replace("±", r"$\pm$") for c in cells
            )
            + r" \\"
        )

    body = "\n".join(line(row) for row in rows)
    spec = "l" * len(header)
    return f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{line(header)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def _page(
    title: str, table: tuple[Sequence[str], Rows], pairs: tuple[Sequence[str], Rows], figure: str
) -> str:
    def render(header: Sequence[str], rows: Rows) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows
        )
        return f"<table><tr>{head}</tr>{body}</table>"

    style = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc}svg{max-width:100%;height:auto}"
    picture = figure[figure.index("<svg") :]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1>{render(*table)}{picture}<h2>Paired differences</h2>{render(*pairs)}</html>\n"
    )


def write_report(runs: Sequence[RecordedRun], metric: str, rule: str, out: Path) -> str:
    """Write ``runs.csv``, ``table.md``, ``table.tex``, ``report.html`` and the figures ``comparison`` and ``groups``.

    Args:
        runs: Finished runs; those that differ in their seeds alone form an arm.
        metric: Logged name of the quantity compared.
        rule: Selection rule whose epoch counts, or ``last``.
        out: Folder of the results.

    Returns:
        The Markdown table.
    """
    out.mkdir(parents=True, exist_ok=True)
    arms: dict[str, dict[int, float]] = {}
    arm_of: dict[Path, str] = {}
    for run in runs:
        same = [r.arm for r in runs if (r.method, r.data) == (run.method, run.data)]
        suffix = f" [{run.arm}]" if len(set(same)) > 1 else ""
        arm_of[run.path] = f"{run.method} on {run.data}{suffix}"
        arms.setdefault(arm_of[run.path], {})[run.seed] = run.value(metric, rule)
    _write_runs(runs, out / "runs.csv")
    estimates: dict[str, Estimate] = {
        name: mean_interval(list(values.values())) for name, values in arms.items()
    }

    header = ["arm", f"{metric} ({rule})", "95% interval", "seeds"]
    rows = [[n, f"{e.mean:.3f}", _interval(e), str(e.n)] for n, e in estimates.items()]
    pair_rows = []
    names = list(arms)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            seeds = sorted(set(arms[first]) & set(arms[second]))
            if seeds:
                d = paired_difference(
                    [arms[first][s] for s in seeds], [arms[second][s] for s in seeds]
                )
                pair_rows.append([first, second, f"{d.mean:+.3f}", _interval(d), str(d.n)])
    pair_header = ["arm", "minus", "difference", "95% interval", "shared seeds"]
    figure = dot_plot({metric: estimates}, metric, out / "comparison")[0].read_text()
    groups = _group_estimates(runs, rule, arm_of)
    if groups:
        dot_plot(
            groups, "test accuracy", out / "groups", "Accuracy per group: mean and 95% interval"
        )
        group_names = list(next(iter(groups.values())))
        header += group_names
        rows = [
            [
                *row,
                *(
                    f"{groups[row[0]][g].mean:.3f}" if g in groups.get(row[0], {}) else ""
                    for g in group_names
                ),
            ]
            for row in rows
        ]
    table = markdown_table(header, rows) + "\n\n" + markdown_table(pair_header, pair_rows) + "\n"
    (out / "table.md").write_text(table)
    (out / "table.tex").write_text(latex_table(header, rows))
    (out / "report.html").write_text(
        _page(f"Surefoot: {metric}", (header, rows), (pair_header, pair_rows), figure)
    )
    return table


def _group_estimates(
    runs: Sequence[RecordedRun], rule: str, arm_of: Mapping[Path, str]
) -> dict[str, dict[str, Estimate]]:
    """Return arm -> group -> accuracy on the test split, where `GroupMetrics` recorded it."""
    prefix, values = "test/group_accuracy/", dict[str, dict[str, list[float]]]()
    for run in runs:
        chosen = (
            {k: v[-1] for k, v in run.metrics.items()}
            if rule == "last"
            else run.selection.get(rule, {})
        )
        for key, value in chosen.items():
            if key.startswith(prefix):
                values.setdefault(arm_of[run.path], {}).setdefault(
                    key.removeprefix(prefix), []
                ).append(value)
    return {arm: {g: mean_interval(v) for g, v in groups.items()} for arm, groups in values.items()}


def _interval(e: Estimate) -> str:
    return f"({e.low:.3f}, {e.high:.3f})" if e.n > 1 else "one seed, no interval"


def _write_runs(runs: Sequence[RecordedRun], path: Path) -> None:
    """Write one row per run: where, which settings, and every quantity at every rule's epoch."""
    records = [
        {
            "path": str(run.path),
            "method": run.method,
            "data": run.data,
            "seed": run.seed,
            "arm": run.arm,
            **{
                f"{rule}:{k}": v
                for rule, chosen in run.selection.items()
                for k, v in chosen.items()
            },
            **{f"last:{k}": v[-1] for k, v in run.metrics.items()},
            **run.settings,
        }
        for run in runs
    ]
    columns = list(dict.fromkeys(k for record in records for k in record))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)
