"""Values of steps, searches and scores per second: batched as Surefoot does it, and one prefix after the other.

Compared in turn within one process, on solutions of arithmetic chains and a Llama with random weights, which never ends
a sequence: every completion is as long as its budget. Each chain has several solutions by a writer that errs in one
step of five, which begin alike up to the first error. Values are sampled by vLLM for all prefixes at once, by vLLM
prefix by prefix as text, and by transformers.generate prefix by prefix; ours samples a prefix that several solutions
have once, the others each time. vLLM's prefix cache is empty whenever one of its ways begins. A beam search runs over
all problems at once, and problem by problem, with the model's own forward pass and with vLLM. A value model scores all
prefixes of a solution in one pass, and each in one of its own; in a search it keeps keys and values of what steps are
added to, or computes them again.

python benchmarks/monte_carlo.py --out benchmarks/results/monte_carlo.json
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from surefoot.reasoning.answers import Grader
from surefoot.reasoning.arithmetic import Chains, ProceduralPolicy, arithmetic_problem
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel, TinyLanguageModel, ValueHead
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import EngineStatistics, HFEngine, RolloutEngine, Sampling, SeedOf, VLLMEngine
from surefoot.reasoning.search import BeamSearch
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import LearnedValues, MonteCarloValues, prefix_lengths
from surefoot.runs import describe_environment
from surefoot.storage.json_files import write_json
from surefoot.training.seeds import derive_seed

Way = Callable[[], None]


class Task(NamedTuple):
    """What is sampled and scored."""

    model: PretrainedLanguageModel
    problems: Sequence[Problem]
    n_valued: int  # of the problems whose solutions get values by sampling
    n_solutions: int  # of each problem
    n_rollouts: int
    max_tokens: int

    def policy(self, engine: RolloutEngine) -> Policy:
        """Return the model as a policy that an engine samples from."""
        return Policy(self.model, PlainPrompt(), engine, Grader())

    def solutions(self, policy: Policy, n_problems: int | None = None) -> list[Trajectory]:
        """Return solutions of the first problems as completions, cut into steps."""
        writer, found = ProceduralPolicy(error_rate=0.2), []
        for number, problem in enumerate(self.problems[:n_problems]):
            prompt = policy.prompt.prompt_ids(problem, self.model)
            for sample in range(self.n_solutions):
                text = "\n".join(writer.solve(problem.question, random.Random(f"{problem.id}/{sample}")))
                tokens = self.model.encode(text)
                t = Trajectory(problem, number, prompt, tokens, [0.0] * len(tokens), "stop", 0, text=text)
                found.append(t)
        policy.grade(found)
        policy.cut_into_steps(found, "\n")
        return found


def write_steps(model: LanguageModel) -> None:
    """Change a random model so that it ends a line about every ten tokens and never its completion.

    The embedding is the output head as well. One of its features is 4 in all tokens, and so about that in every hidden
    state, as the layers' weights are small. In the end of sequence it is -4, whose logit is tens below all others; in
    the end of a line it is a little more than in others.
    """
    embedding: Any = model.base.get_input_embeddings()
    (line_end,) = model.encode("\n")
    with torch.no_grad():
        embedding.weight[:, 0] = 4
        embedding.weight[line_end, 0] = 4.23
        embedding.weight[model.eos_token_id, 0] = -4


def task(folder: Path, n_steps: int, **numbers: int) -> Task:
    """Write a model with a head for values, and return the task.

    Args:
        folder: To write to.
        n_steps: Of a solution, beside its answer.
        numbers: Those of `Task`, and ``n_problems``.
    """
    from safetensors.torch import save_file

    model = TinyLanguageModel(width=256, n_layers=6, n_heads=8, seed=0)
    write_steps(model)
    model.save(folder / "model")
    head = ValueHead(model.width)
    weights = {f"value_head.{n}": w.contiguous() for n, w in head.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    problems = [arithmetic_problem(0, i, Chains(n_steps, n_steps)) for i in range(numbers.pop("n_problems"))]
    return Task(PretrainedLanguageModel(str(folder / "model")), problems, max_tokens=8 * n_steps + 24, **numbers)


def compare(ways: Mapping[str, Way], repeats: int) -> dict[str, dict[str, float]]:
    """Run all ways in turn, the first time unmeasured; return the median of each one's seconds, and its ratio.

    Args:
        ways: Ours first.
        repeats: Times that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - began)
    ours, *_ = seconds.values()
    found = {}
    for name, own in seconds.items():
        ratios = [o / u for o, u in zip(own, ours, strict=True)]
        found[name] = {"seconds": statistics.median(own), "ratio": statistics.median(ratios)}
    return found


