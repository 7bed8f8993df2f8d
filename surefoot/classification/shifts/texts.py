"""Perturbations of texts at graded strengths, the same for the same example id."""

import random
from collections.abc import Callable, Mapping

from surefoot.errors import ConfigError

__all__ = ("PERTURBATIONS", "perturb")


def _chosen(n: int, share: float, draw: random.Random) -> list[int]:
    return sorted(draw.sample(range(n), round(share * n)))


def _typos(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Swap two neighbouring letters, or double the only one."""
    for i in _chosen(len(words), share, draw):
        word = words[i]
        if len(word) < 2:
            words[i] = word * 2
            continue
        at = draw.randrange(len(word) - 1)
        words[i] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return words


def _drop(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Leave words out, but never all."""
    gone = set(_chosen(len(words), share, draw)[: len(words) - 1])
    return [word for i, word in enumerate(words) if i not in gone]


def _shuffle(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Let words change positions among themselves."""
    positions = _chosen(len(words), share, draw)
    moved = [words[i] for i in positions]
    draw.shuffle(moved)
    for i, word in zip(positions, moved, strict=True):
        words[i] = word
    return words


def _scramble(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Replace words by random letters of the same length."""
    for i in _chosen(len(words), share, draw):
        words[i] = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=len(words[i])))
    return words


#: Name -> what is done to a share of the words.
PERTURBATIONS: Mapping[str, Callable[[list[str], float, random.Random], list[str]]] = {
    "typos": _typos,
    "drop": _drop,
    "shuffle": _shuffle,
    "scramble": _scramble,
}


def perturb(text: str, index: int, kind: str, strength: float, seed: int = 0) -> str:
    """Perturb a text; words are what spaces separate.

    Args:
        text: The text.
        index: Id of the example.
        kind: ``typos``, ``drop``, ``shuffle`` (words) or ``scramble`` (words into random letters).
        strength: Share of the words in [0, 1].
        seed: Seed of the choice.

    Raises:
        ConfigError: If there is no such perturbation or the share is outside [0, 1].
    """
    if kind not in PERTURBATIONS:
        raise ConfigError(f"no perturbation {kind!r}; there are {', '.join(PERTURBATIONS)}.")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength of {kind} must be in [0, 1], got {strength}.")
    # no derive_seed here: the committed results of the optimal constant solution are of these texts
    draw = random.Random(f"{seed} {kind} {strength} {index}")
    return " ".join(PERTURBATIONS[kind](text.split(), strength, draw))
