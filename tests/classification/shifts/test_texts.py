import pytest

from surefoot.classification.shifts import PERTURBATIONS, perturb
from surefoot.errors import ConfigError

TEXT = "the quick brown fox jumps over the lazy dog today"


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_the_id_decides_and_nothing_happens_at_zero(kind: str) -> None:
    assert perturb(TEXT, 3, kind, 0.0) == TEXT
    changed = perturb(TEXT, 3, kind, 0.5)
    assert changed == perturb(TEXT, 3, kind, 0.5) != TEXT
    assert len({perturb(TEXT, i, kind, 0.5) for i in range(8)}) > 4
    assert perturb("", 0, kind, 1.0) == ""
    assert perturb("a", 0, kind, 1.0)


def test_what_each_does() -> None:
    words = TEXT.split()
    assert len(perturb(TEXT, 1, "drop", 0.3).split()) == 7
    assert len(perturb(TEXT, 1, "drop", 1.0).split()) == 1, "never all"
    assert sorted(perturb(TEXT, 1, "shuffle", 1.0).split()) == sorted(words)
    typos = perturb(TEXT, 1, "typos", 1.0).split()
    assert [sorted(w) for w in typos] == [sorted(w) for w in words]
    scrambled = perturb(TEXT, 1, "scramble", 1.0).split()
    assert [len(w) for w in scrambled] == [len(w) for w in words]
    changed = [a != b for a, b in zip(perturb(TEXT, 1, "scramble", 0.4).split(), words, strict=True)]
    assert sum(changed) == 4


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="no perturbation 'x'; there are typos"):
        perturb(TEXT, 0, "x", 0.1)
    with pytest.raises(ConfigError, match=r"must be in \[0, 1\], got 2"):
        perturb(TEXT, 0, "drop", 2)
