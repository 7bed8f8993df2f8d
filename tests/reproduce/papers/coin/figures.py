"""What is drawn of coins."""

from pathlib import Path

from surefoot.report.figures import dot_plot
from surefoot.reproduce.results import Results

__all__ = ("heads",)


def heads(results: Results, folder: Path) -> None:
    """Draw each coin's share of heads."""
    throws = results["throws"]
    panels = {"heads": {coin: throws.estimate("heads", coin=coin) for coin in throws.distinct("coin")}}
    dot_plot(panels, "share", folder / "heads")
