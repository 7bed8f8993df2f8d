"""The verb search: spend more samples on each problem, and measure what they bring."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule

# Imported so that configs may name a class without its module path.
import datamodules  # noqa: F401
from surefoot.cli.verb_parser import VerbParser, build_objects, engine_name, verb_parser
from surefoot.contracts import ProblemSource, offers
from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.sharded import Progress
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling
from surefoot.reasoning.search import Search, SearchPoint, accuracies
from surefoot.reasoning.search.stored import Searching, read_candidates, search_completions
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
    parser.add_argument("--n", type=list[PositiveInt], default=[1, 2, 4, 8], help="Numbers of candidates.")
    parser.add_argument(
        "--baseline", type=Path | None, default=None, help="Folder of an earlier search to compare with."
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
    parser = _parser()
    parsed = parser.parse_verb(arguments)
    settings: dict[str, Any] = yaml.safe_load(parser.dump(parsed, skip_none=False, skip_validation=True))
    objects, contents = build_objects(parser, parsed, ("model", "prompt", "search"))
    data: ProblemSource = objects.data
    if not offers(data, ProblemSource) or parsed.split not in ("train", "val", "test"):
        raise ConfigError(
            f"{type(data).__name__} with --split {parsed.split} has no problems to solve: use GSM8KDataModule or the"
            " like, and train, val or test."
        )
    baseline = read_points(parsed.baseline) if parsed.baseline else []
    problems = list(data.problems(parsed.split))[: parsed.limit]
    names = ("model", "data", "prompt", "sampling", "search", "split", "limit")
    identity = {n: settings.get(n) for n in names} | {"engine": engine_name(objects.engine), "contents": contents}
    identity["grader"] = {"rule": settings["grader"]["rule"]}
    policy = Policy(objects.model, objects.get("prompt") or PlainPrompt(), objects.engine, objects.grader)
    search: Search = objects.search
    scored = search.verifier is not None
    widths = sorted(set(parsed.n))
    points: list[SearchPoint] = []
    try:
        # of candidates that are sampled independently every smaller number is drawn from the largest
        for width in widths[-1:] if search.independent else widths:
            found = search_completions(
                problems,
                policy,
                Searching(search, replace(objects.sampling, n=width), parsed.seed, parsed.problems_per_shard),
                parsed.out / f"n-{width:04d}",
                identity,
                _progress(policy, width),
            )
            candidates = read_candidates(found.folder, policy, search, scored)
            for n in widths if search.independent else [width]:
                points += accuracies(candidates, n, found.counts, n / width, scored)
    finally:
        policy.close()
    write_points(points, parsed.out)
    draw_search(points, baseline, parsed.out)
    print(describe_search(points, baseline))
    print(f"candidates, accuracy.csv and figures: {parsed.out}")


def _progress(policy: Policy, width: int) -> Progress:
    """Return what tells how far a search of a width is."""
    began = time.perf_counter()

    def tell(done: int, total: int) -> None:
        left, counts = (time.perf_counter() - began) / done * (total - done), policy.engine.statistics()
        print(
            f"N = {width}: {done}/{total} problems, {counts.tokens_per_second:.0f} tokens/s, prefix cache"
            f" {counts.prefix_hit_rate:.0%}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return tell
