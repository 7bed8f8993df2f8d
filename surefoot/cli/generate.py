"""The verb generate: sample and grade completions of a datamodule's problems."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule

# Imported so that configs may name a class without its module path.
import datamodules  # noqa: F401
from surefoot.cli.verb_parser import VerbParser, build_objects, engine_name, print_summary, verb_parser
from surefoot.contracts import ProblemSource, offers
from surefoot.errors import ConfigError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.generation import generate_completions
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling

__all__ = ("run_generate",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "generate",
        "Sample k completions per problem, grade them, and write them as an Arrow dataset; resumable.",
    )
    parser.add_subclass_arguments(LanguageModel, "model", required=True)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    parser.add_subclass_arguments(RolloutEngine, "engine", required=True)
    parser.add_subclass_arguments(Prompt, "prompt", required=False)
    parser.add_class_arguments(Grader, "grader")
    parser.add_class_arguments(Sampling, "sampling")
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    parser.add_argument("--split", type=str, default="test", help="Split: train, val or test.")
    parser.add_argument("--limit", type=PositiveInt | None, default=None, help="Only the first problems.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampling.")
    parser.add_argument(
        "--problems_per_shard",
        type=PositiveInt,
        default=128,
        help="Problems of a shard; a kill costs one at most.",
    )
    return parser


def run_generate(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    parser = _parser()
    parsed = parser.parse_verb(arguments)
    settings: dict[str, Any] = yaml.safe_load(parser.dump(parsed, skip_none=False, skip_validation=True))
    objects, contents = build_objects(parser, parsed, ("model", "prompt"))
    data: ProblemSource = objects.data
    if not offers(data, ProblemSource) or parsed.split not in ("train", "val", "test"):
        raise ConfigError(
            f"{type(data).__name__} with --split {parsed.split} has no problems to solve: use GSM8KDataModule or the"
            " like, and train, val or test."
        )
    problems = list(data.problems(parsed.split))[: parsed.limit]
    names = ("model", "data", "prompt", "grader", "sampling", "split", "limit")
    identity = {n: settings.get(n) for n in names} | {"engine": engine_name(objects.engine)}
    identity["contents"] = contents
    identity["grader"] = {"rule": settings["grader"]["rule"]}
    policy = Policy(objects.model, objects.get("prompt") or PlainPrompt(), objects.engine, objects.grader)
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        left, rate = (time.perf_counter() - began) / done * (total - done), policy.engine.statistics().tokens_per_second
        print(
            f"{done}/{total} problems, {rate:.0f} tokens/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    summary = generate_completions(
        problems,
        policy,
        objects.sampling,
        parsed.out,
        identity,
        parsed.seed,
        parsed.problems_per_shard,
        progress,
    )
    print_summary(summary)
    print(f"completions: {parsed.out}")
