"""Figures that can be read without colour: dots with intervals, and curves with bands; SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from surefoot.statistics import Estimate

__all__ = (
    "LINES",
    "MARKERS",
    "PALETTE",
    "Plane",
    "add_legend",
    "decision_planes",
    "dot_plot",
    "interval_curves",
    "new_axes",
    "save_figure",
)

#: Okabe & Ito's colours, safe for the colour-blind; each comes with its own marker and line.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", "-", "--", "-.")


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as SVG, the same bytes for the same data, close it, and return the file."""
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".svg")
    figure.savefig(written, bbox_inches="tight", dpi=150, metadata={"Date": None})
    plt.close(figure)
    return written


def new_axes(width: float, height: float, n_columns: int = 1) -> Any:
    """Return a figure of this size in inches and its axes, a single one or one per column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "svg.hashsalt": "surefoot",
            "svg.fonttype": "none",  # text stays text: small, and found by a search
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    return plt.subplots(ncols=n_columns, figsize=(width, height))


def add_legend(axes: Any, **arguments: Any) -> None:
    """Put a legend beside the axes, unless it would explain a single series."""
    if arguments.get("handles") is None:
        arguments["handles"] = axes.get_legend_handles_labels()[0]
    if len(arguments["handles"]) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), **arguments)


def dot_plot(
    panels: Mapping[str, Mapping[str, Estimate]],
    x_label: str,
    path: Path,
    title: str = "",
    unit_range: bool = False,
) -> Path:
    """Draw one row per name with a dot and its 95% interval for each series.

    Args:
        panels: Series -> row name -> estimate; of a single value no interval is drawn.
        x_label: Label of the axis, with its unit.
        path: Where to write, without ending.
        title: Title.
        unit_range: The axis shows [0, 1], whatever the values.

    Returns:
        The file written.
    """
    rows = list(dict.fromkeys(name for series in panels.values() for name in series))
    spread = min(0.22, 0.8 / len(panels))  # of a row's dots, in rows
    labels = [wrap(row, 44) for row in rows[::-1]]
    n_lines = max((len(lines) for lines in labels), default=1)
    row_height = max(0.36, 0.13 * len(panels), 0.1 + 0.2 * n_lines)  # inches
    figure, axes = new_axes(6.4, 0.9 + row_height * len(rows))
    for i, (series, estimates) in enumerate(panels.items()):
        shift = spread * (i - (len(panels) - 1) / 2)
        heights = {row: len(rows) - 1 - rows.index(row) - shift for row in estimates}
        _draw_dots(axes, i, series, [(heights[row], e) for row, e in estimates.items()])
    axes.set_yticks(range(len(rows)), ["\n".join(lines) for lines in labels])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    if unit_range:
        axes.set_xlim(-0.03, 1.03)
    else:
        axes.margins(x=0.06)
    axes.set_xlabel(x_label)
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    add_legend(axes)
    return save_figure(figure, path)


def _draw_dots(axes: Any, number: int, series: str, dots: Sequence[tuple[float, Estimate]]) -> None:
    """Draw a series' dots with their intervals, at these heights; its name is the first dot's label."""
    colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
    for i, (y, e) in enumerate(dots):
        ends = [e.low, e.high] if e.n > 1 else [e.mean] * 2
        axes.plot(ends, [y, y], color=colour, lw=1.5, clip_on=False)
        axes.plot(
            e.mean,
            y,
            marker,
            color=colour,
            fillstyle="none" if number >= len(PALETTE) else "full",  # the colours repeat
            label="\n".join(wrap(series, 40)) if i == 0 else None,
            ls="",
            clip_on=False,
        )


def interval_curves(
    series: Mapping[str, Sequence[tuple[float, Estimate]]],
    labels: tuple[str, str],
    path: Path,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    horizontals: Mapping[str, Estimate] | None = None,
    ticks: Sequence[str] | None = None,
) -> Path:
    """Draw curves with 95% bands, and horizontal lines for reference.

    Args:
        series: Name -> points (x, estimate).
        labels: Labels of the two axes, with units.
        path: Where to write, without ending.
        title: Title.
        log_x: Whether x is logarithmic.
        log_y: Whether y is logarithmic.
        horizontals: Name -> estimate drawn across.
        ticks: Names of x = 0, 1, ...; numbers by default.

    Returns:
        The file written.
    """
    figure, axes = new_axes(6.4, 3.6)
    for i, (name, points) in enumerate(series.items()):
        _draw_curve(axes, i, name, points)
    for j, (name, estimate) in enumerate((horizontals or {}).items()):
        colour = PALETTE[(len(series) + j) % len(PALETTE)]
        axes.axhline(estimate.mean, color=colour, ls=LINES[(j + 1) % 4], lw=1.2, label=name)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if ticks is not None:
        axes.set_xticks(range(len(ticks)), ticks, rotation=30, ha="right")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title)
    axes.grid(alpha=0.3)
    add_legend(axes)
    return save_figure(figure, path)


def _draw_curve(axes: Any, number: int, name: str, points: Sequence[tuple[float, Estimate]]) -> None:
    """Draw a curve with its band."""
    i = number % len(PALETTE)
    x = [p[0] for p in points]
    again = number >= len(PALETTE)  # the colours repeat: hollow markers, thin lines
    axes.plot(
        x,
        [p[1].mean for p in points],
        LINES[i] + MARKERS[i],
        color=PALETTE[i],
        label=name,
        fillstyle="none" if again else "full",
        lw=0.8 if again else 1.5,
    )
    if all(p[1].n > 1 for p in points):
        low, high = [p[1].low for p in points], [p[1].high for p in points]
        axes.fill_between(x, low, high, color=PALETTE[i], alpha=0.15)


class Plane(NamedTuple):
    """Points in two dimensions and the lines that cut them."""

    x: Sequence[float]
    y: Sequence[float]
    label: Sequence[int]
    lines: Mapping[str, tuple[float, float, float]]  # name -> (a, b, c) of a x + b y + c = 0


def decision_planes(planes: Mapping[str, Plane], labels: tuple[str, str], path: Path, title: str = "") -> Path:
    """Draw points by label with decision lines, one panel a name.

    Args:
        planes: Name -> points and lines.
        labels: Labels of the two axes.
        path: Where to write, without ending.
        title: Title.

    Returns:
        The file written.
    """
    figure, axes = new_axes(4.2 * len(planes), 3.6, n_columns=len(planes))
    for axis, (name, plane) in zip(axes, planes.items(), strict=True):
        for value in sorted(set(plane.label)):
            rows = [i for i, label in enumerate(plane.label) if label == value]
            axis.plot(
                [plane.x[i] for i in rows],
                [plane.y[i] for i in rows],
                MARKERS[value],
                color=PALETTE[value],
                ms=3,
                alpha=0.4,
                label=f"label {value}",
            )
        bounds = axis.get_xlim(), axis.get_ylim()
        for i, (line, (a, b, c)) in enumerate(plane.lines.items()):
            if abs(b) >= abs(a):
                ends = [(x, -(a * x + c) / b) for x in bounds[0]]
            else:
                ends = [(-(b * y + c) / a, y) for y in bounds[1]]
            axis.plot(*zip(*ends, strict=True), LINES[i], color=PALETTE[2 + i], lw=2, label=line)
        axis.set(xlim=bounds[0], ylim=bounds[1], xlabel=labels[0], ylabel=labels[1], title=name)
    handles = {h.get_label(): h for axis in axes for h in axis.get_legend_handles_labels()[0]}
    axes[-1].legend(handles=[*handles.values()], frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    figure.tight_layout()
    return save_figure(figure, path)
