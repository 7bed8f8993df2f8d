"""Which runs are seeds of one method, what a method is called, and what each is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.errors import SurefootError
from surefoot.report.runs import LeftOut, RecordedRun, read_run

__all__ = ("OBSERVERS", "Method", "group_runs", "identifying_settings", "shown_settings")

#: Settings that say where a run is made and what is shown or kept of it, not what is trained; runs differing in them
#: pool.
_POOLED = {
    *("config", "runs_root", "experiment", "fresh", "override_optimizer", "weights_only"),
    *("checkpoint_every_n_steps", "model.init_args.compile", "trainer.limit_predict_batches"),
    *("trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes"),
    *("trainer.logger", "trainer.log_every_n_steps", "trainer.profiler", "trainer.barebones"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
    *("trainer.enable_checkpointing", "trainer.num_sanity_val_steps", "trainer.detect_anomaly"),
    *("trainer.deterministic", "trainer.benchmark", "trainer.inference_mode"),
    *("trainer.enable_autolog_hparams", "trainer.model_registry"),
}
_POOLED_DATA = ("num_workers", "eval_batch_size")
#: Callbacks that never change training. All others do, for all that is known of them.
OBSERVERS = {
    *("ExampleWeightMonitor", "ConstantSolutionAnalysis", "ExampleDynamics"),
    *("GeneralizationPredictors", "GroupMetrics", "MemorizationTracker", "ModelExporter"),
    *("OODDetection", "OfficialEvaluation", "SampleTable", "SelectiveRisk"),
    *("DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
    *("OnExceptionCheckpoint", "RichModelSummary", "RichProgressBar", "TQDMProgressBar"),
    "ThroughputMonitor",
}
_SAME = {None: "32-true", "32": "32-true", 32: "32-true"}  # Lightning's names of one precision


def _is_pooled(key: str) -> bool:
    last = key.split(".")[-1]
    return (
        any(key == p or key.startswith(p + ".") for p in _POOLED)
        or last == "seed"
        or key == "seed_everything"
        or (key.startswith("data.") and last in _POOLED_DATA)
    )


def _callbacks(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of callbacks that are not known to observe only, without their positions in the list."""
    prefix = "trainer.callbacks."
    found: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        if key.startswith(prefix):
            place, _, rest = key.removeprefix(prefix).partition(".")
            found.setdefault(place, {})[rest] = value
    kept: dict[str, object] = {}
    for callback in found.values():
        name = str(callback.get("class_path")).split(".")[-1]
        if name not in OBSERVERS:
            kept |= {f"trainer.callbacks.{name}.{k}": v for k, v in callback.items()}
    return kept


def _stage(value: object, depth: int) -> object:
    """Return what a path into an earlier stage's run means: that run's own settings, so that its seed is no setting."""
    if not isinstance(value, str) or "/" not in value or depth > 3:
        return value
    path = Path(value)
    try:
        folder = next((f for f in [path, *path.parents][:4] if (f / "identity.json").is_file()), None)
        run = None if folder is None else read_run(folder)
    except (OSError, SurefootError):  # no path at all, or a stage that cannot be read: the text itself counts
        return value
    if folder is None or run is None:
        return value
    inner = "/".join(path.parts[len(folder.parts) :])
    return run.experiment, inner, tuple(identifying_settings(run, depth + 1).items())


def identifying_settings(run: RecordedRun, depth: int = 0) -> dict[str, object]:
    """Return the settings that make a run what it is, whatever its seeds and its machine.

    Batches are counted over all ranks; equal ways of saying the same are made equal.

    Args:
        run: The run.
        depth: How many stages later the run is that is asked about.
    """
    kept = {
        k: v for k, v in run.settings.items() if not _is_pooled(k) and not k.startswith("trainer.callbacks")
    } | _callbacks(run.settings)
    for key, value in kept.items():
        last = key.split(".")[-1]
        if key == "trainer.precision":
            kept[key] = _SAME.get(value, value)
        elif key.startswith("trainer.limit_") and value is None:
            kept[key] = 1.0
        elif key.startswith("data.") and last == "batch_size" and isinstance(value, int):
            kept[key] = value * run.ranks
        elif key == "ckpt_path" and value is not None and _is_own(Path(value), run.path):
            kept[key] = None  # resumed
        else:
            kept[key] = _stage(value, depth)
    return {
        k: tuple(map(str, v)) if isinstance(v, list) else v
        for k, v in sorted(kept.items())
        if v is not None  # as in runs that were made before there was such a setting
    }


def _is_own(checkpoint: Path, folder: Path) -> bool:
    """Return whether a checkpoint lies in the run folder, wherever the folder was moved to."""
    return checkpoint.parts[-4:-2] == folder.resolve().parts[-2:]


@dataclass
class Method:
    """Runs that differ in their seeds alone."""

    name: str
    settings: dict[str, object]
    runs: list[RecordedRun]
    values: dict[Path, float] = field(default_factory=dict)
    differing: dict[str, str] = field(default_factory=dict)  # short key -> value, from others

    def by_pair(self) -> dict[tuple[int | None, int | None], float]:
        """Return the value of each pair of training seed and data seed, the mean where a pair has several runs."""
        found: dict[tuple[int | None, int | None], list[float]] = {}
        for run in self.runs:
            found.setdefault(run.pair, []).append(self.values[run.path])
        return {pair: sum(v) / len(v) for pair, v in found.items()}


