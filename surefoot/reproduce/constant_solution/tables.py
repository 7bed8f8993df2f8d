"""The study's tables, read: what claims and figures ask them."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from surefoot.report.shift_figures import family_and_level
from surefoot.reproduce.claims import Keys
from surefoot.reproduce.constant_solution.studies import CROSS_ENTROPY, GAUSSIAN_NLL, LOW_DIMENSION, REWARD, VARIANTS
from surefoot.reproduce.results import NotMeasured, PerSeed, Results, Row, Table, by_seed, combine
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

    def _rows(self, table: str) -> Table:
        return self.results[table].where(study=self.study, training=self.training)

    @cached_property
    def sets(self) -> Table:
        """A row per set."""
        return self._rows("sets")

    @cached_property
    def layers(self) -> Table:
        """A row per set and layer."""
        return self._rows("layers")

    @cached_property
    def names(self) -> list[str]:
        """Names of the sets."""
        return self.sets.distinct("set")

    @cached_property
    def graded(self) -> list[str]:
        """Kinds of shifts that come in levels."""
        return _graded(self.names[1:])

    def levels(self, kind: str, quantity: str) -> list[PerSeed]:
        """Return a quantity of the unshifted set and of a kind's levels, mildest first."""
        shifted = [name for name in self.names[1:] if family_and_level(name)[0] == kind]
        return [self.sets.per_seed(quantity, set=name) for name in (self.names[0], *shifted)]

    def unshifted(self, quantity: str) -> PerSeed:
        """Return a quantity of the unshifted set."""
        return self.sets.per_seed(quantity, set=self.names[0])

    def strongest(self, quantity: str, kinds: Sequence[str] | None = None) -> PerSeed:
        """Return the mean over kinds at the strongest level; over all shifted sets where none has levels.

        Args:
            quantity: Column of ``sets``.
            kinds: Kinds of shifts; all that come in levels by default.
        """
        kinds = self.graded if kinds is None else kinds
        if not kinds:
            return combine([self.sets.per_seed(quantity, set=name) for name in self.names[1:]])
        return combine([self.levels(kind, quantity)[-1] for kind in kinds])

    def layer(self, position: int, quantity: str, kinds: Sequence[str] | None = None) -> PerSeed:
        """Return a layer's quantity on the unshifted set, or its mean over kinds at the strongest level.

        Args:
            position: 0 is the first layer, -1 the last.
            quantity: Column of ``layers``.
            kinds: Kinds of shifts, of which those are taken that there are.
        """
        last = {family_and_level(name)[0]: name for name in self.names[1:]}
        names = self.names[:1] if kinds is None else [last[kind] for kind in self.graded if kind in kinds]
        found = [by_seed(self.layers.where(set=name)) for name in names]
        return combine([rows.reduce(lambda of_seed: _value(of_seed[position], quantity)) for rows in found])

    def constants(self, cut: str) -> Table:
        """Return what biases predict without a signal, cut ``inner`` (behind the first layer) or ``last``."""
        return self._rows("constants").where(cut=cut)

    @property
    def n_classes(self) -> int:
        """Number of outputs that are classes: abstaining is none."""
        return len(self.constants("last").distinct("number")) - (self.training == REWARD)

    def class_order(self) -> PerSeed:
        """Return the correlation over classes of the last bias's predictions with the optimal constant."""
        n = self.n_classes
        return by_seed(self.constants("last")).reduce(
            lambda rows: correlation([r["prediction"] for r in rows[:n]], [r["optimal_constant"] for r in rows[:n]])
        )


def _graded(shifted: Sequence[str]) -> list[str]:
    kinds = [family_and_level(name) for name in shifted]
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
    return ({**k, "key": key_of(k["training"])} for k in trained(results) if k["training"] in VARIANTS)


def far_from_training(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of sets at levels that are clearly out of distribution."""
    return [row for row in rows if family_and_level(row["set"])[1] in FAR]


class Decisions(NamedTuple):
    """What policies earn in one study."""

    results: Results
    study: str

    def of(self, policy: str) -> Table:
        """Return a policy's rows, each seed's unshifted set first; predicted rewards have a network of their own."""
        training = REWARD if policy == "reward_prediction" else CROSS_ENTROPY
        return self.results["decisions"].where(study=self.study, training=training, policy=policy)

    def unshifted(self, policy: str, quantity: str = "reward") -> PerSeed:
        """Return a quantity on the unshifted set."""
        table = self.of(policy)
        return table.per_seed(quantity, set=table[0]["set"])

    def far(self, policy: str, quantity: str = "reward") -> PerSeed:
        """Return the mean of a quantity over sets that are clearly out of distribution."""

        def counts(name: str) -> bool:
            level = family_and_level(name)[1]
            return level in FAR or (level == 1 and not name.endswith("_1"))

        table = self.of(policy)
        return combine([table.per_seed(quantity, set=name) for name in table.distinct("set")[1:] if counts(name)])

    def levels(self, policy: str, quantity: str) -> list[PerSeed]:
        """Return the mean of a quantity at each level over kinds of shifts with levels; 0 is the unshifted set."""
        table = self.of(policy)
        shifted = table.distinct("set")[1:]
        sets: dict[int, list[PerSeed]] = {}
        for name in shifted:
            kind, level = family_and_level(name)
            if kind in _graded(shifted):
                sets.setdefault(level, []).append(table.per_seed(quantity, set=name))
        return [self.unshifted(policy, quantity), *(combine(sets[level]) for level in sorted(sets))]


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
    return by_seed(rows).reduce(lambda found: correlation([r["bias"] for r in found], [r[labels] for r in found]))


def of_depth(results: Results, depth: int, quantity: str) -> PerSeed:
    """Return a quantity of the homogeneous networks of a depth."""
    return PerSeed({r["seed"]: r[quantity] for r in results["theory"].where(depth=depth) if r.get("bias") is None})
