"""What the verbs that sample from a policy share: how they open, which problems they solve, how far they are."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace

from surefoot.cli.verb_parser import VerbParser, build_objects, engine_name
from surefoot.contracts import ProblemSource, offers
from surefoot.errors import ConfigError
from surefoot.reasoning.completions.sharded import Progress
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt

__all__ = ("PolicyVerb", "open_policy_verb", "progress_printer", "split_problems")


class PolicyVerb(NamedTuple):
    """What a verb that samples was asked for."""

    parsed: Namespace  # its settings
    objects: Namespace  # what they describe
    policy: Policy
    identity: Mapping[str, object]  # settings that must not change between the parts of what it writes


def open_policy_verb(
    parser: VerbParser, arguments: Sequence[str], identity: Sequence[str], read: Sequence[str]
) -> PolicyVerb:
    """Return what the arguments of a verb describe.

    Args:
        parser: The verb's parser, with ``model``, ``engine``, ``prompt`` and ``grader`` among its settings.
        arguments: The verb and its options.
        identity: Names of the settings that the result depends on; engine, grading rule and contents come to them.
        read: Names of the settings whose paths are read, as in `build_objects`.

    Raises:
        ConfigError: If a file or a setting is wrong.
    """
    parsed = parser.parse_verb(arguments)
    settings: dict[str, Any] = yaml.safe_load(parser.dump(parsed, skip_none=False, skip_validation=True))
    objects, contents = build_objects(parser, parsed, read)
    wanted = {name: settings.get(name) for name in identity} | {
        "engine": engine_name(objects.engine),
        "contents": contents,
        "grader": {"rule": settings["grader"]["rule"]},
    }
    policy = Policy(objects.model, objects.get("prompt") or PlainPrompt(), objects.engine, objects.grader)
    return PolicyVerb(parsed, objects, policy, wanted)


def split_problems(data: object, split: str, limit: int | None) -> list[Problem]:
    """Return the problems of a datamodule's split.

    Args:
        data: A datamodule.
        split: ``train``, ``val`` or ``test``.
        limit: Return only so many first ones.

    Raises:
        ConfigError: If there are none of that split.
    """
    if not offers(data, ProblemSource) or split not in ("train", "val", "test"):
        raise ConfigError(
            f"{type(data).__name__} with --split {split} has no problems to solve: use GSM8KDataModule or the like, and"
            " train, val or test."
        )
    return list(data.problems(split))[:limit]


def progress_printer(policy: Policy, title: str = "", prefix_cache: bool = True, things: str = "problems") -> Progress:
    """Return what prints to stderr how many problems are done, how fast, and the seconds that are left.

    Args:
        policy: What samples.
        title: Stands first.
        prefix_cache: Also print the share of prompt tokens that the engine had in its cache.
        things: What is counted.
    """
    began = time.perf_counter()

    def tell(done: int, total: int) -> None:
        left, counts = (time.perf_counter() - began) / done * (total - done), policy.engine.statistics()
        cached = f", prefix cache {counts.prefix_hit_rate:.0%}" if prefix_cache else ""
        print(
            f"{title}{done}/{total} {things}, {counts.tokens_per_second:.0f} tokens/s{cached}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return tell
