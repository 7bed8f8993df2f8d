"""Seeds of draws from the seed of a run and what each draw is for."""

import hashlib

__all__ = ("derive_seed",)


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2^56) that depends on all parts, the same on every machine."""
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
