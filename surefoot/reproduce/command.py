"""``surefoot reproduce``: run a paper's experiments, judge its claims, draw its figures."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from surefoot.cli.interruption import Interrupted
from surefoot.errors import SurefootError
from surefoot.reproduce.judging import draw, judge
from surefoot.reproduce.papers import Paper, load_paper, paper_ids
from surefoot.reproduce.running import Run
from surefoot.reproduce.workers import end_workers
from surefoot.runs import describe_environment
from surefoot.storage.json_files import write_json

__all__ = ("run_reproduce",)


def run_reproduce(arguments: Sequence[str]) -> None:
    """Re-measure a paper's claims and write CSVs, ``claims.json``, ``table.md`` and figures.

    Args:
        arguments: The verb, the paper and options.
    """
    parser = _parser()
    known, _ = parser.parse_known_args(list(arguments[1:]))
    if known.list or known.paper is None:
        for name in paper_ids():
            paper = load_paper(name)
            print(f"{name:24s}{paper.title} ({paper.reference})")
        return
    paper = load_paper(known.paper)
    _add_options(parser, paper)
    options = vars(parser.parse_args(list(arguments[1:])))
    scale, n_seeds, out, max_seeds, judged, drawn = (
        options.pop(name, None) for name in ("scale", "seeds", "out", "max_seeds", "judge", "figures")
    )
    options = {name: value for name, value in options.items() if name not in ("list", "paper")}
    if n_seeds is not None and n_seeds < 1:
        raise SurefootError(f"--seeds must be at least 1, got {n_seeds}.")
    if max_seeds is not None and max_seeds < 1:
        raise SurefootError(f"--max-seeds must be at least 1, got {max_seeds}.")
    out = out or Path("reproduced") / paper.id / scale
    if not judged and not drawn:
        n_seeds = n_seeds or paper.default_seeds[scale]
        most = n_seeds if scale == "quick" else max_seeds or (paper.seed_budget or 1) * n_seeds
        _run(paper, Run(scale=scale, n_seeds=n_seeds, most_seeds=most, out=out, options=options))
    if judged or not drawn:
        print(judge(paper, out))
    if drawn or not judged:
        for name, reason in draw(paper, out).items():
            print(f"not drawn: {name} ({reason})")
    print(f"written to {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("surefoot reproduce", description="Re-measure a paper's claims.")
    parser.add_argument("paper", nargs="?", help="which paper; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the papers and stop")
    parser.add_argument(
        "--scale",
        choices=("quick", "laptop", "paper"),
        default="quick",
        help="quick (under a minute, proves the path, judges nothing), laptop (about an hour), paper (GPUs)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="number of seeds to begin with; the scale's own by default. Claims that they leave undecided get more"
        " where the paper has a budget for it",
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: reproduced/PAPER/SCALE)")
    parser.add_argument(
        "--judge", action="store_true", help="run nothing: judge the claims from the tables (CSV) in --out"
    )
    parser.add_argument(
        "--figures", action="store_true", help="run nothing: draw the figures from the tables (CSV) in --out"
    )
    return parser


def _add_options(parser: argparse.ArgumentParser, paper: Paper) -> None:
    if paper.seed_budget is not None:
        parser.add_argument(
            "--max-seeds",
            type=int,
            help="number of seeds up to which undecided claims get more"
            f" (default: {paper.seed_budget} times those to begin with)",
        )
    for flag, settings in paper.options.items():
        parser.add_argument(flag, **settings)


def _run(paper: Paper, run: Run) -> None:
    """Run the experiments and write tables, protocol and the machine's description."""
    run.begin(paper.id)
    started = time.monotonic()
    try:
        paper.run(run)
    except Interrupted:
        end_workers(at_once=True)
        raise
    finally:
        end_workers()
    environment: dict[str, object] = describe_environment()
    revision = environment["revision"]
    run.write_protocol(paper.id, None if revision is None else str(revision))
    write_json(run.out / "environment.json", environment | {"seconds": round(time.monotonic() - started, 1)})
