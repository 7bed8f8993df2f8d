"""A full disk is reported once, in one line, by tensorboard's thread; errors of other threads keep their traceback."""

import threading
from pathlib import Path

import pytest

from surefoot.compatibility.tensorboard import quiet_writer


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    before = threading.excepthook
    with Path("/dev/full").open("wb", buffering=0) as full, quiet_writer():
        writer = SummaryWriter(str(tmp_path), flush_secs=1)
        assert writer.file_writer is not None
        thread = writer.file_writer.event_writer._async_writer._worker  # tensorboard reports it nowhere else
        thread._record_writer._writer.close()
        thread._record_writer._writer = full
        writer.add_scalar("loss", 1.0, 0)
        thread.join(20)
        with pytest.raises(OSError, match="No space left"):  # which ends the run
            writer.add_scalar("loss", 1.0, 1)
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("surefoot: note: tensorboard's file cannot be written: [Errno 28]")
    assert threading.excepthook is before


def test_other_threads_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(failure.exc_value))
    with quiet_writer():
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    assert [type(error) for error in seen] == [ZeroDivisionError]
