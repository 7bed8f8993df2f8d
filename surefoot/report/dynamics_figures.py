"""Figures of learning dynamics: predicted against observed accuracy, examples over epochs, and distributions by bin."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from surefoot.report.figures import LINES, MARKERS, PALETTE, add_legend, new_axes, save_figure

__all__ = ("example_heat_map", "lines", "prediction_panels", "violins")

Points = Sequence[tuple[float, float]]


def prediction_panels(
    panels: Mapping[str, Mapping[tuple[str, str], Points]],
    labels: tuple[str, str],
    path: Path,
    diagonal: bool = True,
) -> Path:
    """Draw points in panels, coloured by one property and marked by another.

    Args:
        panels: Title -> (colour's name, marker's name) -> points (x, y).
        labels: Labels of the two axes.
        path: Where to write, without ending.
        diagonal: Draw y = x, and give both axes the same range.

    Returns:
        The file written.
    """
    figure, axes = new_axes(4.2 * len(panels) + 1.8, 3.9, n_columns=len(panels))
    axes = [axes] if len(panels) == 1 else list(axes)
    keys = list(dict.fromkeys(key for series in panels.values() for key in series))
    colours, marks = (list(dict.fromkeys(k[i] for k in keys)) for i in (0, 1))
    values = [v for series in panels.values() for points in series.values() for p in points for v in p]
    for axis, (title, series) in zip(axes, panels.items(), strict=True):
        if diagonal and values:
            ends = [min(0.0, *values), max(values) * 1.03]
            axis.plot(ends, ends, color="#888888", lw=1, zorder=0)
            axis.set(xlim=ends, ylim=ends, aspect="equal")
        for (colour, mark), points in series.items():
            axis.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                MARKERS[marks.index(mark) % len(MARKERS)],
                color=PALETTE[colours.index(colour) % len(PALETTE)],
                ms=6,
                mec="white",
                mew=0.5,
            )
        axis.set(xlabel=labels[0], title=title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(labels[1])
    handles = [_handle("o", PALETTE[i % len(PALETTE)], c) for i, c in enumerate(colours)]
    if len(marks) > 1:
        handles += [_handle(MARKERS[i % len(MARKERS)], "#555555", m) for i, m in enumerate(marks)]
    add_legend(axes[-1], handles=handles)
    figure.tight_layout()
    return save_figure(figure, path)


def _handle(marker: str, colour: str, label: str) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color=colour, ls="", label=label)


def lines(
    series: Mapping[str, Points],
    labels: tuple[str, str],
    path: Path,
    title: str = "",
    y_range: tuple[float, float] | None = None,
    verticals: Mapping[str, float] | None = None,
) -> Path:
    """Draw curves without bands, and vertical lines for reference.

    Args:
        series: Name -> points (x, y).
        labels: Labels of the two axes.
        path: Where to write, without ending.
        title: Title.
        y_range: Bounds of the y axis.
        verticals: Name -> x.

    Returns:
        The file written.
    """
    figure, axis = new_axes(6.4, 3.6)
    for i, (name, points) in enumerate(series.items()):
        x, y = [p[0] for p in points], [p[1] for p in points]
        axis.plot(x, y, LINES[i % len(LINES)], color=PALETTE[i % len(PALETTE)], label=name)
    for i, (name, x_value) in enumerate((verticals or {}).items()):
        colour = PALETTE[(len(series) + i) % len(PALETTE)]
        axis.axvline(x_value, color=colour, ls=":", lw=1.5, label=name)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title)
    if y_range is not None:
        axis.set_ylim(*y_range)
    axis.grid(alpha=0.3)
    add_legend(axis)
    return save_figure(figure, path)


def example_heat_map(accuracies: Tensor, log_log_perplexities: Tensor, path: Path, title: str = "") -> Path:
    """Draw examples over checkpoints: brightness is the accuracy, the hue the trace's perplexity.

    Bright yellow is solved and not memorized, bright blue solved and memorized; dark is not solved.

    Args:
        accuracies: ``(checkpoints, examples)``.
        log_log_perplexities: The same shape; minus infinity is drawn like the smallest finite value.
        path: Where to write, without ending.
        title: Title.

    Returns:
        The file written.
    """
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    accuracy = accuracies.double().numpy()
    perplexity = log_log_perplexities.double().numpy()
    finite = perplexity[np.isfinite(perplexity)]
    low, high = (np.percentile(finite, q) for q in (2, 98)) if finite.size else (-1.0, 1.0)
    low = max(low, -5.0)  # memorized there; differences below have no meaning
    order = np.lexsort((accuracy.mean(0), perplexity.clip(low, high).mean(0)))
    norm = Normalize(low, max(high, low + 1e-6), clip=True)
    from matplotlib import colormaps

    # cividis runs from blue to yellow and is made for the colour-blind; brightness is then the accuracy
    hue = colormaps["cividis"](0.15 + 0.85 * norm(np.nan_to_num(perplexity, nan=low, neginf=low)))
    picture = hue[..., :3] * (0.12 + 0.88 * accuracy[..., None])
    figure, axis = new_axes(6.4, 3.9)
    axis.imshow(picture[:, order].transpose(1, 0, 2), aspect="auto", interpolation="nearest", origin="lower")
    axis.set_xticks(range(len(accuracy)), [str(i + 1) for i in range(len(accuracy))])
    axis.set(
        xlabel="checkpoint",
        ylabel="training examples, sorted by perplexity",
        title=title or "bright: sampled answers are correct; dark: wrong",
    )
    bar = figure.colorbar(ScalarMappable(norm, "cividis"), ax=axis)
    bar.set_label("log log perplexity of the trace (low: memorized)")
    return save_figure(figure, path)


def violins(panels: Mapping[str, Mapping[float, Sequence[float]]], labels: tuple[str, str], path: Path) -> Path:
    """Draw how values are distributed in bins, with the means as a line, one panel a name.

    Args:
        panels: Title -> bin -> values.
        labels: Labels of the two axes.
        path: Where to write, without ending.

    Returns:
        The file written.
    """
    figure, axes = new_axes(3.6 * len(panels), 3.4, n_columns=len(panels))
    axes = [axes] if len(panels) == 1 else list(axes)
    for i, (axis, (title, bins)) in enumerate(zip(axes, panels.items(), strict=True)):
        places = sorted(b for b, values in bins.items() if values)
        drawn = axis.violinplot([list(bins[b]) for b in places], places, widths=0.16, showextrema=False)
        for body in drawn["bodies"]:
            body.set(facecolor=PALETTE[i % len(PALETTE)], alpha=0.35)
        means = [sum(bins[b]) / len(bins[b]) for b in places]
        axis.plot(places, means, "o-", color=PALETTE[i % len(PALETTE)], label="mean")
        axis.set(xlabel=labels[0], title=title, ylim=(-0.05, 1.05))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(labels[1])
    figure.tight_layout()
    return save_figure(figure, path)
