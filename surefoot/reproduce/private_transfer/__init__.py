"""Public representations for private transfer learning, measured again on made-up tasks and on CIFAR-10's features."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from surefoot.processes import die_with_parent
from surefoot.reproduce._private_claims import (
    audit_claims,
    curve_claims,
    feature_claims,
    personal_claims,
    rate_claims,
)
from surefoot.reproduce._private_features import EPSILONS, encoder_job, probe_rows
from surefoot.reproduce._private_toy import (
    DELTA,
    CurveSizes,
    Rows,
    curves,
    personalisation,
    sweeps,
)
from surefoot.reproduce.claims import Findings, Paper, Scale
from surefoot.reproduce.jobs import run_jobs

__all__ = ("PAPER",)


def _one_thread(work: Callable[..., Rows], arguments: Sequence[Any]) -> Rows:
    import torch

    torch.set_num_threads(1)
    return work(*arguments)


def _over_seeds(work: Callable[..., Rows], arguments: Sequence[Sequence[Any]], quick: bool) -> Rows:
    """Return the rows of many calls, side by side; in this process where there is little to do."""
    if quick:
        return [row for given in arguments for row in work(*given)]
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=die_with_parent) as pool:
        futures = [pool.submit(_one_thread, work, given) for given in arguments]
        return [row for future in futures for row in future.result()]


def measure(scale: Scale, n_seeds: int, out: Path) -> Findings:
    """Measure every claim.

    Args:
        scale: ``quick`` shortens everything and judges nothing.
        n_seeds: Seeds of data and noise.
        out: Folder of the results.

    Returns:
        Measurements, tables and the protocol.
    """
    quick = scale == "quick"
    sizes = CurveSizes()
    if quick:
        sizes = CurveSizes(30, 3, (200, 500, 1000, 2000), (1000, 5000, 10_000), 10, 200)
    seeds = range(n_seeds)
    tables: dict[str, Rows] = {}
    tables["curves"] = _over_seeds(curves, [(sizes, s) for s in seeds], quick)
    measurements = curve_claims(tables["curves"], sizes, out)
    tables["sweeps"] = _over_seeds(sweeps, [(s, quick) for s in seeds], quick)
    measurements += rate_claims(tables["sweeps"], out)
    counts = (20, 50) if quick else (10, 20, 50, 200)
    tables["personalisation"] = _over_seeds(personalisation, [(s, n) for s in seeds for n in counts], quick)
    measurements += personal_claims(tables["personalisation"], out)
    notes = [
        (
            "Guarantees: adding or removing one example (personalisation: a user); privacy loss distributions, delta"
            f" {DELTA:g}."
        ),
        (
            "Fixed in advance, none tuned: 10 full-batch steps of 0.5, the last two averaged, clip the root of the"
            " number of directions."
        ),
        "Probes: 30 steps of 10, clip 1, the last half averaged; the rate was chosen in an exploration with two seeds.",
        (
            "Coordinated users and DP-FedAvg have the best of eight settings, chosen with the true weights: optimistic"
            " for them."
        ),
        "Bounds are drawn without constants and logarithms; gamma is printed beside every error.",
    ]
    root = os.environ.get("SUREFOOT_DATA")
    if root is None or not (Path(root) / "cifar10").is_dir():
        notes.append("Real features were left out: SUREFOOT_DATA names no folder with cifar10.")
    else:
        tables["features"] = features(n_seeds, quick, out)
        measurements += feature_claims(tables["features"], out)
        notes.append(
            "Features: a small network trained on airplane, automobile, bird, cat and ship; private: 2,000 images of"
            " the other classes;"
            " centred by the public mean, of length 1; directions are the public features' principal ones."
        )
    claims, tables["audit"] = audit_claims(100 if quick else 1000, 1 if quick else 5)
    return Findings([*measurements, *claims], tables, notes)


def features(n_seeds: int, quick: bool, out: Path) -> Rows:
    """Train encoders on the public classes, four at most, and probe each for a share of the seeds."""
    n_encoders = min(4, n_seeds)
    wanted = [encoder_job(seed, quick) for seed in range(n_encoders)]
    found = run_jobs(wanted, out)
    shares = {e: [s for s in range(n_seeds) if s % n_encoders == e] for e in range(n_encoders)}
    epsilons = (0.5, 1.0) if quick else EPSILONS
    arguments = [
        (Path(found[job.name].folder), e, shares[e], epsilons, 1000 if quick else None) for e, job in enumerate(wanted)
    ]
    return _over_seeds(probe_rows, arguments, quick)


PAPER = Paper(
    "private_transfer",
    "On the Benefits of Public Representations for Private Transfer Learning under Distribution Shift",
    "Thaker, Setlur, Wu, Smith, NeurIPS 2024, arXiv 2312.15551",
    measure,
    {"quick": 1, "laptop": 20, "paper": 20},
)
