"""How far a set of inputs is from another: the probability of it that a weak classifier gives to its held-out examples.

Reference: Kang et al., ICLR 2024, arXiv 2310.00873, section 4 and the authors' code.
"""

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from surefoot.training.seeds import numbered_seed

__all__ = ("ood_score",)

Floats = NDArray[np.floating]


def ood_score(
    in_distribution: Floats,
    other: Floats,
    n_repeats: int = 30,
    held_out: float = 0.1,
    penalty: float = 10.0,
    seed: int = 0,
) -> float:
    """Return the geometric mean probability, by a weak linear classifier, that held-out examples are of the other set.

    Both sets are cut to the same size; a tenth of the other is held out; a logistic regression with a strong l2 penalty
    is fitted on standardised features of the rest. 0.5 means that the classifier cannot separate them.

    Args:
        in_distribution: Features, ``(examples, features)``.
        other: Features of the other set, ``(examples, features)``.
        n_repeats: Repetitions, each with another split.
        held_out: Share of the other set that is held out.
        penalty: Strength of the l2 penalty; strong ones make a weak classifier.
        seed: Seed of splits and fits.

    Returns:
        Score in (0, 1); the paper puts the training distribution itself at 0.5.

    Raises:
        ValueError: If a set has fewer than two examples.
    """
    size = min(len(in_distribution), len(other))
    if size < 2:
        raise ValueError(f"an OOD score needs two examples of each set, got {len(in_distribution)} and {len(other)}.")
    generator = np.random.default_rng(seed)
    n_held = max(1, round(held_out * size))
    logs = []
    for repeat in range(n_repeats):
        ours = in_distribution[generator.permutation(len(in_distribution))[: size - n_held]]
        theirs = other[generator.permutation(len(other))[:size]]
        held, theirs = theirs[:n_held], theirs[n_held:]
        margin = _margins(ours, theirs, held, penalty, numbered_seed(seed, repeat) % 2**32)
        logs.append(float(-np.logaddexp(0, -margin).mean()))
    return math.exp(sum(logs) / len(logs))


def _margins(ours: Floats, theirs: Floats, held: Floats, penalty: float, seed: int) -> Floats:
    """Return the log odds of held-out examples for the second set, by a weak classifier, ``(held-out,)``."""
    from sklearn.linear_model import SGDClassifier

    features = np.concatenate([ours, theirs]).astype(np.float64)
    center, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    model = SGDClassifier(loss="log_loss", alpha=penalty, max_iter=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 20 rounds need not converge
        model.fit((features - center) / scale, np.r_[np.zeros(len(ours)), np.ones(len(theirs))])
    margins: Floats = model.decision_function((held - center) / scale)
    return margins
