"""The verb label: Monte-Carlo values of every step of stored completions."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt

from surefoot.cli.policy_verb import open_policy_verb, progress_printer
from surefoot.cli.verb_parser import VerbParser, print_summary, verb_parser
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.labelling import Labelling, label_completions
from surefoot.reasoning.language_models import LanguageModel, text_reader
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import RolloutEngine, Sampling
from surefoot.reasoning.values import MonteCarloValues

__all__ = ("run_label",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "label",
        "Estimate how likely each step of stored completions ends right, by completions that a prover samples from it.",
    )
    parser.add_argument("--completions", type=Path, help="Folder that surefoot generate wrote.", required=True)
    parser.add_subclass_arguments(LanguageModel, "model", required=True)
    parser.add_subclass_arguments(RolloutEngine, "engine", required=True)
    parser.add_subclass_arguments(Prompt, "prompt", required=False)
    parser.add_class_arguments(Grader, "grader")
    parser.add_class_arguments(Sampling, "sampling")
    parser.add_argument(
        "--half_width",
        type=float | None,
        default=None,
        help="Stop sampling from a prefix when half of its value's 95% interval is not wider, in (0, 0.5); by default"
        " each gets all sampling.n. Values that stop early are biased, and surefoot provers refuses them.",
    )
    parser.add_argument(
        "--per_round",
        type=PositiveInt | None,
        default=None,
        help="Completions of a prefix between two looks at its value, from 1 to sampling.n - 1, with --half_width or"
        " --first_pit; by default a quarter of sampling.n.",
    )
    parser.add_argument(
        "--first_pit",
        type=float | None,
        default=None,
        help="After the first round go on only where a wrong completion is lost: down to its first prefix from which"
        " none ended right, if one before has this value or more, in (0, 1]; by default each gets all sampling.n.",
    )
    parser.add_argument(
        "--tokenizer",
        type=str | None,
        default=None,
        help="Folder or name of the tokenizer that sampled, where the prover has another: prefixes are retokenised.",
    )
    parser.add_argument("--separator", type=str, default="\n", help="Text that ends a step; by default a line break.")
    parser.add_argument(
        "--per_problem",
        type=PositiveInt | None,
        default=None,
        help="Label only so many first completions of each problem; by default all.",
    )
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampling.")
    parser.add_argument(
        "--problems_per_shard", type=PositiveInt, default=32, help="Problems of a shard; a kill costs one shard."
    )
    parser.set_defaults({"sampling.n": 20})
    return parser


def run_label(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    names = ("model", "prompt", "sampling", "half_width", "per_round", "first_pit", "tokenizer")
    verb = open_policy_verb(_parser(), arguments, names, ("model", "prompt", "completions", "tokenizer"))
    parsed = verb.parsed
    summary = label_completions(
        parsed.completions,
        verb.policy,
        MonteCarloValues(
            verb.objects.sampling,
            half_width=parsed.half_width,
            per_round=parsed.per_round,
            first_pit=parsed.first_pit,
            retokenise=parsed.tokenizer is not None,
        ),
        parsed.out,
        verb.identity,
        Labelling(parsed.seed, parsed.separator, parsed.per_problem, parsed.problems_per_shard),
        progress_printer(verb.policy),
        text_reader(parsed.tokenizer) if parsed.tokenizer else None,
    )
    print_summary(summary)
    print(f"values: {parsed.out}")
