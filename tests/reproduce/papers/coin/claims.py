"""What is claimed of coins."""

from surefoot.reproduce.claims import claim, close_to, interval_above
from surefoot.reproduce.results import PerSeed, Results

__all__ = ()


def coins(results: Results) -> list[dict[str, str]]:
    """Return the coins that were thrown."""
    return [{"coin": coin} for coin in results["throws"].distinct("coin")]


@claim(id="{coin}_fair", over=coins, source="page 1", unit="share", criterion=close_to(0.5, 0.2, "a coin is fair"))
def fair(results: Results, coin: str) -> PerSeed:
    """The {coin} coin shows heads as often as tails."""
    return results["throws"].per_seed("heads", coin=coin)


@claim(source="page 2", unit="share", criterion=interval_above(0, "a difference has to stand out from the seeds"))
def second_above_first(results: Results) -> PerSeed:
    """The second coin shows heads more often than the first."""
    throws = results["throws"]
    return throws.per_seed("heads", coin="second") - throws.per_seed("heads", coin="first")
