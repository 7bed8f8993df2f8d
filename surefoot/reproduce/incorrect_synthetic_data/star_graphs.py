"""The star graphs, measured: one decision that fine-tuning learns late, and what negatives teach of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from surefoot.reasoning.completions.selection import group_by_problem
from surefoot.reasoning.completions.store import read_trajectories
from surefoot.reasoning.credit import prover_values
from surefoot.reproduce.claims import Scale
from surefoot.reproduce.incorrect_synthetic_data.studies import PER_STEP_DPO, SFT
from surefoot.reproduce.jobs import Job, changed, component, run_calls, run_jobs, seconds_of, slug
from surefoot.reproduce.language_models import ENGINE, completions_of, folder_of, optimizer, run_verb, trainer
from surefoot.reproduce.results import Rows
from surefoot.reproduce.running import Measured
from surefoot.reproduce.tasks.star_graph import SEPARATOR, StarGraphs, grade_path, write_problems

__all__ = ("GraphSize", "graph_sizes", "measure_star_graphs")

#: Tokens of a path, solutions of an optimizer step, and attempts of the provers that are compared.
MAX_TOKENS, BATCH, KS = 24, 32, (1, 5)
RFT = "RFT"


class GraphSize(NamedTuple):
    """How large the study is."""

    graphs: StarGraphs
    n_train: int
    n_learned: int  # of these, whose sampled paths are learned from
    n_test: int
    epochs: Sequence[int]  # of SFT, after which its policy is looked at
    n_samples: int  # paths of a graph, and attempts from each of their prefixes


def graph_sizes(scale: Scale) -> GraphSize:
    """Return the study of a scale."""
    if scale == "quick":
        return GraphSize(StarGraphs(2, 3, 9), n_train=64, n_learned=32, n_test=16, epochs=(30, 60), n_samples=4)
    return GraphSize(StarGraphs(2, 4, 20), n_train=8000, n_learned=1000, n_test=512, epochs=(16, 28, 40), n_samples=8)


def measure_star_graphs(size: GraphSize, out: Path, seeds: Sequence[int]) -> Iterator[Measured]:
    """Fine-tune on paths, learn from sampled ones after some epochs and more, and yield accuracies and values.

    Args:
        size: Of the study.
        out: Folder of runs.
        seeds: Of graphs and models.
    """
    for seed in seeds:
        _write_graphs(seed, size, out)
    seconds = seconds_of(run_jobs([fine_tuning(seed, size, out) for seed in seeds], out).values())
    starts = [(seed, epochs) for seed in seeds for epochs in size.epochs]
    _, sampling = run_calls(sample_and_label, {start: (*start, size, out) for start in starts})
    methods = {
        (*start, method): make(*start, out)
        for start in starts
        for method, make in {RFT: _rft, PER_STEP_DPO: _per_step_dpo}.items()
    }
    seconds += seconds_of(run_jobs([*methods.values()], out).values())
    models = {(*start, SFT): _checkpoint(*start, out) for start in starts}
    models |= {key: folder_of(job.name, out) / "model" for key, job in methods.items()}
    rows, testing = run_calls(accuracy_row, {key: (*key, model, size, out) for key, model in models.items()})
    yield Measured({"star_graph_paths": [*rows.values()]}, {"star_graph_paths": seconds + sampling + testing})
    values, reading = run_calls(value_rows, {start: (*start, out) for start in starts}, side_by_side=False)
    yield Measured({"star_graph_values": [r for own in values.values() for r in own]}, {"star_graph_values": reading})


def _write_graphs(seed: int, size: GraphSize, out: Path) -> None:
    """Write the seed's training and test graphs, unless they are there."""
    sets = {"train": (seed, size.n_train), "test": (10**6 + seed, size.n_test)}
    for name, (of, n) in sets.items():
        if not (path := _graphs(name, seed, out)).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_problems(size.graphs.problems(of, n), path)


def _graphs(name: str, seed: int, out: Path) -> Path:
    return out / "graphs" / f"{name}_seed{seed}.jsonl"


def _data(seed: int, out: Path) -> dict[str, Any]:
    files = {name: str(_graphs(name, seed, out).resolve()) for name in ("train", "test")}
    return component("JSONLDataModule", n_val=0, **files)


def fine_tuning(seed: int, size: GraphSize, out: Path) -> Job:
    """Return the run that learns given paths; it keeps the model after every number of epochs that is looked at."""
    every, *_ = size.epochs
    untrained = component("TinyLanguageModel", width=64, n_layers=3, seed=seed, initializer_range=0.08)
    data = changed(_data(seed, out), batch_size=BATCH)
    kept = component("ModelExporter", every_n_epochs=every)
    return _job(f"graphs_sft_seed{seed}", seed, "SFT", untrained, data, max(size.epochs), 2e-3, kept)


