"""Processes and folders end with the process that made them: real process trees whose root is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from surefoot import processes
from surefoot.processes import (
    OwnedFolder,
    ProcessTree,
    end_process,
    remove_abandoned,
    run_to_the_end,
)

ROOT = Path(__file__).parents[1]
#: A child that starts a grandchild in a session of its own, as vLLM's server does; all ignore what can be ignored.
CHILD = """
import os, signal, subprocess, sys, time
for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(s, signal.SIG_IGN)
if sys.argv[1] == "child":
    command = [sys.executable, "-c", sys.argv[2], "grandchild", "", sys.argv[3]]
    process = subprocess.Popen(command, start_new_session=True)
with open(sys.argv[3], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(120)
"""
OWNER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from surefoot import processes
child, pids, memory, how = sys.argv[1:]
folder = processes.OwnedFolder("kept-", memory)
(folder.path / "model.safetensors").write_bytes(b"x" * 1000)
tree = processes.ProcessTree()
command = [sys.executable, "-c", child, "child", child, pids]
if how == "starting":
    with tree.starting():
        subprocess.Popen(command, start_new_session=True)
else:
    subprocess.Popen(command, env=tree.environment(), start_new_session=True)
while not Path(pids).exists() or len(Path(pids).read_text().split()) < 2:
    time.sleep(0.02)
print(processes._guardian[1].pid, flush=True)
if how == "end":
    sys.exit(0)
if how == "fork":  # a forked child of the owner holds the guardian's pipe open
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
time.sleep(120)
"""


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def start_owner(tmp_path: Path, how: str) -> tuple["subprocess.Popen[str]", int, list[int]]:
    """Return an owner, its guardian's pid, and the pids of its child and grandchild."""
    arguments = [CHILD, str(tmp_path / "pids"), str(tmp_path / "memory"), how]
    (tmp_path / "memory").mkdir(exist_ok=True)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    guardian = int(owner.stdout.readline())
    owner.stdout.close()
    return owner, guardian, [int(p) for p in (tmp_path / "pids").read_text().split()]


@pytest.mark.parametrize(
    ("how", "signum"),
    [
        ("popen", signal.SIGKILL),
        ("starting", signal.SIGTERM),
        ("popen", signal.SIGHUP),
        ("fork", signal.SIGKILL),
        ("end", None),
    ],
)
def test_nothing_outlives_its_owner(how: str, signum: int | None, tmp_path: Path) -> None:
    owner, guardian, pids = start_owner(tmp_path, how)
    if signum is not None:
        assert all(alive(p) for p in pids)
        assert len(list((tmp_path / "memory").iterdir())) == 2
        owner.send_signal(signum)
    assert owner.wait(10) == (-signum if signum else 0)
    seconds = 2.0 if how == "fork" else 5.0  # less than the forked child lives
    assert wait_until(lambda: not any(alive(p) for p in (*pids, guardian)), seconds)
    assert not list((tmp_path / "memory").iterdir())


def test_what_a_dead_guardian_could_not_remove_goes_with_the_next_start(tmp_path: Path) -> None:
    owner, guardian, pids = start_owner(tmp_path, "popen")
    os.kill(guardian, signal.SIGKILL)
    living = OwnedFolder("kept-", tmp_path / "memory")
    assert len(list((tmp_path / "memory").glob("kept-*/"))) == 2, "a living owner's folder stays"
    owner.kill()
    owner.wait(10)
    other = OwnedFolder("other-", tmp_path / "memory")
    assert len(list((tmp_path / "memory").glob("kept-*/"))) == 2, "another kind's folders stay"
    for folder in (OwnedFolder("kept-", tmp_path / "memory"), living, other):
        assert folder.path.is_dir()
        folder.remove()
    assert not list((tmp_path / "memory").iterdir())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_folder_without_a_lock_is_nobody_s_to_remove(tmp_path: Path) -> None:
    (tmp_path / "kept-mine").mkdir()
    remove_abandoned(tmp_path, "kept-")
    assert (tmp_path / "kept-mine").is_dir()


def test_a_tree_is_killed_whole_though_its_root_is_gone(tmp_path: Path) -> None:
    """As when the server of an engine was killed and its workers were not."""
    tree = ProcessTree()
    pids = tmp_path / "pids"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, "child", CHILD, str(pids)],
        env=tree.environment(),
        start_new_session=True,
    )
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 20)
    child, grandchild = sorted(int(p) for p in pids.read_text().split())
    process.kill()
    process.wait()
    assert alive(max(child, grandchild))
    end_process(process, tree, 1)
    assert wait_until(lambda: not alive(child) and not alive(grandchild))


def test_a_command_that_is_interrupted_is_asked_to_end_and_then_killed_with_its_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    wait = subprocess.Popen.wait

    def interrupt(self: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        if timeout is None and self.poll() is None and not killed:
            assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 20)
            killed.append(True)
            raise KeyboardInterrupt
        return wait(self, timeout)

    killed: list[bool] = []
    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    command = [sys.executable, "-c", CHILD, "child", CHILD, str(pids)]
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(command, os.environ, patience=0.3)
    assert wait_until(lambda: not any(alive(int(p)) for p in pids.read_text().split()))
    assert run_to_the_end([sys.executable, "-c", "raise SystemExit(7)"], os.environ) == 7


def test_only_what_is_started_meanwhile_belongs_to_a_tree() -> None:
    tree, before = ProcessTree(), dict(os.environ)
    with tree.starting():
        assert os.environ[processes.MARK]
    assert dict(os.environ) == before
    assert ProcessTree().environment()[processes.MARK] != tree.environment()[processes.MARK]


def test_a_process_that_follows_its_parent_dies_with_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from surefoot.processes import die_with_parent; die_with_parent();"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]);time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, child],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_until(lambda: not alive(pid))
