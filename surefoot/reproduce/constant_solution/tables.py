"""The study's tables, read: what claims and figures ask them."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from surefoot.report.shift_figures import family_and_level
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY, GAUSSIAN_NLL, LOW_DIMENSION, REWARD, VARIANTS
from surefoot.reproduce.results import NotMeasured, PerSeed, Results, Row, by_seed
from surefoot.statistics import correlation

__all__ = (
    "FAR",
    "Decisions",
    "Networks",
    "attacked",
    "bias_correlations",
    "biased",
    "classified",
    "decided",
    "detected",
    "far_from_training",
    "graded",
    "key_of",
    "last_kind",
    "mechanisms",
    "of_depth",
    "scored",
    "traced",
    "trained",
    "usual",
    "variants",
)

#: Levels that count as clearly out of distribution.
FAR = (3, 4, 5)

Keys = Iterator[dict[str, Any]]


def _value(row: Row, column: str) -> float:
    value = row.get(column)
    if value is None:
        raise NotMeasured(f"there is no {column} of {', '.join(str(row[k]) for k in ('study', 'training', 'set'))}")
    return float(value)


class Networks:
    """All seeds of one study under one training, tested with shifts; the first set is the unshifted one."""

    def __init__(self, results: Results, study: str, training: str) -> None:
        """Keep where the rows are."""
        self.results, self.study, self.training = results, study, training

    def _rows(self, table: str) -> dict[int, list[Row]]:
        return by_seed(self.results[table].where(study=self.study, training=self.training))

    @cached_property
    def sets(self) -> dict[int, list[Row]]:
        """By seed, a row per set."""
        return self._rows("sets")

    @cached_property
    def layers(self) -> dict[int, list[Row]]:
        """By seed, a row per set and layer."""
        return self._rows("layers")

    @cached_property
    def graded(self) -> list[str]:
        """Kinds of shifts that come in levels."""
        return _graded(next(iter(self.sets.values()))[1:])

    def levels(self, kind: str, quantity: str) -> dict[int, list[float]]:
        """Return, by seed, a quantity of the unshifted set and of a kind's levels, mildest first."""
        return {
            seed: [
                _value(row, quantity) for i, row in enumerate(rows) if i == 0 or family_and_level(row["set"])[0] == kind
            ]
            for seed, rows in self.sets.items()
        }

    def unshifted(self, quantity: str) -> PerSeed:
        """Return a quantity of the unshifted set."""
        return PerSeed({seed: _value(rows[0], quantity) for seed, rows in self.sets.items()})

    def strongest(self, quantity: str, kinds: Sequence[str] | None = None) -> PerSeed:
        """Return the mean over kinds at the strongest level; over all shifted sets where none has levels.

        Args:
            quantity: Column of ``sets``.
            kinds: Kinds of shifts; all that come in levels by default.
        """
        kinds = self.graded if kinds is None else kinds
        if not kinds:
            return PerSeed({seed: fmean(_value(row, quantity) for row in rows[1:]) for seed, rows in self.sets.items()})
        ends = [self.levels(kind, quantity) for kind in kinds]
        return PerSeed({seed: fmean(values[seed][-1] for values in ends) for seed in self.sets})

    def layer(self, position: int, quantity: str, kinds: Sequence[str] | None = None) -> PerSeed:
        """Return a layer's quantity on the unshifted set, or its mean over kinds at the strongest level.

        Args:
            position: 0 is the first layer, -1 the last.
            quantity: Column of ``layers``.
            kinds: Kinds of shifts, of which those are taken that there are.
        """
        rows = next(iter(self.sets.values()))
        last = {family_and_level(row["set"])[0]: row["set"] for row in rows[1:]}
        names = [rows[0]["set"]] if kinds is None else [last[kind] for kind in self.graded if kind in kinds]
        return PerSeed(
            {
                seed: fmean(_value([r for r in found if r["set"] == name][position], quantity) for name in names)
                for seed, found in self.layers.items()
            }
        )

    def constants(self, cut: str) -> dict[int, list[Row]]:
        """Return, by seed, what biases predict without a signal, cut ``inner`` (behind the first layer) or ``last``."""
        where = {"study": self.study, "training": self.training, "cut": cut}
        return by_seed(self.results["constants"].where(**where))

    @property
    def n_classes(self) -> int:
        """Number of outputs that are classes: abstaining is none."""
        n_outputs = len(next(iter(self.constants("last").values())))
        return n_outputs - (self.training == REWARD)

    def class_order(self) -> PerSeed:
        """Return the correlation over classes of the last bias's predictions with the optimal constant."""
        return PerSeed(
            {
                seed: correlation(
                    [row["prediction"] for row in rows[: self.n_classes]],
                    [row["optimal_constant"] for row in rows[: self.n_classes]],
                )
                for seed, rows in self.constants("last").items()
            }
        )


def _graded(shifted: Sequence[Row]) -> list[str]:
    kinds = [family_and_level(row["set"]) for row in shifted]
    return list(dict.fromkeys(kind for kind, level in kinds if level > 1))


def trained(results: Results) -> Keys:
    """Yield every study under every training; ``key`` is both, as in ids and names of files."""
    for study, training in dict.fromkeys((row["study"], row["training"]) for row in results["sets"]):
        yield {"study": study, "training": training, "key": f"{study}_{key_of(training)}"}


def key_of(training: str) -> str:
    """Return a training's name as in ids and names of files."""
    return training.replace(" ", "_").replace("-", "_")