def prefixes_as_text(t: Trajectory, model: PretrainedLanguageModel) -> list[str]:
    """Return the texts that a completion's prefixes begin with; the last, which has ended, is not gone on from."""
    lengths = prefix_lengths(t)[:-1]
    return [model.decode([*t.prompt, *t.completion[:n]]) for n in lengths]


def value_prefixes(given: Task, repeats: int) -> dict[str, object]:
    """Compare ways to sample the values of all prefixes."""
    engine = VLLMEngine(max_model_length=512, cache_gib=0.5)
    policy = given.policy(engine)
    policy.ready()
    solutions = given.solutions(policy, given.n_valued)
    sampling = Sampling(n=given.n_rollouts, max_tokens=given.max_tokens)
    estimator, rounds = MonteCarloValues(sampling), count()
    counts: dict[str, EngineStatistics] = {}

    def cold(name: str, way: Way) -> Way:
        def counted() -> None:
            engine.llm.reset_prefix_cache()
            before = engine.statistics()
            way()
            counts[name] = engine.statistics().since(before)

        return counted

    def ours() -> None:
        number = next(rounds)
        estimator(policy, solutions, lambda *parts: derive_seed(number, *parts))

    def vllm_by_prefix() -> None:
        for t in solutions:
            for i, text in enumerate(prefixes_as_text(t, given.model)):
                engine.generate([given.model.encode(text)], [_rest(sampling, t, i)], [next(rounds)])

    def transformers_by_prefix() -> None:
        for t in solutions:
            for i, text in enumerate(prefixes_as_text(t, given.model)):
                generate_with_transformers(given.model, text, _rest(sampling, t, i))

    by_vllm = {"ours": ours, "vLLM, prefix by prefix": vllm_by_prefix}
    ways = {name: cold(name, way) for name, way in by_vllm.items()} | {"transformers": transformers_by_prefix}
    found = compare(ways, repeats)
    engine.close()
    n_values = sum(len(prefix_lengths(t)) - 1 for t in solutions)
    for row in found.values():
        row["values_per_second"] = n_values / row["seconds"]
    return {"ways": found, "values": n_values, "tokens": tokens_of(solutions, sampling, counts)}


def tokens_of(
    solutions: Sequence[Trajectory], sampling: Sampling, counts: Mapping[str, EngineStatistics]
) -> dict[str, object]:
    """Return the tokens that ways to value prefixes have sampled and prefilled, and what there is to prefill.

    Args:
        solutions: Whose prefixes, all but the last of each.
        sampling: How completions were sampled.
        counts: Of engines, by way, each over one round.
    """
    asked = [(*t.prompt, *t.completion[:n]) for t in solutions for n in prefix_lengths(t)[:-1]]
    rest = [_rest(sampling, t, i) for t in solutions for i in range(len(prefix_lengths(t)) - 1)]
    distinct = dict(zip(asked, rest, strict=True))
    return {
        "prefixes": {"asked for": len(asked), "distinct": len(distinct)},
        "sampled": {name: own.generated_tokens for name, own in counts.items()},
        "sampled to the end of all budgets": {
            "prefix by prefix": sum(s.n * s.max_tokens for s in rest),
            "distinct prefixes": sum(s.n * s.max_tokens for s in distinct.values()),
        },
        "prefill": {name: own.prefill_computed for name, own in counts.items()},
        "prefill of each completion": sum(s.n * len(tokens) for tokens, s in zip(asked, rest, strict=True)),
        "prefill at least": len({tokens[: n + 1] for tokens in distinct for n in range(len(tokens))}),
    }


def _rest(sampling: Sampling, t: Trajectory, step: int) -> Sampling:
    return Sampling(n=sampling.n, max_tokens=sampling.max_tokens - prefix_lengths(t)[step])


def generate_with_transformers(model: PretrainedLanguageModel, text: str, sampling: Sampling) -> None:
    """Sample as a script would: a prompt, several sequences."""
    ids = torch.tensor([model.encode(text)])
    with torch.inference_mode():
        model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            num_return_sequences=sampling.n,
            max_new_tokens=sampling.max_tokens,
            pad_token_id=model.tokenizer.pad_token_id,
        )


def search(given: Task, run: Path, repeats: int) -> dict[str, object]:
    """Compare a beam search over all problems at once with one problem after the other, through either engine."""
    engines: dict[str, Callable[[], RolloutEngine]] = {
        "HFEngine": lambda: HFEngine(max_sequences=512),
        "VLLMEngine": lambda: VLLMEngine(max_model_length=512, cache_gib=0.5),
    }
    return {name: search_through(engine(), given, run, repeats) for name, engine in engines.items()}


