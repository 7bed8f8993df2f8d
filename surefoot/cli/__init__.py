"""The command line. Nothing heavy is imported before a verb needs it."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from surefoot.cli.error_report import error_line
from surefoot.cli.interruption import Interrupted, interruptible
from surefoot.cli.own_code import find_own_modules, join_own_packages
from surefoot.errors import ConfigError, SurefootError
from surefoot.runs import RUN_VARIABLE

__all__ = ("find_verb", "main")

_HELP = """usage: surefoot VERB [options]      (surefoot VERB --help lists a verb's options)

Train and evaluate (LightningCLI: --config FILE.yaml, --dotted.key value overrides it):
  fit         train; the same settings again resume an interrupted run, and a finished one is not run twice
  validate    evaluate a checkpoint on the validation split
  test        evaluate a checkpoint on the test split
  predict     predict with a checkpoint

Sample and combine:
  generate    sample and grade k completions per problem; resumable
  label       values of the steps of stored completions, by sampling from each; resumable
  pairs       preference pairs of stored completions, with the continuations that they need; resumable
  provers     which prover to learn from: distinguishability and alignment, from labels of the same completions
  search      answers found with a verifier: best of N, beam search; accuracy by candidates and tokens; resumable
  curate      new training problems near those that a tracked run has not learned
  pipeline    run a method of several stages; a rerun resumes at the first missing one

Measure and report:
  reproduce   re-measure a paper's claims (--list shows the papers)
  report      tables, figures and one HTML page from run folders

  --debug     with any verb: show the whole traceback of an error
  --version   show the version
"""

_VERBS = (
    "fit",
    "validate",
    "test",
    "predict",
    "generate",
    "label",
    "pairs",
    "provers",
    "search",
    "curate",
    "pipeline",
    "reproduce",
    "report",
)
#: Verbs that go on where they were stopped.
_RESUMABLE = ("fit", "generate", "label", "pairs", "search", "curate", "pipeline")
#: Flags whose value is a path or a name
_PATHS = (
    "--runs_root",
    "--experiment",
    "--ckpt_path",
    "--config",
    "-c",
    "--out",
    "--recorded",
    "--baseline",
    "--policy",
)


def main(args: Sequence[str] | None = None) -> None:
    """Run one verb.

    Args:
        args: Arguments after the program's name; those of the process by default.

    Raises:
        SystemExit: With code 2 and one line on stderr, for an error that the user can mend; with 128 and the number of
            the signal that ended it (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP).
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
        return
    if arguments[0] == "--version":
        from surefoot import __version__

        print(__version__)
        return
    try:
        with interruptible():
            _check_paths(arguments)
            find_own_modules()
            run = find_verb(arguments[0])
            join_own_packages()
            run(arguments)
    except Interrupted as stop:
        if _launched_rank():  # rank zero's code and line are those of all
            raise SystemExit(0) from stop
        print(f"surefoot: {_interruption(arguments, stop.signum)}", file=sys.stderr, flush=True)
        raise SystemExit(stop.code) from None
    except Exception as error:
        line = error_line(error)
        if debug or line is None:
            raise
        print(f"surefoot: error: {' '.join(line.split())}", file=sys.stderr)
        raise SystemExit(2) from error


def _check_paths(arguments: Sequence[str]) -> None:
    """Refuse a path or a name that is given as an empty text, which would mean the working folder.

    Raises:
        ConfigError: If one is.
    """
    for given, value in (*pairwise(arguments), *(a.split("=", 1) for a in arguments[1:] if "=" in a)):
        if not value and (given in _PATHS or given == arguments[0]):
            raise ConfigError(f"{given} got an empty text: give a path or a name.")


def _launched_rank() -> bool:
    """Return whether rank zero has launched this process to train with it."""
    return RUN_VARIABLE in os.environ


def _interruption(arguments: Sequence[str], signum: int) -> str:
    """Return the line that ends an interrupted verb."""
    line = f"interrupted ({signal.Signals(signum).name})"
    if arguments[0] not in _RESUMABLE:
        return line
    fresh = any(a.startswith("--fresh") for a in arguments)
    return f"{line}, the same command {'without --fresh ' if fresh else ''}resumes"


def find_verb(name: str) -> Callable[[list[str]], None]:
    """Return the function that runs a verb's arguments, verb included.

    Args:
        name: Name of the verb.

    Raises:
        SurefootError: If there is no such verb.
    """
    from surefoot.compatibility.lean_imports import without_optional_metrics

    run: Callable[[list[str]], None]
    with without_optional_metrics():
        match name:
            case "fit" | "validate" | "test" | "predict":
                from surefoot.cli.training import run_trainer as run
            case "generate":
                from surefoot.cli.generate import run_generate as run
            case "label":
                from surefoot.cli.label import run_label as run
            case "pairs":
                from surefoot.cli.pairs import run_pairs as run
            case "provers":
                from surefoot.cli.provers import run_provers as run
            case "search":
                from surefoot.cli.search import run_search as run
            case "curate":
                from surefoot.cli.curate import run_curate as run
            case "pipeline":
                from surefoot.cli.pipeline import run_pipeline_verb as run
            case "reproduce":
                from surefoot.reproduce.command import run_reproduce as run
            case "report":
                from surefoot.report import run_report as run
            case _:
                raise SurefootError(f"no verb {name!r}; there are {', '.join(_VERBS)}.")
    return run
