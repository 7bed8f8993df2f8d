"""Kills, full disks and damage cost no checkpoint; finished means that the method did what its settings say."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit, tiny
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main
from surefoot.cli.checkpoints import recover
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.storage import files
from surefoot.storage.files import partial_path, remove_partials, replacing, write_text

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_takes_a_place_is_whole_or_not_there(tmp_path: Path) -> None:
    path, keep = tmp_path / "a.txt", tmp_path / "before.txt"
    for text in ("one", "two", "three"):
        with replacing(path, keep) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
    assert (path.read_text(), keep.read_text()) == ("three", "two")
    with pytest.raises(IsADirectoryError), replacing(path) as partial:
        (partial.mkdir(), partial.write_text("half"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "before.txt"]
    assert path.read_text() == "three"


def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """Colleagues read a run's weights where the umask lets them."""
    before = os.umask(0o027)
    try:
        TinyLanguageModel(width=16, n_layers=1, n_heads=2).save(tmp_path / "model")
        write_text(tmp_path / "model/note.txt", "x")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json", "note.txt"} < set(modes)
    assert set(modes.values()) == {0o640}


def test_folders_take_places_too(tmp_path: Path) -> None:
    path, keep = tmp_path / "a", tmp_path / "before"
    for text in ("one", "two", "three"):
        with replacing(path, keep) as partial:
            partial.mkdir()
            (partial / "x").write_text(text)
    assert ((path / "x").read_text(), (keep / "x").read_text()) == ("three", "two")
    with replacing(path) as partial:
        partial.write_text("a file")
    assert path.read_text() == "a file"


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    partial_path(tmp_path / "a.ckpt").write_text("half")
    partial_path(tmp_path / "b.ckpt").mkdir()
    (tmp_path / "whole.ckpt").write_text("x")
    remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["whole.ckpt"]
    remove_partials(tmp_path / "nowhere")


