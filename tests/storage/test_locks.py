"""A folder is held by living processes only, whatever a file that was left behind says."""

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Fit, tiny

from surefoot.cli import main
from surefoot.errors import SurefootError
from surefoot.runs import await_run, list_runs, open_run
from surefoot.storage import locks
from surefoot.storage.json_files import read_json, write_json
from surefoot.storage.locks import LOCK_FILE, hold

pytestmark = pytest.mark.filterwarnings("ignore")

HOLDER = """
import sys, time
from pathlib import Path
from surefoot.storage.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a folder in another process, until it is killed."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def left_behind(folder: Path, **content: Any) -> Path:
    path = folder / LOCK_FILE
    path.write_text(json.dumps(content))
    return path


def test_a_living_holder_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        said = json.loads((tmp_path / LOCK_FILE).read_text())
        assert (said["pid"], said["host"]) == (process.pid, platform.node())
        assert said["process_start"]
        expected = f"written by process {process.pid} on {platform.node()}, since .*: wait for it or not"
        with pytest.raises(SurefootError, match=expected), hold(tmp_path, " or not"):
            pass
        assert json.loads((tmp_path / LOCK_FILE).read_text()) == said
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with hold(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_stopped_holder_still_holds(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(SurefootError, match=f"process {process.pid}"), hold(tmp_path):
            pass


def test_this_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    with hold(tmp_path):
        with pytest.raises(SurefootError, match=f"process {os.getpid()} on"), hold(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("pid", ["mine", 1, "parent", None], ids=str)
def test_a_file_that_was_left_behind_never_blocks(tmp_path: Path, pid: Any) -> None:
    """The same number after a reboot, process 1 of a container, a process that lives, or a damaged file."""
    number = {"mine": os.getpid(), "parent": os.getppid()}.get(pid, pid)
    if pid is None:
        (tmp_path / LOCK_FILE).write_text('{"pid": 12')
    else:
        left_behind(tmp_path, pid=number, host=platform.node(), process_start="another boot:1")
    with hold(tmp_path):
        pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    with hold(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_another_hosts_holder_counts_until_its_signs_of_life_end(tmp_path: Path) -> None:
    path = left_behind(tmp_path, pid=7, host="elsewhere", since="noon")
    with (
        pytest.raises(SurefootError, match="process 7 on elsewhere, since noon; its last sign"),
        hold(tmp_path),
    ):
        pass
    assert json.loads(path.read_text())["pid"] == 7
    before = time.time() - locks.DEAD_AFTER - 1
    os.utime(path, (before, before))
    with hold(tmp_path):
        pass


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with hold(tmp_path):
        path = tmp_path / LOCK_FILE
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_without_locks_a_living_process_is_told_by_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def none(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    with (
        holder(tmp_path) as process,
        pytest.raises(SurefootError, match=f"process {process.pid}"),
        hold(tmp_path),
    ):
        pass
    left_behind(tmp_path, pid=os.getpid(), host=platform.node(), process_start="another boot:1")
    with hold(tmp_path):
        pass


def contents(folder: Path) -> dict[str, Any]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


def test_a_refused_fit_changes_nothing(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tiny())
    fit(tiny(), "--fresh", "true")
    (run.parent / "1/finished.json").unlink()
    (run.parent / "latest").unlink()
    (run.parent / "latest").symlink_to("0")
    arguments = [
        "fit",
        "--config",
        str(tmp_path / "tiny.yaml"),
        "--runs_root",
        str(tmp_path / "runs"),
    ]
    with holder(run.parent / "1") as process:
        before = contents(run.parent)
        assert "1/metrics.csv" in before
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"written by process {process.pid} on {platform.node()}" in line
        assert "--fresh true" in line
        assert contents(run.parent) == before
    main(arguments)  # its holder is dead: the run goes on
    assert (run.parent / "1/finished.json").is_file()
    assert (run.parent / "1/metrics.0.csv").is_file()
    assert not (run.parent / "1" / LOCK_FILE).exists()


def test_a_run_that_fails_lets_go_of_its_folder(tmp_path: Path) -> None:
    config = tiny()
    config["trainer"]["callbacks"] = [{"class_path": "ModelExporter"}]  # there is no language model
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(path), "--runs_root", str(tmp_path / "runs")])
    assert not (tmp_path / "runs/bad/0" / LOCK_FILE).exists()
    assert "SUREFOOT_RUN_FOLDER" not in os.environ


def test_ranks_find_the_run_of_their_own_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run of these settings, left by a dead process or held by another launch, is none of theirs."""
    settings = {"a": 1}
    stale, other, own = (open_run(tmp_path, "x", settings, fresh=True) for _ in range(3))
    with hold(own.path):
        record = read_json(own.path / "running.json")
        assert await_run(tmp_path, "x", settings, seconds=0.3).path == own.path
        for wrong in (
            {"time": record["time"] - 3600},
            {"launch": {"MASTER_PORT": "29501"}},
            {"process_start": "before the last boot"},
        ):
            write_json(stale.path / "running.json", record)
            write_json(own.path / "running.json", record | wrong)
            assert await_run(tmp_path, "x", settings, seconds=0.3).path == stale.path
        write_json(own.path / "running.json", record)
        (stale.path / "running.json").unlink()
        monkeypatch.setenv("MASTER_PORT", "29501")
        with pytest.raises(SurefootError, match="rank zero opened no run"):
            await_run(tmp_path, "x", settings, seconds=0.3)
        with hold(other.path):
            assert await_run(tmp_path, "x", settings, seconds=0.3).path == other.path


def test_first_starts_at_once_are_of_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from surefoot.runs import open_run;"
        "print(open_run(Path(sys.argv[1]), 'x', {'a': 1}).path.name)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in started] == ["0\n"] * 4


def test_a_kill_while_a_run_is_made_leaves_no_numbered_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from surefoot import runs;"
        "runs.write_json = lambda path, content: os.kill(os.getpid(), 9);"
        "runs.open_run(Path(sys.argv[1]), 'x', {'a': 1})"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert list_runs(tmp_path / "x") == []
    assert open_run(tmp_path, "x", {"a": 1}).path.name == "0"
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [".lock", "0"]
