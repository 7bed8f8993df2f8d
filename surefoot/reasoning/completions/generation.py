"""Sampling and grading many problems into an Arrow dataset, shard by shard, so that a kill costs one shard at most.

A folder holds ``generation.json`` (what is being generated), one file per shard that is complete as soon as it has its
name, and, once all are there, what ``datasets.load_from_disk`` needs and ``summary.json``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.selection import COLUMNS
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.metrics import ProblemResult, problem_results, summarise_results
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import (
    GroupSampler,
    RolloutEngine,
    Sampling,
    derive_seed,
    grade_trajectories,
    with_stops,
)
from surefoot.reasoning.trajectories import Trajectory
from surefoot.storage.contents import differing_contents
from surefoot.storage.files import partial_path, replacing
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.storage.locks import LOCK_FILE, hold

if TYPE_CHECKING:
    import pyarrow

__all__ = ("generate_completions",)


def generate_completions(
    problems: Sequence[Problem],
    model: LanguageModel,
    engine: RolloutEngine,
    prompt: Prompt,
    sampling: Sampling,
    grader: Grader,
    out: Path,
    identity: Mapping[str, Any],
    seed: int = 0,
    problems_per_shard: int = 128,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, float]:
    """Sample completions of every problem, grade them, and write them to a folder.

    Grading and writing of a shard happen while the next one is sampled. The same call again goes on after the last
    complete shard; a finished one returns at once. Completions do not depend on where a run was interrupted.

    Args:
        problems: What is to be solved.
        model: Whose tokenizer and weights are used.
        engine: Samples; started when the first shard is needed.
        prompt: How problems become token ids.
        sampling: How completions are sampled.
        grader: Finds and compares final answers.
        out: Folder to write to.
        identity: Settings that must not change between the parts of one dataset; ``contents`` among them is what their
            paths hold, see `surefoot.storage.contents.named_contents`.
        seed: Seed of the sampling; each problem's own derives from it and its id.
        problems_per_shard: Problems of a shard.
        progress: Told the problems that are done, all problems, and the engine's tokens per second.

    Returns:
        Accuracy with its interval, pass@k, maj@k and the like, over all completions.

    Raises:
        ConfigError: If there is nothing to do, or the folder holds a dataset of other settings.
    """
    if not problems or problems_per_shard < 1:
        raise ConfigError("there are no problems to generate completions for.")
    n_shards = -(-len(problems) // problems_per_shard)
    shards = [out / f"data-{i:05d}-of-{n_shards:05d}.arrow" for i in range(n_shards)]
    parts = [problems[i : i + problems_per_shard] for i in range(0, len(problems), problems_per_shard)]
    _claim(out, identity, problems, seed, problems_per_shard)
    with hold(out, ", or choose another --out"):
        missing = [i for i, path in enumerate(shards) if _n_rows(path) != len(parts[i]) * sampling.n]
        sampling = with_stops(sampling, prompt, model)
        n_done = len(problems) - sum(len(parts[i]) for i in missing)
        if missing:
            try:
                engine.start(model)
                grader.pool.warm_up()
                with ThreadPoolExecutor(1) as background:
                    pending: Future[None] | None = None
                    for i in missing:
                        trajectories = _sample(parts[i], model, engine, prompt, sampling, seed)
                        if pending is not None:
                            pending.result()
                        finish = partial(_finish, trajectories, model, grader, prompt, sampling, shards[i])
                        pending = background.submit(finish)
                        n_done += len(parts[i])
                        if progress is not None:
                            progress(n_done, len(problems), engine.statistics().tokens_per_second)
                    if pending is not None:
                        pending.result()
            finally:
                engine.close()
                grader.pool.close()
        return _complete(out, shards, grader)


def _claim(out: Path, identity: Mapping[str, Any], problems: Sequence[Problem], seed: int, per_shard: int) -> None:
    """Write what the folder is for, or check that it is for the same."""
    wanted = {
        **identity,
        "seed": seed,
        "problems_per_shard": per_shard,
        "problems": fingerprint({"problems": [(p.id, p.question, p.answer) for p in problems]}),
    }
    record = out / "generation.json"
    if record.is_file():
        found = read_json(record)
        changed = differing_contents(found.pop("contents", {}), wanted.pop("contents", {}))
        if changed:
            raise ConfigError(
                f"{out} holds completions of other contents: what {changed[0]} names has changed since it was begun."
                " Choose another --out."
            )
        differing = [k for k in {*wanted, *found} if str(found.get(k)) != str(wanted.get(k))]
        if differing:
            name = min(differing)
            raise ConfigError(
                f"{out} holds completions of other settings ({', '.join(sorted(differing))} differ; {name} was"
                f" {found.get(name)!r} and is now {wanted.get(name)!r}): choose another --out."
            )
        return
    before = (LOCK_FILE, partial_path(record).name)  # what one that was killed here leaves behind
    if out.exists() and any(p.name not in before for p in out.iterdir()):
        raise ConfigError(f"{out} is not empty and not a folder of surefoot generate.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, wanted)


def _n_rows(path: Path) -> int:
    """Return the rows of a shard, -1 if it is missing or damaged."""
    import pyarrow as pa

    if not path.is_file():
        return -1
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            return sum(batch.num_rows for batch in stream)
    except (pa.ArrowInvalid, OSError):
        return -1


def _sample(
    problems: Sequence[Problem],
    model: LanguageModel,
    engine: RolloutEngine,
    prompt: Prompt,
    sampling: Sampling,
    seed: int,
) -> list[Trajectory]:
    prompts = [prompt.prompt_ids(p, model) for p in problems]
    seeds = [derive_seed(seed, p.id) for p in problems]
    return GroupSampler()(engine, problems, prompts, sampling, seeds)


def _finish(
    trajectories: list[Trajectory],
    model: LanguageModel,
    grader: Grader,
    prompt: Prompt,
    sampling: Sampling,
    path: Path,
) -> None:
    """Grade a shard's completions and write it, whole or not at all."""
    import pyarrow as pa

    grade_trajectories(trajectories, model, grader, prompt, sampling)
    table = pa.Table.from_pylist(list(_rows(trajectories)), schema=_schema())
    with (
        replacing(path) as part,
        part.open("wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    types: dict[str, Any] = {
        "problem_index": pa.int64(),
        "sample": pa.int32(),
        "prompt_ids": pa.list_(pa.int32()),
        "completion_ids": pa.list_(pa.int32()),
        "target_ids": pa.list_(pa.int32()),
        "logprobs": pa.list_(pa.float32()),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


def _rows(trajectories: Sequence[Trajectory]) -> Iterator[dict[str, Any]]:
    samples: dict[str, int] = {}
    for t in trajectories:
        sample = samples.get(t.problem.id, 0)
        samples[t.problem.id] = sample + 1
        assert t.grade is not None
        yield {
            "problem_id": t.problem.id,
            "problem_index": t.group,
            "sample": sample,
            "question": t.problem.question,
            "reference": t.problem.answer,
            "prompt_ids": list(t.prompt),
            "completion_ids": list(t.completion),
            "target_ids": list(t.target),
            "logprobs": list(t.behaviour_logprobs),
            "text": t.text,
            "finish_reason": t.finish_reason,
            "status": t.grade.status,
            "answer": t.grade.answer,
        }


def _complete(out: Path, shards: Sequence[Path], grader: Grader) -> dict[str, float]:
    """Make the folder one that ``datasets.load_from_disk`` reads, and return its summary."""
    from datasets import DatasetInfo, Features

    if (out / "summary.json").is_file() and (out / "dataset_info.json").is_file():
        summary: dict[str, float] = read_json(out / "summary.json")
        return summary
    try:
        summary = summarise_results(list(_results(shards, grader)))
    finally:
        grader.pool.close()
    write_json(
        out / "state.json",
        {
            "_data_files": [{"filename": p.name} for p in shards],
            "_fingerprint": fingerprint({"shards": [p.name for p in shards], "out": str(out)}),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        },
    )
    DatasetInfo(features=Features.from_arrow_schema(_schema())).write_to_directory(str(out))
    write_json(out / "summary.json", summary)  # the last one: with it the folder is complete
    return summary


def _results(shards: Sequence[Path], grader: Grader) -> Iterator[ProblemResult]:
    import pyarrow as pa

    from surefoot.reasoning.answers import Grade

    columns = ("problem_id", "status", "answer", "finish_reason")
    for path in shards:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            table = stream.read_all()
        values = {c: table[c].to_pylist() for c in columns}
        lengths = [len(x) for x in table["completion_ids"]]
        trajectories = [
            Trajectory(
                Problem(values["problem_id"][i], "", ""),
                0,
                (),
                range(lengths[i]),
                (),
                values["finish_reason"][i],
                0,
                grade=Grade(values["status"][i], values["answer"][i]),
            )
            for i in range(len(lengths))
        ]
        if not trajectories:
            raise DataError(f"{path} is empty.")
        yield from problem_results(trajectories, grader)
