"""Stored completions: sampled and graded by ``surefoot generate``, chosen from for training."""

from surefoot.reasoning.completions.edit_distance_pairs import EditDistancePairs
from surefoot.reasoning.completions.first_pit_pairs import FirstPitPairs
from surefoot.reasoning.completions.pairs import PairBuilder, PairRecord, Pit, PreferencePair, RandomPairs, TextPair

__all__ = (
    "EditDistancePairs",
    "FirstPitPairs",
    "PairBuilder",
    "PairRecord",
    "Pit",
    "PreferencePair",
    "RandomPairs",
    "TextPair",
)
