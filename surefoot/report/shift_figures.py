"""Figures of reversion to the optimal constant solution: one per mechanism, of one run or of several seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.report.figures import interval_curves
from surefoot.statistics import Estimate, mean_interval

__all__ = ("by_family", "draw_layers", "draw_sets", "family_and_level")

Row = Mapping[str, Any]
Curves = dict[str, list[tuple[float, Estimate]]]


def family_and_level(name: str) -> tuple[str, int]:
    """Return kind and level of a set's name: ``noise_3`` is (noise, 3); a set without levels has level 1."""
    kind, _, level = name.rpartition("_")
    return (kind, int(level)) if kind and level.isdigit() else (name, 1)


def by_family(rows: Sequence[Row], x: str | None, y: str) -> Curves:
    """Return curves of a quantity over the sets of each kind; the first set, which is not shifted, starts every curve.

    Args:
        rows: Rows with ``set`` and quantities, of one or several seeds, the first set first.
        x: Quantity on the x-axis, averaged over seeds; the level if none (0 for the first set).
        y: Quantity drawn; sets without it are left out.
    """
    values: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get(y) is None:
            continue
        place = family_and_level(row["set"])[1] if x is None else float(row[x])
        values.setdefault(row["set"], []).append((place, float(row[y])))
    if not values:
        return {}
    first = next(iter(values))
    points = {
        name: (
            0.0 if x is None and name == first else sum(place for place, _ in found) / len(found),
            mean_interval([value for _, value in found]),
        )
        for name, found in values.items()
    }
    curves: Curves = {}
    for name, point in points.items():
        if name != first:
            curves.setdefault(family_and_level(name)[0], [points[first]]).append(point)
    curves = curves or {first: [points[first]]}
    return {kind: sorted(found, key=lambda p: p[0]) for kind, found in curves.items()}


#: Quantity of a set -> file and label.
_QUANTITIES = {
    "distance": ("distance", "distance to the optimal constant"),
    "normalised_distance": (
        "normalised_distance",
        "distance to the constant, relative to the first set",
    ),
    "confidence": ("confidence", "probability of the predicted class"),
    "accuracy": ("accuracy", "accuracy"),
    "bias_share": ("bias_share", "share of accumulated biases in the output"),
}


def draw_sets(rows: Sequence[Row], folder: Path, title: str = "") -> list[Path]:
    """Draw distance, confidence, accuracy and the share of biases against the OOD score, or else the level.

    Args:
        rows: Rows of ``sets.csv``, of one or several seeds.
        folder: Where to write.
        title: Title of the figures.

    Returns:
        The files written.
    """
    x = "ood_score" if all(row.get("ood_score") is not None for row in rows) else None
    label = "level of the shift" if x is None else "OOD score"
    written = []
    for quantity, (name, text) in _QUANTITIES.items():
        curves = by_family(rows, x, quantity)
        if curves:
            written.append(interval_curves(curves, (label, text), folder / name, title))
    return written


def draw_layers(rows: Sequence[Row], folder: Path, title: str = "") -> list[Path]:
    """Draw what each kind's strongest level does to each layer: relative norms and shares of inputs within subspaces.

    Args:
        rows: Rows of ``layers.csv``: ``set, layer`` and quantities, of one or several seeds, the first set first.
        folder: Where to write.
        title: Title of the figures.

    Returns:
        The files written.
    """
    strongest: dict[str, str] = {}
    for row in (r for r in rows if r["set"] != rows[0]["set"]):
        strongest[family_and_level(row["set"])[0]] = row["set"]
    texts = {
        "relative_norm": "norm of the layer's output (without bias), relative",
        "in_distribution_share": "share of the input in the first set's subspace",
        "row_space_share": "share of the input that the layer reads",
    }
    written = []
    for quantity, text in texts.items():
        kept = [r for r in rows if r.get(quantity) is not None]
        layers = list(dict.fromkeys(r["layer"] for r in kept))
        curves: Curves = {}
        for name in strongest.values():
            points = []
            for place, layer in enumerate(layers):
                found = [float(r[quantity]) for r in kept if r["layer"] == layer and r["set"] == name]
                if found:
                    points.append((float(place), mean_interval(found)))
            curves[name] = points
        if layers:
            labels = ("layer", text)
            written.append(interval_curves(curves, labels, folder / quantity, title, ticks=layers))
    return written
