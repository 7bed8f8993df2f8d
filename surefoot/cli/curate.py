"""The verb curate: new training problems near those that a tracked run has not learned."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

# Imported so that configs may name a class without its module path.
import datamodules  # noqa: F401
from surefoot.cli.verb_parser import VerbParser, verb_parser
from surefoot.contracts import VariantSource, offers
from surefoot.errors import ConfigError
from surefoot.reasoning.curation import (
    CurationMethod,
    choose_parents,
    draw_variants,
    instruction_following_difficulties,
    read_curated,
    write_curated,
)
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.learning_dynamics import read_record
from surefoot.reasoning.prompts import PlainPrompt, Prompt
from surefoot.storage.locks import hold

__all__ = ("run_curate",)


def _parser() -> VerbParser:
    parser = verb_parser(
        "curate",
        "Choose original training problems and write variants of them as new training problems.",
    )
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    parser.add_subclass_arguments(LanguageModel, "model", required=False)
    parser.add_subclass_arguments(Prompt, "prompt", required=False)
    parser.add_argument("--out", type=Path, help="Folder to write to.", required=True)
    parser.add_argument("--method", type=CurationMethod, default="pre_memorization", help="Rule that chooses parents.")
    parser.add_argument(
        "--run",
        type=Path | None,
        default=None,
        help="Run folder with a MemorizationTracker's record, for pre_memorization.",
    )
    parser.add_argument("--n", type=int, default=1000, help="New problems.")
    parser.add_argument(
        "--earlier",
        type=list[Path],
        default=[],
        help="Folders of earlier rounds, whose questions are not asked again.",
    )
    parser.add_argument("--accuracy_threshold", type=float, default=0.75, help="Largest accuracy of a parent.")
    parser.add_argument(
        "--log_log_threshold",
        type=float,
        default=-2.3,
        help="log(log(perplexity)) below which an example is memorized.",
    )
    parser.add_argument("--percentile", type=float, default=50.0, help="For ifd and heuristic: parents lie above.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draw.")
    return parser


def run_curate(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options.

    Raises:
        ConfigError: If the settings make no sense.
    """
    parser = _parser()
    parsed = parser.parse_verb(arguments)
    if parsed.n < 1:
        raise ConfigError(f"--n must be positive, got {parsed.n}.")
    objects = parser.instantiate_classes(parsed)
    data: VariantSource = objects.data
    if not offers(data, VariantSource):
        raise ConfigError(
            f"{type(data).__name__} cannot make variants of its problems: use ArithmeticDataModule or"
            " GSMSymbolicDataModule."
        )
    parsed.out.mkdir(parents=True, exist_ok=True)
    with hold(parsed.out, ", or choose another --out"):
        _curate(parsed, objects, data)


def _curate(parsed: Namespace, objects: Namespace, data: VariantSource) -> None:
    originals = list(data.problems("train"))
    record, difficulties = None, None
    if parsed.method == "pre_memorization" and parsed.run is not None:
        record = read_record(parsed.run / "memorization", parsed.run.name)
    if parsed.method == "ifd" and objects.get("model") is not None:
        prompt = objects.get("prompt") or PlainPrompt()
        difficulties = instruction_following_difficulties(originals, objects.model, prompt, 4096)
    parents = choose_parents(
        parsed.method,
        originals,
        record,
        parsed.log_log_threshold,
        parsed.accuracy_threshold,
        difficulties,
        parsed.percentile,
    )
    earlier = [p for folder in parsed.earlier for p in read_curated(Path(folder))]
    known = {p.question for p in (*originals, *earlier)}
    write_curated(parsed.out, draw_variants(parents, parsed.n, data.variant, known, parsed.seed))
    print(f"{len(parents)} of {len(originals)} problems are parents of {parsed.n} new ones: {parsed.out}")