def usual(results: Results) -> Keys:
    """Yield the studies under their own losses: no variants of training, and not the study in few dimensions."""
    for key in trained(results):
        if key["training"] not in VARIANTS and key["study"] != LOW_DIMENSION.name:
            yield key


def graded(results: Results) -> Keys:
    """Yield those whose shifts come in levels."""
    return (k for k in usual(results) if Networks(results, k["study"], k["training"]).graded)


def scored(results: Results) -> Keys:
    """Yield those whose sets have an OOD score."""
    rows = [row for row in results["sets"] if row.get("ood_score") is not None]
    known = {(row["study"], row["training"]) for row in rows}
    return (k for k in usual(results) if (k["study"], k["training"]) in known)


def traced(results: Results) -> Keys:
    """Yield those whose signals were cut off."""
    known = {(row["study"], row["training"]) for row in results["constants"]}
    return (k for k in usual(results) if (k["study"], k["training"]) in known)


def classified(results: Results) -> Keys:
    """Yield those of at least five classes in whose optimal constant the classes have an order."""
    for key in traced(results):
        networks = Networks(results, key["study"], key["training"])
        if networks.n_classes >= 5 and not any(math.isnan(order) for order in networks.class_order().values()):
            yield key


def mechanisms(results: Results) -> Keys:
    """Yield the studies of images with levels under cross-entropy."""
    known = {(row["study"], row["training"]) for row in results["layers"]}
    return (k for k in graded(results) if k["training"] == CROSS_ENTROPY and (k["study"], k["training"]) in known)


def last_kind(results: Results) -> Keys:
    """Yield the last kind of shift of MNIST under Gaussian NLL: impulse noise, where all kinds are measured."""
    yield {"kind": Networks(results, "mnist", GAUSSIAN_NLL).graded[-1]}


def variants(results: Results) -> Keys:
    """Yield the variants of training."""
    return (k | {"key": key_of(k["training"])} for k in trained(results) if k["training"] in VARIANTS)


def far_from_training(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of sets at levels that are clearly out of distribution."""
    return [row for row in rows if family_and_level(row["set"])[1] in FAR]


class Decisions(NamedTuple):
    """What policies earn in one study."""

    results: Results
    study: str

    def of(self, policy: str) -> dict[int, list[Row]]:
        """Return, by seed, a policy's rows, the unshifted set first; predicted rewards have a network of their own."""
        training = REWARD if policy == "reward_prediction" else CROSS_ENTROPY
        return by_seed(self.results["decisions"].where(study=self.study, training=training, policy=policy))

    def unshifted(self, policy: str, quantity: str = "reward") -> PerSeed:
        """Return a quantity on the unshifted set."""
        return PerSeed({seed: rows[0][quantity] for seed, rows in self.of(policy).items()})

    def far(self, policy: str, quantity: str = "reward") -> PerSeed:
        """Return the mean of a quantity over sets that are clearly out of distribution."""

        def counts(name: str) -> bool:
            level = family_and_level(name)[1]
            return level in FAR or (level == 1 and not name.endswith("_1"))

        return PerSeed(
            {
                seed: fmean(row[quantity] for row in rows[1:] if counts(row["set"]))
                for seed, rows in self.of(policy).items()
            }
        )

    def levels(self, policy: str, quantity: str) -> list[PerSeed]:
        """Return the mean of a quantity at each level over kinds of shifts with levels; 0 is the unshifted set."""
        found = self.of(policy)
        shifted = next(iter(found.values()))[1:]
        graded = _graded(shifted)
        sets: dict[int, set[str]] = {}
        for kind, level, name in ((*family_and_level(row["set"]), row["set"]) for row in shifted):
            if kind in graded:
                sets.setdefault(level, set()).add(name)
        return [self.unshifted(policy, quantity)] + [
            PerSeed({s: fmean(row[quantity] for row in rows if row["set"] in sets[level]) for s, rows in found.items()})
            for level in sorted(sets)
        ]


def decided(results: Results) -> Keys:
    """Yield the studies in which policies were compared."""
    return ({"study": study} for study in results["decisions"].distinct("study"))


def detected(results: Results) -> Keys:
    """Yield every study's scores; ``score_name`` is in words."""
    for study in results["detection"].distinct("study"):
        for score in results["detection"].where(study=study).distinct("score"):
            yield {"study": study, "score": score, "score_name": score.replace("_", " ")}


def attacked(results: Results) -> Keys:
    """Yield the trainings whose networks were attacked."""
    return ({"training": t, "key": key_of(t)} for t in results["adversarial"].distinct("training"))


def biased(results: Results) -> Keys:
    """Yield the depths of the networks whose last bias was measured."""
    rows = [row for row in results["theory"] if row.get("bias") is not None]
    for depth in dict.fromkeys(row["depth"] for row in rows):
        yield {"depth": depth, "n": sum(row["depth"] == depth and row["seed"] == 0 for row in rows)}


def bias_correlations(results: Results, depth: int, labels: str) -> PerSeed:
    """Return the correlation over data sets of the last bias with a mean of labels."""
    rows = [row for row in results["theory"].where(depth=depth) if row.get("bias") is not None]
    return PerSeed(
        {
            seed: correlation([r["bias"] for r in found], [r[labels] for r in found])
            for seed, found in by_seed(rows).items()
        }
    )


def of_depth(results: Results, depth: int, quantity: str) -> PerSeed:
    """Return a quantity of the homogeneous networks of a depth."""
    return PerSeed({r["seed"]: r[quantity] for r in results["theory"].where(depth=depth) if r.get("bias") is None})