@contextlib.contextmanager
def disk_with(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the system's own error, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_leaves_the_old_text_and_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")
    with disk_with(100), pytest.raises(OSError, match="File too large") as failed:
        write_text(path, "new" * 1000)
    assert failed.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def command(tmp_path: Path, name: str = "tiny") -> list[str]:
    return [
        "fit",
        "--config",
        str(tmp_path / f"{name}.yaml"),
        "--runs_root",
        str(tmp_path / "runs"),
    ]


def test_the_one_before_is_kept_and_a_damaged_one_falls_back_to_it(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eighteen steps, a checkpoint every fifth: the last one holds the final state all the same."""
    every = ("--checkpoint_every_n_steps", "5")
    before = set(Path(tempfile.gettempdir()).iterdir())
    run = fit(tiny(), *every)
    left = {p.name for p in set(Path(tempfile.gettempdir()).iterdir()) - before}
    assert not {n for n in left if n.startswith("tmp")}, "nothing is left in the system's folder"
    folder = run / "checkpoints"
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert (step(previous), step(last)) == (15, 18)
    final = torch.load(last, weights_only=True)["state_dict"]
    whole = last.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:1000], b"", whole[:middle] + b"\0" * 64 + whole[middle + 64 :], None):
        (run / "finished.json").unlink()
        if damaged is None:
            last.unlink()
        else:
            last.write_bytes(damaged)
        partial_path(last).write_text("half of one")
        with caplog.at_level("INFO"):
            main([*command(tmp_path), *every])
        assert "going on from the one before it, of optimizer step 15" in caplog.text
        caplog.clear()
        assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]
        assert (step(previous), step(last)) == (15, 18)
        for name, value in torch.load(last, weights_only=True)["state_dict"].items():
            assert value.equal(final[name]), name
    (run / "finished.json").unlink()
    for path in (last, previous):
        path.write_bytes(path.read_bytes()[:2000])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*command(tmp_path), *every])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "last.ckpt cannot be read" in line
    assert "--fresh true" in line


def test_a_full_disk_leaves_the_good_checkpoint_and_is_named(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny(), "--trainer.max_steps", "12")
    last = run / "checkpoints/last.ckpt"
    whole, size = last.read_bytes(), last.stat().st_size
    (run / "finished.json").unlink()
    arguments = [*command(tmp_path), "--trainer.max_steps", "12"]
    main(arguments)  # resumes and is finished at once
    (run / "finished.json").unlink()
    fresh = [*command(tmp_path), "--ckpt_path", str(last), "--trainer.max_epochs", "3"]
    with disk_with(size // 2), pytest.raises(SystemExit) as stop:
        main([*fresh, "--experiment", "full"])
    assert stop.value.code == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert "full/0/checkpoints/last.ckpt" in errors[-1]
    assert not list((tmp_path / "runs/full/0/checkpoints").iterdir())
    assert last.read_bytes() == whole


class Killed(BaseException):
    """Stands for the end of the process, after which nothing is cleaned up."""


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_fall_back_that_is_cut_off_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    torch.save({"global_step": 3}, tmp_path / "previous.ckpt")
    whole = (tmp_path / "previous.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[:300])

    def cut(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, call, cut)
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(Killed):
            recover(tmp_path)
    remove_partials(tmp_path)  # as the next start does
    found = recover(tmp_path)
    assert found is not None
    assert found.read_bytes() == whole


#: Kills its own process in the middle of writing the second checkpoint.
KILLED = """
import os, signal, sys
from surefoot.cli import checkpoints, main
write, saves = checkpoints._Watched.write, []
io = checkpoints.DurableCheckpointIO
save = io.save_checkpoint

def counted(self, *arguments, **named):
    saves.append(0)
    save(self, *arguments, **named)

def killed(self, data):
    if len(saves) == 2 and self.file.tell() > 20_000:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, data)

io.save_checkpoint, checkpoints._Watched.write = counted, killed
main(sys.argv[1:])
"""


def test_a_kill_in_the_middle_of_a_write_costs_no_checkpoint(fit: Fit, tmp_path: Path) -> None:
    whole = fit(tiny(), name="whole")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny()))
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, *command(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    folder = tmp_path / "runs/tiny/0/checkpoints"
    assert partial_path(folder / "last.ckpt").stat().st_size > 20_000
    assert step(folder / "last.ckpt") == 9
    main(command(tmp_path))
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]
    expected, found = (
        torch.load(f / "last.ckpt", weights_only=True)["state_dict"] for f in (whole / "checkpoints", folder)
    )
    for name, value in expected.items():
        assert value.equal(found[name]), name


def line_of_unfinished(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[str, Path]:
    """Run a fit that ends without having done what it should; returns its error and its folder."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stop:
        main([*command(tmp_path), *flags])
    assert stop.value.code == 2
    run = (tmp_path / "runs/tiny/latest").resolve()
    assert not (run / "finished.json").exists()
    return capsys.readouterr().err.strip().splitlines()[-1], run


def test_jtt_without_its_second_stage_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("JTT", identification_epochs=2)
    config["trainer"]["max_epochs"] = 4
    line, _ = line_of_unfinished(config, tmp_path, capsys, "--trainer.max_steps", "18")
    assert "trainer.max_steps is 18 and must exceed 18, the steps of identification_epochs, 2" in line
    stopping = {"monitor": "val/accuracy", "stopping_threshold": 0.0, "mode": "max"}
    config["trainer"]["callbacks"].append({"class_path": "EarlyStopping", "init_args": stopping})
    line, run = line_of_unfinished(config, tmp_path, capsys)
    assert "is not finished: the final model was not trained: training ended after 1 epochs" in line
    record = json.loads((run / "unfinished.json").read_text())
    assert record["steps"] == 9
    assert record["missing"] in line


#: An adversary that starts after two epochs of ERM
SLOW_START = {"class_path": "SoftUpdate", "init_args": {"warmup_epochs": 2}}


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        (tiny(), ("--trainer.max_epochs", "0"), "no optimizer step was taken"),
        (tiny(), ("--trainer.limit_train_batches", "0"), "no optimizer step was taken"),
        (tiny("BRDRO", update=SLOW_START), (), "must exceed update.init_args.warmup_epochs, 2"),
        (
            tiny("ERM", loss={"class_path": "GaussianNLL", "init_args": {"warmup_epochs": 2}}),
            ("--trainer.callbacks", "[]"),
            "must exceed loss.init_args.warmup_epochs, 2",
        ),
        (
            tiny_reasoning("SFT", max_sequence_tokens=1, engine=None),
            (),
            "every example has more tokens than max_sequence_tokens",
        ),
        (
            tiny_reasoning(
                "RFT",
                grader={"class_path": "surefoot.reasoning.answers.Grader", "init_args": {"rule": "boxed"}},
            ),
            ("--trainer.max_epochs", "1"),
            "no sampled completion was correct",
        ),
    ],
    ids=["no-epoch", "no-batch", "BRDRO", "GaussianNLL", "SFT", "RFT"],
)
def test_a_run_that_did_less_than_its_settings_say_is_not_finished(
    config: dict[str, Any],
    flags: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, _ = line_of_unfinished(config, tmp_path, capsys, *flags)
    assert expected in line


def test_a_new_attempt_takes_the_note_away(fit: Fit) -> None:
    run = fit(tiny())
    (run / "finished.json").rename(run / "unfinished.json")
    fit(tiny())
    assert (run / "finished.json").exists()
    assert not (run / "unfinished.json").exists()


def test_nothing_is_flushed_by_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and, after the rename, its folder are flushed to the disk."""
    flushed: list[str] = []
    original = files.sync_entry
    monkeypatch.setattr(files, "sync_entry", lambda p: (flushed.append(p.name), original(p))[1])
    write_text(tmp_path / "x", "text")
    assert flushed == [".x.part", tmp_path.name]
