"""Seeds of draws from the seed of a run and what each draw is for."""

import hashlib

__all__ = ("derive_seed", "numbered_seed")

#: Numbers below this never share a seed with those of another seed of a run.
_STRIDE = 1_000_003


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2^56) that depends on all parts, the same on every machine."""
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def numbered_seed(seed: int, number: int) -> int:
    """Return the seed of the ``number``-th of a row of draws, such as the orders of epochs.

    Two seeds share none below 1,000,003 draws. The committed results were drawn so; where draws have a name,
    `derive_seed` takes it.
    """
    return _STRIDE * seed + number