def _checkpoint(seed: int, epochs: int, out: Path) -> Path:
    return folder_of(f"graphs_sft_seed{seed}", out) / f"model-epoch-{epochs}"


def _policy(seed: int, epochs: int, out: Path) -> dict[str, Any]:
    return component("PretrainedLanguageModel", name=str(_checkpoint(seed, epochs, out).resolve()))


def _stored(name: str, seed: int, epochs: int, out: Path) -> Path:
    return completions_of(f"graphs_{name}_epoch{epochs}", seed, out)


def _rft(seed: int, epochs: int, out: Path) -> Job:
    """Return the run that goes on with right paths of its own."""
    samples = str(_stored("samples", seed, epochs, out).resolve())
    data = component("CompletionsDataModule", completions=samples, max_per_problem=4, distinct=False, batch_size=BATCH)
    policy = _policy(seed, epochs, out)
    return _job(f"graphs_rft_epoch{epochs}_seed{seed}", seed, "SFT", policy, data, 2, 3e-4, component("ModelExporter"))


def _per_step_dpo(seed: int, epochs: int, out: Path) -> Job:
    """Return the run that prefers paths to the node with which others were lost."""
    labels, builder = str(_stored("labels", seed, epochs, out).resolve()), component("FirstPitPairs", max_per_problem=4)
    data = component("PreferencesDataModule", completions=labels, builder=builder, batch_size=BATCH)
    policy = _policy(seed, epochs, out)
    return _job(f"graphs_dpo_epoch{epochs}_seed{seed}", seed, "DPO", policy, data, 2, 1e-4, component("ModelExporter"))


def _job(
    name: str,
    seed: int,
    method: str,
    model: dict[str, Any],
    data: dict[str, Any],
    epochs: int,
    lr: float,
    exporter: dict[str, Any],
) -> Job:
    module = {"language_model": model, "schedule": "linear", **optimizer(lr, 50)}
    settings = {"trainer": trainer([exporter], max_epochs=epochs), "model": component(method, **module), "data": data}
    return Job(name, {"seed_everything": seed, **settings})


def sample_and_label(seed: int, epochs: int, size: GraphSize, out: Path) -> None:
    """Write paths that a policy samples of training graphs, and these with the values of their nodes."""
    drawn = {"n": size.n_samples, "temperature": 1.0, "max_tokens": MAX_TOKENS}
    settings = {"model": _policy(seed, epochs, out), "engine": ENGINE, "sampling": drawn, "problems_per_shard": 256}
    samples, labels = (_stored(name, seed, epochs, out) for name in ("samples", "labels"))
    run_verb("generate", settings | {"data": _data(seed, out), "split": "train", "limit": size.n_learned}, samples)
    run_verb("label", settings | {"completions": str(samples), "separator": SEPARATOR}, labels)


def accuracy_row(seed: int, epochs: int, method: str, model: Path, size: GraphSize, out: Path) -> dict[str, Any]:
    """Return how many of a model's likeliest paths are right, in their first node and altogether."""
    folder = _stored(f"test_{slug(method)}", seed, epochs, out)
    settings = {"model": component("PretrainedLanguageModel", name=str(model.resolve())), "engine": ENGINE}
    settings |= {"sampling": {"n": 1, "temperature": 0.0, "max_tokens": MAX_TOKENS}, "data": _data(seed, out)}
    run_verb("generate", settings, folder)
    grades = [grade_path(t.text, t.problem) for t in read_trajectories(folder)]
    return {
        "seed": seed,
        "epochs": epochs,
        "method": method,
        "first_node": fmean(grade.first_node for grade in grades),
        "full_path": fmean(grade.full_path for grade in grades),
    }


def value_rows(seed: int, epochs: int, out: Path) -> Rows:
    """Return what right and wrong first nodes are worth to provers that are the best of K attempts."""
    groups = group_by_problem(read_trajectories(_stored("labels", seed, epochs, out)))
    rows = []
    for k in KS:
        for right in (True, False):
            own = [
                prover_values(t, k)
                for paths in groups.values()
                for t in paths
                if len(t.values) > 1 and grade_path(t.text, t.problem).first_node == right
            ]
            if own:
                rows.append(
                    {
                        "seed": seed,
                        "epochs": epochs,
                        "k": k,
                        "right": right,
                        "value": fmean(v[1] for v in own),
                        "advantage": fmean(v[1] - v[0] for v in own),
                        "paths": len(own),
                    }
                )
    return rows
