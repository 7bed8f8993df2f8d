"""Methods of several stages: each is a verb whose output the next ones read; a rerun resumes at the first missing.

A pipeline's file lists stages, in order::

    stages:
      - name: sample
        verb: generate
        config: configs/pipelines/stages/sample_gsm8k_smollm2.yaml
        flags: {split: train}
      - name: tune
        verb: fit
        config: configs/reasoning/sft_gsm8k_smollm2.yaml
        flags: {data.init_args.completions: "{sample}"}

``{name}`` in a flag stands for the folder of an earlier stage: what ``generate`` or ``curate`` wrote, or the run folder
of ``fit``. A stage is done when its record names its settings, the contents of what it reads, and the hash of its own
output; when any of them changes, the stage and those that read it run again, beside the old ones. A ``fit`` is done
only when its run is finished, and its output is what its manifest names.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from surefoot.errors import ConfigError, SurefootError
from surefoot.processes import run_to_the_end
from surefoot.runs import RunFolder
from surefoot.storage.contents import content_of, contents_read, named_contents
from surefoot.storage.json_files import fingerprint, read_json, write_json
from surefoot.storage.manifests import hash_files, manifest_content
from surefoot.storage.yaml_files import read_yaml

__all__ = ("Stage", "content_hash", "read_pipeline", "run_pipeline")

_VERBS = ("fit", "generate", "label", "pairs", "search", "curate")
SEARCH_TABLE = "accuracy.csv"
_REFERENCE = re.compile(r"\{(\w+)\}")
_REFERENCE_BELOW = re.compile(r"\{(\w+)\}((?:/[\w.-]+)*)")


class Stage(NamedTuple):
    """One verb of a pipeline."""

    name: str
    verb: str
    config: Path
    flags: Mapping[str, object]

    @property
    def reads(self) -> list[str]:
        """The earlier stages whose folders its flags name."""
        return sorted({n for v in self.flags.values() for n in _REFERENCE.findall(str(v))})


def read_pipeline(path: Path) -> list[Stage]:
    """Return a file's stages.

    Raises:
        ConfigError: If the file is missing, damaged, or a stage makes no sense.
    """
    try:
        content = read_yaml(path)
        rows = content.get("stages") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("no mapping with a list of stages")
        stages = [Stage(str(r["name"]), str(r["verb"]), Path(r["config"]), dict(r.get("flags") or {})) for r in rows]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(
            f"{path} is not a pipeline ({reason}): expected stages, each with name, verb, config and flags."
        ) from error
    known: list[str] = []
    for stage in stages:
        if stage.verb not in _VERBS or stage.name in known or not re.fullmatch(r"\w+", stage.name):
            raise ConfigError(
                f"{path}: the stage {stage.name!r} needs a name of its own and a verb among {', '.join(_VERBS)}."
            )
        if not stage.config.is_file():
            raise ConfigError(f"{path}: the stage {stage.name!r} has no config {stage.config}.")
        unknown = [n for n in stage.reads if n not in known]
        if unknown:
            raise ConfigError(f"{path}: the stage {stage.name!r} reads {unknown[0]!r}, which is no earlier stage.")
        known.append(stage.name)
    if not stages:
        raise ConfigError(f"{path} has no stages.")
    return stages


def content_hash(folder: Path, verb: str) -> str:
    """Return a hash of what a stage hands on, not of logs, times and checkpoints.

    Args:
        folder: The stage's folder.
        verb: What made it: of a fit the manifest is hashed, of others the files.

    Raises:
        SurefootError: If the stage is not finished, or a file is missing or another than when it finished.
    """
    if verb == "fit":
        if not RunFolder(folder).finished:
            raise SurefootError(f"{folder} has no finished.json")
        return manifest_content(folder)
    files = {
        n: f
        for n, f in hash_files(folder).items()
        if n.endswith((".arrow", "curated.jsonl", "pairs.jsonl", SEARCH_TABLE))
    }
    last = {"search": SEARCH_TABLE, "curate": "curated.jsonl"}.get(verb, "summary.json")
    if not files or not (folder / last).is_file():
        raise SurefootError(f"{folder} lacks what surefoot {verb} writes")
    return fingerprint(files)


def run_pipeline(path: Path, out: Path, extra_flags: Sequence[str] = ()) -> dict[str, Path]:
    """Run a pipeline's stages, those that are not done yet.

    Args:
        path: The pipeline's file.
        out: Folder of the stages' folders.
        extra_flags: Flags for every ``fit`` stage, such as those of an overlay.

    Returns:
        Each stage's folder.

    Raises:
        SurefootError: If a stage fails; its own message has been printed.
    """
    stages = read_pipeline(path)
    folders: dict[str, Path] = {}
    contents: dict[str, str] = {}
    for number, stage in enumerate(stages, 1):
        config = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
        extra = list(extra_flags) if stage.verb == "fit" else []
        identity = {
            "verb": stage.verb,
            "config": config,
            "flags": {k: str(v) for k, v in stage.flags.items()},
            "reads": {n: contents[n] for n in stage.reads},
            "extra": extra,
            "contents": _contents_read(stage, config, extra, folders, out),
        }
        name = f"{stage.name}-{fingerprint(identity)}"
        folder = out / name / "latest" if stage.verb == "fit" else out / name
        record = out / f"{name}.json"
        done = record.is_file() and _content(folder, stage.verb) == read_json(record)["content"]
        state = "done" if done else "running"
        print(f"[{number}/{len(stages)}] {stage.name}: {state}, {folder}", file=sys.stderr, flush=True)
        if not done:
            # A finished run that was damaged since would say that it is finished.
            damaged = stage.verb == "fit" and RunFolder(folder).finished
            _run(stage, out, name, folders, [*extra_flags, *["--fresh", "true"] * damaged])
            try:
                content = content_hash(folder.resolve(), stage.verb)
            except SurefootError as error:
                raise SurefootError(
                    f"the stage {stage.name!r} is not finished ({error}); the same command again goes on from here."
                ) from error
            write_json(record, identity | {"content": content})
        folders[stage.name] = folder
        contents[stage.name] = read_json(record)["content"]
    return folders


def _contents_read(
    stage: Stage, config: Any, extra: Sequence[str], folders: Mapping[str, Path], out: Path
) -> dict[str, str]:
    """Return what the files and folders hold that a stage's config, flags and references name."""
    leave_out = [out.resolve(), Path("runs").resolve()]
    plain = {k: v for k, v in stage.flags.items() if not _REFERENCE.search(str(v))}
    found = {
        key: content
        for key, content in contents_read(config or {}, leave_out).items()
        if not any(key == flag or key.startswith(f"{flag}.") for flag in stage.flags)
    }
    found |= {f"--{k}": c for k, c in named_contents(plain, leave_out).items()}
    found |= named_contents(list(extra), leave_out, "extra")
    for value in stage.flags.values():
        for name, below in _REFERENCE_BELOW.findall(str(value)):
            path = folders[name].resolve() / below.lstrip("/")
            if below and path.exists():
                found[f"{{{name}}}{below}"] = content_of(path)
    return found


def _content(folder: Path, verb: str) -> str | None:
    """Return the hash of what a stage hands on, none if it is not finished or damaged."""
    try:
        return content_hash(folder.resolve(), verb)
    except SurefootError:
        return None


def _run(stage: Stage, out: Path, name: str, folders: Mapping[str, Path], extra_flags: Sequence[str]) -> None:
    """Run a stage in a process of its own, so that it leaves no memory and no engine behind."""
    command = [sys.executable, "-m", "surefoot", stage.verb, "--config", str(stage.config)]
    for key, value in stage.flags.items():
        text = _REFERENCE.sub(lambda m: str(folders[m.group(1)].resolve()), str(value))
        command += [f"--{key}", text]
    if stage.verb == "fit":
        command += ["--runs_root", str(out), "--experiment", name, *extra_flags]
    else:
        command += ["--out", str(out / name)]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    code = run_to_the_end(command, environment)
    if code != 0:
        raise SurefootError(
            f"the stage {stage.name!r} ended with code {code}; the same command again goes on from here."
        )
