"""Completions whose steps are right until a letter x appears: what a model of steps has to see."""

import random
from pathlib import Path

from surefoot.reasoning.answers import Grade
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory

__all__ = ("labelled_completions", "stepwise")


def stepwise(problem: str, steps: list[str]) -> Trajectory:
    """A completion of steps, each a line; the value is 1 until one has an x, and 0 from there."""
    tokenizer, text = digit_tokenizer(), "".join(steps)
    ends = [sum(map(len, steps[: i + 1])) for i in range(len(steps))]
    right = [float("x" not in text[:end]) for end in (0, *ends)]
    tokens = tokenizer.encode(text, add_special_tokens=False)
    return Trajectory(
        Problem(problem, f"{problem}=", "1"),
        group=int(problem),
        prompt=tokenizer.encode(f"{problem}=", add_special_tokens=False),
        completion=tokens,
        behaviour_logprobs=[-1.0] * len(tokens),
        finish_reason="stop",
        policy_version=0,
        text=text,
        target=tokens,
        grade=Grade("correct" if right[-1] else "wrong", "1"),
        spans=[Span(start, end) for start, end in zip([0, *ends], ends, strict=False)],
        steps=steps,
        values=right,
    )


def labelled_completions(folder: Path, n_problems: int = 60, per_problem: int = 4) -> Path:
    """Write completions of two to four steps."""
    draw = random.Random(0)

    def steps() -> list[str]:
        return [f"{draw.choice('abxcdefg')}{draw.randrange(10)}\n" for _ in range(draw.randint(2, 4))]

    found = [stepwise(str(p), steps()) for p in range(n_problems) for _ in range(per_problem)]
    sharded = ShardedFolder(folder, "label", {}, [n_problems], [len(found)])
    sharded.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    return folder
