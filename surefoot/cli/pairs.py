"""The verb pairs: preference pairs of stored completions, with the continuations that they need."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt

from surefoot.cli.policy_verb import open_policy_verb, progress_printer
from surefoot.cli.verb_parser import VerbParser, print_summary, verb_parser
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions import PairBuilder
from surefoot.reasoning.completions.pairing import Pairing, pair_completions
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling

__all__ = ("run_pairs",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "pairs",
        "Make preference pairs of stored completions; the policy that sampled them samples the continuations that the"
        " builder wants; resumable.",
    )
    parser.add_argument("--completions", type=Path, help="Folder that surefoot label or generate wrote.", required=True)
    parser.add_subclass_arguments(PairBuilder, "builder", required=True)
    parser.add_subclass_arguments(LanguageModel, "model", required=True)
    parser.add_subclass_arguments(RolloutEngine, "engine", required=True)
    parser.add_subclass_arguments(Prompt, "prompt", required=False)
    parser.add_class_arguments(Grader, "grader")
    parser.add_class_arguments(Sampling, "sampling")
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampling and of the builder's draws.")
    parser.add_argument(
        "--prefixes_per_shard", type=PositiveInt, default=256, help="Prefixes of a shard; a kill costs one shard."
    )
    parser.set_defaults({"sampling.n": 4})
    return parser


def run_pairs(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    names = ("model", "prompt", "sampling", "builder")
    verb = open_policy_verb(_parser(), arguments, names, ("model", "prompt", "completions"))
    parsed, objects = verb.parsed, verb.objects
    summary = pair_completions(
        parsed.completions,
        objects.builder,
        verb.policy,
        objects.sampling,
        parsed.out,
        verb.identity,
        Pairing(parsed.seed, parsed.prefixes_per_shard),
        progress_printer(verb.policy, things="prefixes"),
    )
    print_summary(summary)
    print(f"pairs: {parsed.out}")
