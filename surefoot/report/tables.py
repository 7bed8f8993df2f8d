"""Tables with intervals and paired comparisons, in Markdown, LaTeX and CSV, and everything that a report writes."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from surefoot.report.figures import dot_plot
from surefoot.report.methods import Method, shown_settings
from surefoot.report.page import Section, page, picture
from surefoot.report.runs import LeftOut, RecordedRun
from surefoot.statistics import (
    Estimate,
    mean_interval,
    paired_difference,
    paired_proportion_difference,
    proportion_interval,
)

__all__ = ("TextTable", "group_estimates", "is_proportion", "latex_table", "markdown_table", "write_report")

Rows = Sequence[Sequence[str]]
_GROUP_PREFIX = "test/group_accuracy/"
_PROPORTION = re.compile(r"accuracy|(^|[/_])(rate|share|fraction|coverage|auroc|auc)([/_@]|$)")


class TextTable(NamedTuple):
    """A header and rows of text."""

    header: Sequence[str]
    rows: Rows


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in lines)


def latex_table(header: Sequence[str], rows: Rows) -> str:
    """Return a LaTeX ``tabular`` in booktabs style."""
    special = {c: "\\" + c for c in "_%&#${}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(special.get(c, c) for c in cell) for cell in cells) + r" \\"

    body = "\n".join(line(row) for row in rows)
    spec = "l" * len(header)
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{line(header)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def is_proportion(metric: str, values: Sequence[float]) -> bool:
    """Return whether a quantity is, by its name and all its values, a fraction in [0, 1]."""
    return bool(_PROPORTION.search(metric)) and all(0 <= v <= 1 for v in values)


def _interval(e: Estimate, unit: str = "seed") -> str:
    return f"({e.low:.3f}, {e.high:.3f})" if e.n > 1 else f"one {unit}, no interval"


def _method_interval(method: Method, e: Estimate, metric: str, rule: str) -> str:
    """Return the interval over seeds; of one seed the one over examples, where the run has logged it, and named so."""
    if e.n == 1:
        chosen = method.runs[0].chosen(rule)
        low, high = (chosen.get(f"{metric}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            return f"({low:.3f}, {high:.3f}) over examples; one seed"
    return _interval(e)


def _seed_text(run: RecordedRun) -> str:
    """Return the run's seed, and those that do not follow it."""
    training = run.seeds.get("seed_everything")
    apart = [f"{k}={v}" for k, v in run.seeds.items() if v != training]
    return ", ".join(["none" if training is None else str(training), *apart])


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _pairs(methods: Sequence[Method], proportions: bool) -> TextTable:
    """Return the difference of every two methods that share seeds."""
    rows = []
    for first, second in combinations(methods, 2):
        a, b = first.by_pair(), second.by_pair()
        shared = [p for p in a if p in b]
        if not shared:
            continue
        compare = paired_proportion_difference if proportions else paired_difference
        d = compare([a[p] for p in shared], [b[p] for p in shared])
        rows.append([first.name, second.name, f"{d.mean:+.3f}", _interval(d, "seed shared"), str(d.n)])
    return TextTable(["method", "minus", "difference", "95% interval", "shared seeds"], rows)


def group_estimates(methods: Sequence[Method], rule: str) -> dict[str, dict[str, Estimate]]:
    """Return method -> group -> accuracy on the test split, where `GroupMetrics` recorded it.

    Where the seeds do not vary (all at 1.000, say), the interval is that of the group's examples, counted once, since
    seeds may share them.
    """
    found: dict[str, dict[str, Estimate]] = {}
    for method in methods:
        values: dict[str, list[float]] = {}
        sizes: dict[str, list[int]] = {}
        for run in method.runs:
            for key, value in run.chosen(rule).items():
                if key.startswith(_GROUP_PREFIX):
                    group = key.removeprefix(_GROUP_PREFIX)
                    values.setdefault(group, []).append(value)
                    sizes.setdefault(group, []).append(run.group_sizes.get(group, 0))
        if values:
            found[method.name] = {g: _group_interval(v, sizes[g]) for g, v in values.items()}
    return found


def _group_interval(values: Sequence[float], sizes: Sequence[int]) -> Estimate:
    """Return the mean over runs with its interval; a size is 0 where a run did not record it."""
    if len(set(values)) > 1 or not all(sizes):
        return proportion_interval(values)
    return proportion_interval(values[:1], [min(sizes)])._replace(n=len(values))


def _group_table(groups: Mapping[str, Mapping[str, Estimate]]) -> TextTable:
    """Return accuracies by method and group; the longer of the two goes down the page."""
    names = list(dict.fromkeys(g for estimates in groups.values() for g in estimates))

    def cell(method: str, group: str) -> str:
        return f"{groups[method][group].mean:.3f}" if group in groups[method] else ""

    if len(names) <= 6:
        return TextTable(["method", *names], [[m, *(cell(m, g) for g in names)] for m in groups])
    return TextTable(["group", *groups], [[g, *(cell(m, g) for m in groups)] for g in names])


def _settings_tables(methods: Sequence[Method]) -> tuple[TextTable, TextTable]:
    """Return the settings in which methods differ (the longer list goes down the page), and those that all share."""
    shown = [shown_settings(m.settings) for m in methods]
    shared, differing = [], []
    for key in dict.fromkeys(k for settings in shown for k in settings):
        texts = [settings.get(key, "") for settings in shown]
        if len(set(texts)) == 1:
            shared.append([key, texts[0]])
        else:
            differing.append([key, *texts])
    table = [["setting", *(m.name for m in methods)], *differing]
    if len(methods) > len(differing):
        table = [list(column) for column in zip(*table, strict=True)]
    table[0][0] = ""
    rows = table[1:] if differing else []
    return TextTable(table[0], rows), TextTable(["setting", "value"], shared)