def search_through(engine: RolloutEngine, given: Task, run: Path, repeats: int) -> dict[str, object]:
    """Compare both ways to search, for one beam and for four."""
    policy = given.policy(engine)
    policy.ready()
    beam = BeamSearch(LearnedValues(run), separator="\n")
    rounds = count()

    def way(n: int, batches: Sequence[Sequence[Problem]]) -> Way:
        sampling = Sampling(n=n, max_tokens=given.max_tokens)

        def again() -> None:
            number = next(rounds)  # of a seed of its own: a prefix cache knows nothing of what is written
            for problems in batches:
                beam(policy, problems, sampling, lambda *parts: derive_seed(number, *parts))

        return again

    batches: dict[str, list[Sequence[Problem]]] = {
        "all problems at once": [given.problems],
        "problem by problem": [[p] for p in given.problems],
    }
    found: dict[str, object] = {
        f"{n} beam(s)": compare({name: way(n, own) for name, own in batches.items()}, repeats) for n in (1, 4)
    }
    policy.close()
    return found


def score(given: Task, run: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Compare one pass over all prefixes of a solution with one pass for each."""
    values = LearnedValues(run)
    policy = given.policy(HFEngine())
    solutions = given.solutions(policy)
    prefixes = [[*t.prompt, *t.completion[:n]] for t in solutions for n in prefix_lengths(t)]

    def by_solution() -> None:
        for t in solutions:
            values.predict([t])

    def by_prefix() -> None:
        with torch.inference_mode():
            for prefix in prefixes:
                hidden = values.model.model.model(torch.tensor([prefix])).last_hidden_state
                values.head(hidden[:, -1])

    ways = {
        "one pass a solution": by_solution,
        "one pass for all solutions": lambda: values.predict(solutions),
        "one pass a prefix": by_prefix,
    }
    found = compare(ways, repeats)
    policy.close()
    return found


class StepsOfASearch(LearnedValues):
    """Notes what a search asks for, step by step, with the values that are known by then."""

    def __init__(self, run: Path) -> None:
        """Load the model."""
        super().__init__(run)
        self.steps: list[list[Trajectory]] = []

    def extend(self, policy: Policy, trajectories: Sequence[Trajectory], seed_of: SeedOf) -> None:
        """Fill in the values that are missing at the end."""
        self.steps.append([replace(t) for t in trajectories])
        super().extend(policy, trajectories, seed_of)


def score_in_a_search(given: Task, run: Path, repeats: int) -> dict[str, object]:
    """Compare the scores of a beam search with kept keys and values with those that read beginnings again."""
    policy = given.policy(HFEngine(max_sequences=512))
    policy.ready()
    verifier = StepsOfASearch(run)

    def seed_of(*parts: object) -> int:
        return derive_seed(0, *parts)

    BeamSearch(verifier, separator="\n")(policy, given.problems, Sampling(n=4, max_tokens=given.max_tokens), seed_of)
    ways = {"kept": LearnedValues(run), "computed again": LearnedValues(run, cache_gib=0.0)}

    def way(values: LearnedValues) -> Way:
        def again() -> None:
            for step in verifier.steps:
                values.extend(policy, [replace(t) for t in step], seed_of)
            values.forget()

        return again

    found = compare({name: way(values) for name, values in ways.items()}, repeats)
    policy.close()
    whole = [(*t.prompt, *t.completion) for step in verifier.steps for t in step]
    least = len({tokens[: n + 1] for tokens in whole for n in range(len(tokens))})
    tokens = {name: values.n_scored_tokens // (repeats + 1) for name, values in ways.items()}
    return {"ways": found, "steps": len(verifier.steps), "tokens": tokens | {"least": least}}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--valued", type=int, default=3, help="of the problems get values by sampling")
    parser.add_argument("--solutions", type=int, default=4, help="of each problem")
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("monte_carlo.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary)
        given = task(
            run,
            arguments.steps,
            n_problems=arguments.problems,
            n_valued=arguments.valued,
            n_solutions=arguments.solutions,
            n_rollouts=arguments.rollouts,
        )
        parts: dict[str, Callable[[], object]] = {
            "values": lambda: value_prefixes(given, arguments.repeats),
            "beam_search": lambda: search(given, run, arguments.repeats),
            "scores": lambda: score(given, run, arguments.repeats),
            "scores_in_a_search": lambda: score_in_a_search(given, run, arguments.repeats),
        }
        result: dict[str, object] = {"environment": describe_environment()}
        for name, measure in parts.items():
            result[name] = measure()
            write_json(arguments.out, result)
            print(name, json.dumps(result[name], indent=2), flush=True)


if __name__ == "__main__":
    main()
