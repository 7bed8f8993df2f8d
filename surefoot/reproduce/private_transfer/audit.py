"""A mechanism under audit, correct or broken on purpose."""

from collections.abc import Mapping
from typing import Literal

import torch

from surefoot.privacy import (
    Audit,
    SeededNoise,
    audit_mechanism,
    calibrate_noise,
    clipped_gradient_sum,
    noisy_gradient,
)

__all__ = ("BREAKAGES", "MECHANISMS", "Breakage", "audit_descent")

Breakage = Literal["none", "no clipping", "noise too small", "no sampling"]
BREAKAGES: tuple[Breakage, ...] = ("none", "no clipping", "noise too small", "no sampling")
#: What is audited: what is broken, sampling rate, steps.
MECHANISMS: Mapping[str, tuple[Breakage, float, int]] = {
    "correct, sampled": ("none", 0.05, 4),
    "correct, all examples": ("none", 1.0, 1),
    "no clipping": ("no clipping", 0.05, 4),
    "noise too small": ("noise too small", 1.0, 1),
    "accounted as sampled, but not": ("no sampling", 0.05, 4),
}
DELTA, CLIP = 1e-5, 1.0


def audit_descent(
    breakage: Breakage,
    epsilon: float = 1.0,
    n_trials: int = 1000,
    n_steps: int = 4,
    sampling_rate: float = 0.05,
    seed: int = 0,
) -> Audit:
    """Audit private descent on a regression with a canary that pushes one weight in every step.

    Args:
        breakage: ``none``; ``no clipping`` (gradients enter whole, the noise is as if they were clipped); ``noise too
            small`` (a fifth of what was calibrated); ``no sampling`` (all examples in each step, accounted for as
            samples).
        epsilon: Claimed.
        n_trials: Runs with the canary, and as many without.
        n_steps: Steps of a run.
        sampling_rate: Of the accountant, and of the mechanism unless that is broken.
        seed: Seed of the data and the runs.
    """
    generator = torch.Generator().manual_seed(seed)
    d, n = 8, 30
    inputs = torch.randn(n + 1, d, generator=generator, dtype=torch.float64)
    target = torch.randn(n + 1, generator=generator, dtype=torch.float64)
    inputs[-1], target[-1] = 0.0, -100.0
    inputs[-1, 0] = 10.0  # gradients of the canary are clipped, and all of one direction
    absent = inputs.clone()
    absent[-1] = 0.0  # no gradient: as if it were not there, the number of examples being public
    multiplier = calibrate_noise(epsilon, DELTA, sampling_rate, n_steps)
    noise = multiplier * (0.2 if breakage == "noise too small" else 1.0)
    rate = 1.0 if breakage == "no sampling" else sampling_rate
    clip = 1e9 if breakage == "no clipping" else CLIP

    def score(present: bool, trial: int) -> float:
        x, source = inputs if present else absent, SeededNoise(2 * trial + present + 10**6 * seed)
        weight = torch.zeros(d, 1, dtype=torch.float64)
        for step in range(n_steps):
            rows = source.poisson_sample(n + 1, rate, step)
            summed = clipped_gradient_sum(weight, x[rows], target[rows], "squared", clip).gradient
            drawn = source.normal((d, 1), step)
            weight = weight - 0.1 * noisy_gradient(summed, drawn, noise, CLIP, rate * n)
        return -float(weight[0, 0])

    return audit_mechanism(score, epsilon, DELTA, n_trials)