def _runs_table(methods: Sequence[Method], metric: str, rule: str) -> TextTable:
    header = ["run", "method", "seed", metric, "epoch", "started", "source"]
    rows = []
    for method in methods:
        for run in method.runs:
            epoch = run.chosen(rule).get("epoch")
            rows.append(
                [
                    str(run.path),
                    method.name,
                    _seed_text(run),
                    f"{method.values[run.path]:.3f}",
                    "" if epoch is None else f"{epoch:.0f}",
                    _day(run.created),
                    run.revision,
                ]
            )
    return TextTable(header, rows)


def write_report(
    methods: Sequence[Method],
    left_out: Sequence[LeftOut],
    metric: str,
    rule: str,
    out: Path,
    now: float,
) -> str:
    """Write ``runs.csv``, ``left_out.csv``, ``table.md``, ``table.tex``, ``report.html`` and the figures.

    Args:
        methods: Methods with their runs; at least one.
        left_out: Run folders that are not counted.
        metric: Logged name of the quantity compared.
        rule: Selection rule whose epoch counts, or ``last``.
        out: Folder of the results.
        now: When the report is made, in seconds since the epoch.

    Returns:
        The Markdown tables.
    """
    out.mkdir(parents=True, exist_ok=True)
    proportions = is_proportion(metric, [v for m in methods for v in m.values.values()])
    average: Callable[[list[float]], Estimate] = proportion_interval if proportions else mean_interval
    estimates = {m.name: average(list(m.values.values())) for m in methods}
    main = _method_table(methods, estimates, metric, rule)
    pairs, groups = _pairs(methods, proportions), group_estimates(methods, rule)
    omitted = TextTable(["left out", "reason"], [[str(o.path), o.reason] for o in left_out])

    over = ", mean and 95% interval over seeds" if any(e.n > 1 for e in estimates.values()) else ""
    label = f"{metric} ({rule}){over}"
    comparison = dot_plot({metric: estimates}, label, out / "comparison", unit_range=proportions)
    (out / "groups.svg").unlink(missing_ok=True)

    tables = [main, *([_group_table(groups)] if groups else []), *([pairs] if pairs.rows else [])]
    text = "\n\n".join(markdown_table(*t) for t in (*tables, *([omitted] if left_out else [])))
    (out / "table.md").write_text(text + "\n")
    (out / "table.tex").write_text("\n".join(latex_table(*t) for t in tables))
    _write_runs(methods, out / "runs.csv")
    _write_csv([o._asdict() for o in left_out], out / "left_out.csv", ["path", "reason"])
    sections = [Section("", main, figure=picture(comparison))]
    if groups:
        drawn = picture(dot_plot(groups, f"test accuracy ({rule}){over}", out / "groups", unit_range=True))
        many = sum(map(len, groups.values())) > 100
        sections.append(Section("Accuracy of every group", _group_table(groups), drawn, folded=many))
    if pairs.rows:
        sections.append(Section("Paired differences", pairs, folded=len(pairs.rows) > 15))
    sections += _run_sections(methods, metric, rule)
    if left_out:
        sections.append(Section("Left out", omitted))
    (out / "report.html").write_text(page(f"Surefoot: {metric}", _about(methods, left_out, rule, now), sections))
    return text


def _run_sections(methods: Sequence[Method], metric: str, rule: str) -> list[Section]:
    """Return what the page says of the runs: their settings and themselves."""
    differing, shared = _settings_tables(methods)
    runs = _runs_table(methods, metric, rule)
    return [
        *([Section("Settings that differ", differing)] if differing.rows else []),
        Section("Settings that all runs share", shared, folded=True),
        Section("Runs", runs, folded=len(runs.rows) > 30),
    ]


def _method_table(methods: Sequence[Method], estimates: Mapping[str, Estimate], metric: str, rule: str) -> TextTable:
    rows = []
    for m in methods:
        e = estimates[m.name]
        rows.append([m.name, f"{e.mean:.3f}", _method_interval(m, e, metric, rule), str(e.n)])
    return TextTable(["method", f"{metric} ({rule})", "95% interval", "seeds"], rows)


def _about(methods: Sequence[Method], left_out: Sequence[LeftOut], rule: str, now: float) -> str:
    """Return what the page says of itself: day, numbers of runs and methods, what the tables show."""
    n_runs = sum(len(m.runs) for m in methods)
    meaning = (
        "the last logged value of each run"
        if rule == "last"
        else f"each run's value at the epoch that the rule {rule} chooses"
    )
    return (
        f"{_day(now)}. {n_runs} run{'s' * (n_runs != 1)} of {len(methods)} method{'s' * (len(methods) != 1)};"
        f" {len(left_out)} left out. The tables show {meaning}, averaged over seeds."
    )


def _write_runs(methods: Sequence[Method], path: Path) -> None:
    """Write one row per run: where, which settings, and every quantity at every rule's epoch."""
    records = [
        {
            "path": str(run.path),
            "name": method.name,
            "experiment": run.experiment,
            "method": run.method,
            "data": run.data,
            "seed": run.seeds.get("seed_everything"),
            "started": _day(run.created),
            "revision": run.revision,
            **{f"{rule}:{k}": v for rule, chosen in run.selection.items() for k, v in chosen.items()},
            **{f"last:{k}": v[-1] for k, v in run.metrics.items()},
            **run.settings,
        }
        for method in methods
        for run in method.runs
    ]
    _write_csv(records, path)


def _write_csv(records: Sequence[Mapping[str, object]], path: Path, columns: Sequence[str] = ()) -> None:
    columns = list(dict.fromkeys([*columns, *(k for record in records for k in record)]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)
