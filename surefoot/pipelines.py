"""Methods of several stages: each stage is a verb whose output the next ones read; a rerun resumes at the first missing one.

A pipeline's file lists stages, in order::

    stages:
      - name: sample
        verb: generate
        config: configs/pipelines/sample_gsm8k.yaml
        flags: {split: train}
      - name: tune
        verb: fit
        config: configs/sft_gsm8k.yaml
        flags: {data.init_args.completions: "{sample}"}

``{name}`` in a flag stands for the folder of an earlier stage: what ``generate`` or ``curate`` wrote, or the run folder of ``fit``. A stage
is done when its record names its settings, the contents of the stages it reads, and the hash of its own output; when any of
them changes, the stage and those that read it run again, beside the old ones.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from surefoot.errors import ConfigError, SurefootError
from surefoot.runs import fingerprint, read_json, write_json

__all__ = ("Stage", "content_hash", "read_pipeline", "run_pipeline")

_VERBS = ("fit", "generate", "curate")
_REFERENCE = re.compile(r"\{(\w+)\}")


class Stage(NamedTuple):
    """One verb of a pipeline."""

    name: str
    verb: str
    config: Path
    flags: Mapping[str, Any]

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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = content["stages"]
        stages = [
            Stage(str(r["name"]), str(r["verb"]), Path(r["config"]), dict(r.get("flags") or {}))
            for r in rows
        ]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a pipeline ({' '.join(str(error).split())}): expected stages, each with name, verb, config"
            " and flags."
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
            raise ConfigError(
                f"{path}: the stage {stage.name!r} reads {unknown[0]!r}, which is no earlier stage."
            )
        known.append(stage.name)
    if not stages:
        raise ConfigError(f"{path} has no stages.")
    return stages


def content_hash(folder: Path) -> str:
    """Return a hash of what a stage hands on: a model's or a dataset's files, not logs, times and checkpoints."""
    digest = hashlib.sha256()
    handed_on = (".safetensors", ".arrow", "config.json", "tokenizer.json", "curated.jsonl")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name.endswith(handed_on) and "checkpoints" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


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
        identity = {
            "verb": stage.verb,
            "config": yaml.safe_load(stage.config.read_text(encoding="utf-8")),
            "flags": {k: str(v) for k, v in stage.flags.items()},
            "reads": {n: contents[n] for n in stage.reads},
            "extra": list(extra_flags) if stage.verb == "fit" else [],
        }
        name = f"{stage.name}-{fingerprint(identity)}"
        folder = out / name / "latest" if stage.verb == "fit" else out / name
        record = out / f"{name}.json"
        done = (
            record.is_file()
            and folder.exists()
            and read_json(record)["content"] == content_hash(folder.resolve())
        )
        state = "done" if done else "running"
        print(
            f"[{number}/{len(stages)}] {stage.name}: {state}, {folder}", file=sys.stderr, flush=True
        )
        if not done:
            _run(stage, out, name, folders, extra_flags)
            write_json(record, identity | {"content": content_hash(folder.resolve())})
        folders[stage.name] = folder
        contents[stage.name] = read_json(record)["content"]
    return folders


def _run(
    stage: Stage, out: Path, name: str, folders: Mapping[str, Path], extra_flags: Sequence[str]
) -> None:
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
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    }
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise SurefootError(
            f"the stage {stage.name!r} ended with code {code}; the same command again goes on from here."
        )
