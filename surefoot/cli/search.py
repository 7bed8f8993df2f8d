"""The verb search: spend more samples on each problem, and measure what they bring."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule

# Imported so that configs may name a class without its module path.
import datamodules  # noqa: F401
from surefoot.cli.policy_verb import open_policy_verb, progress_printer, split_problems
from surefoot.cli.verb_parser import VerbParser, verb_parser
from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling
from surefoot.reasoning.search import Search, SearchPoint, accuracies
from surefoot.reasoning.search.stored import Searching, check_same_problems, read_candidates, search_completions
from surefoot.report.search_curves import describe_search, draw_search, read_points, write_points

__all__ = ("run_search",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "search",
        "Search for answers with a verifier; accuracy against candidates and tokens, with intervals; resumable.",
    )
    parser.add_subclass_arguments(LanguageModel, "model", required=True)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    parser.add_subclass_arguments(RolloutEngine, "engine", required=True)
    parser.add_subclass_arguments(Prompt, "prompt", required=False)
    parser.add_class_arguments(Grader, "grader")
    parser.add_class_arguments(Sampling, "sampling", skip={"n"})
    parser.add_subclass_arguments(Search, "search", required=True)
    parser.add_argument("--n", type=list[PositiveInt], default=[1, 2, 4, 8], help="Numbers of candidates, one or more.")
    parser.add_argument(
        "--baseline",
        type=Path | None,
        default=None,
        help="Folder of an earlier search of the same problems to compare with.",
    )
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    parser.add_argument("--split", type=str, default="test", help="Split: train, val or test.")
    parser.add_argument("--limit", type=PositiveInt | None, default=None, help="Only the first problems.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampling.")
    parser.add_argument(
        "--problems_per_shard", type=PositiveInt, default=32, help="Problems that are searched together."
    )
    return parser


def run_search(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    names = ("model", "data", "prompt", "sampling", "search", "split", "limit")
    verb = open_policy_verb(_parser(), arguments, names, ("model", "prompt", "search"))
    parsed, policy = verb.parsed, verb.policy
    problems = split_problems(verb.objects.data, parsed.split, parsed.limit)
    search: Search = verb.objects.search
    scored = search.verifier is not None
    widths = _widths(parsed.n, search)
    baseline = _baseline(parsed.baseline, problems)
    points: list[SearchPoint] = []
    try:
        # of candidates that are sampled independently every smaller number is drawn from the largest
        for width in widths[-1:] if search.independent else widths:
            found = search_completions(
                problems,
                policy,
                Searching(search, replace(verb.objects.sampling, n=width), parsed.seed, parsed.problems_per_shard),
                parsed.out / f"n-{width:04d}",
                verb.identity,
                progress_printer(policy, f"N = {width}: "),
            )
            candidates = read_candidates(found.folder, policy, search, scored)
            for n in widths if search.independent else [width]:
                points += accuracies(candidates, n, found.counts, n / width, scored)
    finally:
        policy.close()
        if search.verifier is not None:
            search.verifier.close()
    write_points(points, parsed.out)
    draw_search(points, baseline, parsed.out)
    print(describe_search(points, baseline))
    print(f"candidates, accuracy.csv and figures: {parsed.out}")


def _widths(given: Sequence[int], search: Search) -> list[int]:
    """Return the numbers of candidates, each once.

    Raises:
        ConfigError: If there is none, or the search cannot look for so many; before anything is searched.
    """
    if not given:
        raise ConfigError("n is an empty list: expected one number of candidates or more.")
    widths = sorted(set(given))
    for n in widths:
        search.check_width(n)
    return widths


def _baseline(folder: Path | None, problems: Sequence[Problem]) -> list[SearchPoint]:
    """Return the points of the search that is compared with, none without one.

    Raises:
        ConfigError: If it is one of other problems.
        DataError: If the folder holds no finished search.
    """
    if folder is None:
        return []
    points = read_points(folder)
    check_same_problems(problems, folder, points[0].accuracy.n)
    return points