def group_runs(runs: Sequence[RecordedRun], metric: str, rule: str) -> tuple[list[Method], list[LeftOut]]:
    """Group runs by method, the newest of equal runs only.

    Args:
        runs: Finished runs.
        metric: Logged name of a quantity.
        rule: Selection rule whose epoch counts, or ``last``.

    Returns:
        Methods in the order of their first runs, and runs without the quantity or with a newer repeat.
    """
    groups: dict[str, list[RecordedRun]] = {}
    values: dict[Path, float] = {}
    left_out: list[LeftOut] = []
    for run in runs:
        try:
            values[run.path] = run.value(metric, rule)
        except SurefootError as error:
            left_out.append(LeftOut(run.path, str(error)))
            continue
        groups.setdefault(repr(identifying_settings(run)), []).append(run)
    methods = []
    for group in groups.values():
        kept, repeats = _newest(group)
        left_out += repeats
        own = {r.path: values[r.path] for r in kept}
        methods.append(Method("", identifying_settings(kept[0]), kept, own))
    _give_names(methods)
    return methods, left_out


def _newest(runs: Sequence[RecordedRun]) -> tuple[list[RecordedRun], list[LeftOut]]:
    """Return the newest run of each combination of seeds, and the older ones; runs without a seed are all different."""
    newest: dict[object, RecordedRun] = {}
    repeats: list[LeftOut] = []
    for run in sorted(runs, key=lambda r: r.created):
        seeded = run.seeds.get("seed_everything") is not None
        key = tuple(sorted(run.seeds.items())) if seeded else run.path
        if key in newest:
            reason = f"repeated with the same settings and seeds by {run.path}, which is newer"
            repeats.append(LeftOut(newest[key].path, reason))
        newest[key] = run
    kept = {r.path for r in newest.values()}
    return [r for r in runs if r.path in kept], repeats


def _is_stage(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], tuple)


def _short(value: Any) -> str:
    if _is_stage(value):
        return f"{value[0]}/{value[1]}".rstrip("/")
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return "none" if value is None else str(value)


def shown_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as a page shows them; those of an earlier stage follow the name of what it handed on."""
    shown: dict[str, str] = {}
    for key, value in settings.items():
        shown[key] = _short(value)
        if _is_stage(value):
            inner = shown_settings(dict(value[2]))
            shown |= {f"{key} > {name}": text for name, text in inner.items()}
    return shown


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return each dotted key's shortest ending that no other has; a class is called by what it is the class of."""
    parts = {k: [p for p in k.split(".") if p not in ("init_args", "class_path")] for k in keys}
    short: dict[str, str] = {}
    for key, names in parts.items():
        for n in range(1, len(names) + 1):
            ending = names[-n:]
            if all(k == key or other[-n:] != ending for k, other in parts.items()):
                break
        short[key] = ".".join(ending)
    return short


def _give_names(methods: Sequence[Method]) -> None:
    """Call each method by its experiment, and where several share one, by the settings in which they differ."""
    bases: dict[str, list[Method]] = {}
    for method in methods:
        experiments = {r.experiment for r in method.runs}
        first = method.runs[0]
        base = first.experiment if len(experiments) == 1 else f"{first.method} on {first.data}"
        bases.setdefault(base, []).append(method)
    for base, group in bases.items():
        keys = _differing_keys([m.settings for m in group])
        short = _short_keys(keys)
        for method in group:
            method.differing = {
                short[k]: _short(method.settings[k]).split(".")[-1]
                if k.endswith("class_path")
                else _short(method.settings[k])
                for k in keys
                if k in method.settings
            }
        shown = _distinguishing([m.differing for m in group])
        for method in group:
            text = ", ".join(f"{k}={v}" for k, v in method.differing.items() if k in shown)
            method.name = f"{base} ({text})" if text else base
    _number_equal_names(methods)


def _number_equal_names(methods: Sequence[Method]) -> None:
    """Number methods whose names are equal all the same."""
    for method in methods:
        same = [m for m in methods if m.name == method.name]
        for number, other in enumerate(same[1:], 2):
            other.name = f"{other.name} #{number}"


def _differing_keys(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys in which some differ, without arguments that only one class has."""
    keys = list(dict.fromkeys(k for s in settings for k in s))
    absent = object()
    differing = [k for k in keys if len({repr(s.get(k, absent)) for s in settings}) > 1]
    classes = [k.removesuffix("class_path") for k in differing if k.endswith("class_path")]
    return [
        k
        for k in differing
        if k.endswith("class_path")
        or not any(k.startswith(c + "init_args") and c != k for c in classes)
        or len({repr(s[k]) for s in settings if k in s}) > 1
    ]


def _distinguishing(differing: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the keys to show: all of a few, else the first that suffice to distinguish all."""
    keys = list(dict.fromkeys(k for d in differing for k in d))
    if len(keys) <= 3:
        return set(keys)
    shown: list[str] = []

    def n_apart(chosen: Sequence[str]) -> int:
        return len({tuple(d.get(k) for k in chosen) for d in differing})

    while n_apart(shown) < n_apart(keys):
        shown.append(max((k for k in keys if k not in shown), key=lambda k: n_apart([*shown, k])))
    return set(shown)
