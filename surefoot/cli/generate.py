"""The verb generate: sample and grade completions of a datamodule's problems."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule

# Imported so that configs may name a class without its module path.
import datamodules  # noqa: F401
from surefoot.cli.policy_verb import open_policy_verb, progress_printer, split_problems
from surefoot.cli.verb_parser import VerbParser, print_summary, verb_parser
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.generation import generate_completions
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.prompts import Prompt
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
    names = ("model", "data", "prompt", "grader", "sampling", "split", "limit")
    verb = open_policy_verb(_parser(), arguments, names, ("model", "prompt"))
    parsed, objects = verb.parsed, verb.objects
    summary = generate_completions(
        split_problems(objects.data, parsed.split, parsed.limit),
        verb.policy,
        objects.sampling,
        parsed.out,
        verb.identity,
        parsed.seed,
        parsed.problems_per_shard,
        progress_printer(verb.policy, prefix_cache=False),
    )
    print_summary(summary)
    print(f"completions: {parsed.out}")
