"""The study's tables, read: what claims and figures ask them."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from surefoot.reasoning.metrics.memorization import identity_r2, prediction_quality
from surefoot.reproduce.claims import Keys
from surefoot.reproduce.jobs import slug
from surefoot.reproduce.results import PerSeed, Results, Row, RowsBySeed, by_seed
from surefoot.statistics import Estimate, bootstrap_interval

__all__ = (
    "CURATION_TABLE",
    "GAPS_TABLE",
    "METHOD_NAMES",
    "OWN_RUNS",
    "PREDICTORS",
    "PREFIXES_TABLE",
    "SEEDS_TABLE",
    "advantage",
    "column",
    "curation",
    "mean_after_additions",
    "other_methods",
    "other_predictors",
    "predictors",
    "prefixes",
    "quality",
    "records",
    "records_left_out",
    "runs_of",
)

#: What is compared as a predictor of the gap between train and test accuracy, by column; ours is the first.
PREDICTORS = ("train minus pre-memorization", "gradient variance", "distance from start", "ATC")
#: How parents of new problems are chosen -> its name; ours is the first.
METHOD_NAMES = {
    "pre_memorization": "low pre-memorization accuracy",
    "iid": "IID",
    "ifd": "IFD",
    "heuristic": "longest solutions",
}
#: The record of the study's own runs, and the other tables on them.
OWN_RUNS = "arithmetic"
CURATION_TABLE = f"{OWN_RUNS}_curation"
GAPS_TABLE = f"{OWN_RUNS}_gaps"
PREFIXES_TABLE = f"{OWN_RUNS}_prefixes"
SEEDS_TABLE = f"{OWN_RUNS}_seeds"

#: Column of the checkpoints by which test accuracy is predicted.
Predictor = Literal["pre_memorization_accuracy", "train_accuracy", "left_out_accuracy"]


def records(results: Results) -> Keys:
    """Yield every record; ``own`` are the runs of this study's tiny models."""
    return ({"record": row["record"], "own": row["own"]} for row in results["records"])


def records_left_out(results: Results) -> Keys:
    """Yield the records with a given threshold whose runs were also predicted with thresholds from the others."""
    return (key for key in records(results) if "left_out_accuracy" in results[f"{key['record']}_checkpoints"][0])


def other_predictors(results: Results) -> Keys:
    """Yield the predictors of the gap that ours is compared with."""
    return (key for key in predictors(results) if key["predictor"] != PREDICTORS[0])


def predictors(results: Results) -> Keys:
    """Yield the predictors of the gap; ``key`` is for ids."""
    for name in PREDICTORS:
        if name in results[GAPS_TABLE][0]:
            yield {"predictor": name, "key": slug(name)}


def prefixes(results: Results) -> Keys:
    """Yield the starts of answers, numbered from 1."""
    names = [name.removeprefix("accuracy/") for name in results[PREFIXES_TABLE][0] if name.startswith("accuracy/")]
    return ({"prefix": name, "number": i} for i, name in enumerate(filter(None, names), 1))


def other_methods(results: Results) -> Keys:
    """Yield the methods of curation that ours is compared with."""
    return (
        {"method": m, "name": METHOD_NAMES[m]}
        for m in results[CURATION_TABLE].distinct("method")
        if m != "pre_memorization"
    )


def runs_of(results: Results, record: str) -> dict[str, list[Row]]:
    """Return the checkpoints of each of a record's runs."""
    found: dict[str, list[Row]] = {}
    for row in results[f"{record}_checkpoints"]:
        found.setdefault(row["run"], []).append(row)
    return found


def column(results: Results, record: str, name: str) -> list[Tensor]:
    """Return a quantity of each of a record's runs, ``(checkpoints,)``."""
    runs = runs_of(results, record).values()
    return [torch.tensor([row[name] for row in rows], dtype=torch.float64) for rows in runs]


def quality(results: Results, record: str, predictor: Predictor, quantity: str) -> Estimate:
    """Return a quantity of `PredictionQuality` over all checkpoints, with its interval over redrawn runs."""
    predicted, observed = (column(results, record, name) for name in (predictor, "test_accuracy"))

    def of(chosen: Sequence[int]) -> float:
        x, y = (torch.cat([v[i] for i in chosen]) for v in (predicted, observed))
        return float(getattr(prediction_quality(x, y), quantity))

    return bootstrap_interval(of, len(observed), 400)


def advantage(results: Results, record: str) -> Estimate:
    """Return by how much R² of y = x exceeds plain train accuracy's, with its interval over redrawn runs."""
    names = ("pre_memorization_accuracy", "train_accuracy", "test_accuracy")
    columns = [column(results, record, name) for name in names]

    def of(chosen: Sequence[int]) -> float:
        pre, plain, observed = (torch.cat([v[i] for i in chosen]) for v in columns)
        return identity_r2(pre, observed) - identity_r2(plain, observed)

    return bootstrap_interval(of, len(columns[0]), 400)


def curation(results: Results, method: str) -> RowsBySeed:
    """Return, by seed, a method's rows along growing numbers of examples, the originals first."""
    return by_seed(results[CURATION_TABLE].where(method=method))


def mean_after_additions(results: Results, method: str) -> PerSeed:
    """Return a method's mean test accuracy over all rounds that added problems."""
    return curation(results, method).reduce(lambda rows: fmean(row["test_accuracy"] for row in rows[1:]))
