"""Searches of arithmetic, measured: best of N and beams, by verifiers that learned and by those that know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.reasoning.search import SearchPoint
from surefoot.report.search_curves import read_points
from surefoot.reproduce.jobs import changed, component, measure_rows, slug
from surefoot.reproduce.language_models import run_verb
from surefoot.reproduce.pav.arithmetic import sampled_with
from surefoot.reproduce.pav.studies import ALPHA, EXACT, ORACLE, SAMPLING, K, Size, data, values_of
from surefoot.reproduce.results import Results, Rows
from surefoot.reproduce.running import Measured

__all__ = ("measure_search",)


def measure_search(size: Size, out: Path, seeds: Sequence[int]) -> Measured:
    """Search with every verifier; accuracy against candidates and tokens.

    The weight of the advantage in a beam search is, for each seed, the best on held-out problems.
    """
    tuning = {(s, f"alpha {a:g}"): (_beam("process", a, K, [size.width]), "val") for s in seeds for a in size.alphas}
    tuned = _measure_searches(tuning, size, out)
    best = {s: max(size.alphas, key=lambda a: _accuracy(tuned, s, f"alpha {a:g}")) for s in seeds}
    searches = {(s, name): (search, "test") for s in seeds for name, search in _searches(size, best[s]).items()}
    found = _measure_searches(searches, size, out)
    both = {"val": tuned.tables["arithmetic_search"], "test": found.tables["arithmetic_search"]}
    rows = [row | {"alpha": best[row["seed"]], "split": split} for split, own in both.items() for row in own]
    seconds = sum(m.seconds["arithmetic_search"] for m in (tuned, found))
    return Measured({"arithmetic_search": rows}, {"arithmetic_search": seconds})


class ComparedSearch(NamedTuple):
    """A search, and the verifier that guides it."""

    verifier: str
    component: Mapping[str, Any]  # without the verifier
    widths: Sequence[int]
    columns: Mapping[str, int] = {}  # of its rows, beside those that all have


def _searches(size: Size, alpha: float) -> dict[str, ComparedSearch]:
    """Return the searches that are compared, by name."""
    score = {"alpha": ALPHA, "k": K}
    return {
        "best of N, outcome": ComparedSearch("outcome", component("BestOfN"), size.samples),
        "best of N, process": ComparedSearch("process", component("BestOfN", score=score), size.samples),
        "best of N, control": ComparedSearch("control", component("BestOfN"), size.samples),
        "beam, Q": _beam("process", 0, K, size.widths),
        "beam, control": _beam("control", 0, K, size.widths),
        **({"beam, oracle": _beam(ORACLE, 0, K, size.widths)} if ORACLE in size.verifiers else {}),
        "beam, PAV": _beam("process", alpha, K, size.widths),
        **{f"beam, PAV, K {k}": _beam("process", ALPHA, k, [size.width])._replace(columns={"k": k}) for k in size.ks},
    }


def _beam(verifier: str, alpha: float, k: int, widths: Sequence[int]) -> ComparedSearch:
    return ComparedSearch(verifier, component("BeamSearch", score={"alpha": alpha, "k": k}, n_children=3), widths)


def _measure_searches(
    searches: Mapping[tuple[int, str], tuple[ComparedSearch, str]], size: Size, out: Path
) -> Measured:
    arguments = {(s, name): (s, name, search, split, size, out) for (s, name), (search, split) in searches.items()}
    return measure_rows("arithmetic_search", search_rows, arguments)


def search_rows(seed: int, name: str, search: ComparedSearch, split: str, size: Size, out: Path) -> Rows:
    """Return the accuracies of a search of a policy's problems, for each number of candidates and selection."""
    folder = out / "searches" / f"{slug(name)}_{split}_seed{seed}"
    problems = data(size, 4000 + seed, n_train=0, n_val=size.n_problems, n_test=size.n_problems)
    settings = {**sampled_with(seed, out), "sampling": dict(SAMPLING)}
    verifier = EXACT if search.verifier == ORACLE else values_of(f"{search.verifier}_seed{seed}", out)
    settings["search"] = changed(search.component, verifier=verifier)
    settings |= {"data": problems, "split": split, "n": list(search.widths), "seed": seed}
    run_verb("search", settings | {"problems_per_shard": size.n_problems}, folder)
    return [{"seed": seed, "search": name, **_point_row(point), **search.columns} for point in read_points(folder)]


def _accuracy(tuned: Measured, seed: int, search: str) -> float:
    table = Results(tuned.tables)["arithmetic_search"]
    [row] = table.where(seed=seed, search=search, selection="best")
    return float(row["accuracy"])


def _point_row(point: SearchPoint) -> dict[str, Any]:
    low, high, n_problems = point.accuracy.low, point.accuracy.high, point.accuracy.n
    return {
        "selection": point.selection,
        "n": point.n,
        "accuracy": point.accuracy.mean,
        "low": low,
        "high": high,
        "problems": n_problems,
        "generated_tokens": point.generated_tokens,
        "scored_tokens": point.scored_tokens,
    }
