"""A DPO step on pairs that begin alike, packed so that a beginning is read once, and packed apart.

Compared in turn within one process, on SmolLM2-135M and reference solutions of GSM8K: a pair prefers the solution to
its first half with another number in its last step, as per-step DPO does. In the full form the two sides are answers to
the problem; in the form of the theory what comes before the step stands in the prompt. What is timed is the forward and
backward pass of a batch of pairs; the weights stay as they are.

python benchmarks/preference_pairs.py --out benchmarks/results/preference_pairs.json
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from datamodules import GSM8KDataModule
from surefoot.reasoning.language_models import PretrainedLanguageModel
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import ChatPrompt
from surefoot.reasoning.sequences import PromptCompletion, pack_sequences
from surefoot.runs import describe_environment
from surefoot.storage.json_files import write_json

MODEL = "smollm2-135m-instruct"
Pair = tuple[PromptCompletion, PromptCompletion]


def pair(problem: Problem, model: PretrainedLanguageModel, shared_prefix: bool) -> Pair:
    """Return a solution and its first half with a wrong end."""
    lines = problem.solution.splitlines(keepends=True)
    half = len(lines) // 2
    before, wrong = "".join(lines[:half]), re.sub(r"\d+(?=\D*$)", lambda found: str(int(found[0]) + 1), lines[half])
    prompt = ChatPrompt().prompt_ids(problem, model)
    prefix, rest, step = (model.encode(text) for text in (before, "".join(lines[half:]), wrong))
    if shared_prefix:
        return PromptCompletion([*prompt, *prefix], rest), PromptCompletion([*prompt, *prefix], step)
    return PromptCompletion(prompt, [*prefix, *rest]), PromptCompletion(prompt, [*prefix, *step])


def step(model: PretrainedLanguageModel, pairs: Sequence[Pair], together: bool) -> tuple[float, int]:
    """Return the seconds of a forward and a backward pass, and the tokens that were read."""
    sequences = [side for own in pairs for side in own]
    numbers = [i // 2 for i in range(len(sequences))]
    began = time.perf_counter()
    if together:
        packs = pack_sequences(sequences, 2048, together=numbers)
    else:
        packs = pack_sequences(sequences, 2048, share_prompts=False)
    for pack in packs:
        model.score(pack).logprobs.sum().backward()
    seconds = time.perf_counter() - began
    model.zero_grad()
    return seconds, sum(len(pack.tokens) for pack in packs)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("preference_pairs.json"))
    arguments = parser.parse_args()
    model = PretrainedLanguageModel(MODEL)
    problems = GSM8KDataModule(n_val=0, contamination="off").problems("train")
    chosen = [p for p in problems[:200] if len(p.solution.splitlines()) > 3][: arguments.pairs]
    result: dict[str, object] = {"environment": describe_environment(), "pairs": len(chosen)}
    for form in ("full", "shared_prefix"):
        pairs = [pair(p, model, form == "shared_prefix") for p in chosen]
        ways = {"together": True, "apart": False}
        tokens = {name: step(model, pairs, way)[1] for name, way in ways.items()}  # the first round is not timed
        seconds = [{name: step(model, pairs, way)[0] for name, way in ways.items()} for _ in range(arguments.repeats)]
        result[form] = {
            "tokens": tokens,
            "seconds": {name: statistics.median(own[name] for own in seconds) for name in ways},
            "ratio": statistics.median(own["apart"] / own["together"] for own in seconds),
        }
        write_json(arguments.out, result)
        print(form, json.dumps(result[form], indent=2), flush=True)


if __name__ == "__main__":
    main()
