"""The verb pipeline."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from surefoot.pipelines import run_pipeline

__all__ = ("run_pipeline_verb",)


def run_pipeline_verb(arguments: Sequence[str]) -> None:
    """Run the verb.

    Args:
        arguments: The verb and its options; what follows ``--`` goes to every fit stage.
    """
    parser = argparse.ArgumentParser(
        prog="surefoot pipeline",
        description="Run a method of several stages; a rerun resumes at the first missing one.",
        epilog="What follows -- goes to every stage that is a fit, such as -- --config configs/overlays/bf16.yaml",
    )
    parser.add_argument("pipeline", type=Path, help="YAML file with the stages")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder of the stages; runs/pipelines/NAME by default",
    )
    given = list(arguments)[1:]
    extra: list[str] = []
    if "--" in given:
        place = given.index("--")
        given, extra = given[:place], given[place + 1 :]
    parsed = parser.parse_args(given)
    out = parsed.out or Path("runs/pipelines") / parsed.pipeline.stem
    for name, folder in run_pipeline(parsed.pipeline, out, extra).items():
        print(f"{name:16s} {folder}")
