"""The verb provers: which of several provers a policy would learn most from."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt

from surefoot.cli.verb_parser import VerbParser, verb_parser
from surefoot.reasoning.completions.prover_labels import rank_labels
from surefoot.report.prover_ranking import write_prover_ranking

__all__ = ("run_provers",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "provers",
        "Rank provers for a policy before it learns from any: distinguishability and alignment of their advantages over"
        " the policy's own steps, without the noise of sampled values, with 95% intervals over problems.",
    )
    parser.add_argument(
        "labels", nargs="+", type=Path, help="Folders that surefoot label wrote of the same completions, one a prover."
    )
    parser.add_argument(
        "--policy", type=Path | None, default=None, help="Folder of the policy's own values; by default the first."
    )
    parser.add_argument(
        "--k",
        nargs="+",
        type=PositiveInt,
        default=[],
        help="Attempts of which each prover takes the best; by default 1, 2, 4 and 8, up to half of the labels' own.",
    )
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    return parser


def run_provers(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    parsed = _parser().parse_verb(arguments)
    print(write_prover_ranking(rank_labels(parsed.labels, parsed.policy, parsed.k), parsed.out))
    print(f"provers.csv and table.md: {parsed.out}")
