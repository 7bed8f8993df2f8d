"""A run that is asked to end stops after its step with a checkpoint, says so, and never exits with 0."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit, tiny

import lightning_modules
from surefoot.cli import interruption, main
from surefoot.cli.interruption import Interrupted, interruptible, postpone

pytestmark = pytest.mark.filterwarnings("ignore")


def send_at(step: int, signum: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal in the middle of a training step, once."""
    sent = []

    def send(self: Any, batch: Any, batch_idx: int) -> None:
        if self.global_step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(lightning_modules.ResumableModule, "on_train_batch_start", send)


def last(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return loaded


@pytest.mark.parametrize(
    ("signum", "step", "saved"),
    [
        (signal.SIGTERM, 12, 13),
        (signal.SIGHUP, 3, 4),
        (signal.SIGINT, 8, 9),  # the last step of an epoch: its end comes first
    ],
)
def test_it_stops_after_the_step_and_the_same_command_ends_in_the_same_weights(
    signum: signal.Signals,
    step: int,
    saved: int,
    fit: Fit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    caplog.set_level(logging.INFO)
    before = signal.getsignal(signum)
    whole = fit(tiny("ERM"), name="whole")
    send_at(step, signum, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        fit(tiny("ERM"), name="stopped")
    error = capsys.readouterr().err
    assert stop.value.code == 128 + signum
    assert f"surefoot: interrupted ({signum.name}), the same command resumes" in error
    assert "Traceback" not in error
    assert "weights_only" not in caplog.text, "a line of Lightning's about saving"
    run = tmp_path / "runs/stopped/0"
    assert last(run)["global_step"] == saved
    assert not (run / "finished.json").exists()
    assert not (run / "manifest.json").exists()
    assert signal.getsignal(signum) == before, "handlers are put back"
    assert fit(tiny("ERM"), name="stopped") == run
    assert (run / "finished.json").is_file()
    found, expected = last(run)["state_dict"], last(whole)["state_dict"]
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_dfr_keeps_what_its_epoch_has_collected(fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tiny("DFR")
    del settings["model"]["init_args"]["optimizer"]
    settings["model"]["init_args"] |= {"n_subsets": 1}
    settings["trainer"]["max_epochs"] = 1
    settings["data"]["init_args"] |= {"training": {"split": "val"}, "batch_size": 32}
    whole = fit(settings, name="whole")
    sent = []

    def send(self: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2 and not sent:
            sent.append(batch_idx)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(lightning_modules.ResumableModule, "on_train_batch_start", send)
    with pytest.raises(SystemExit) as stop:
        fit(settings, name="stopped")
    assert stop.value.code == 143
    run = fit(settings, name="stopped")
    a, b = ((r / "weights.safetensors").read_bytes() for r in (whole, run))
    assert a == b


def test_an_ignored_signal_stays_ignored(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        send_at(3, signal.SIGHUP, monkeypatch)
        assert (fit(tiny("ERM")) / "finished.json").is_file()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_killed_between_its_last_checkpoint_and_its_end_still_hands_on_its_weights(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning skips the end of training where no step is left."""
    from surefoot.cli.recorder import RunRecorder

    def killed(self: Any, trainer: Any, pl_module: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "on_train_end", killed)
        with pytest.raises(SystemExit):
            fit(tiny("ERM"))
    run = fit(tiny("ERM"))
    assert (run / "finished.json").is_file()
    assert (run / "weights.safetensors").is_file()


def interrupted(what: Callable[[], None]) -> Interrupted:
    """Return the exception that ends what sends itself a signal."""

    def run() -> None:
        with interruptible():
            what()

    with pytest.raises(Interrupted) as stop:
        run()
    return stop.value


def test_outside_of_training_it_stops_at_once() -> None:
    def send() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    assert interrupted(send).code == 143


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that lasts is stopped in the middle; a signal that comes twice at once counts once."""
    monkeypatch.setattr(interruption, "PATIENCE_SECONDS", 1.2)
    went_on = []

    def send() -> None:
        postpone(True)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        went_on.append(True)
        while True:
            signal.pause()

    assert interrupted(send).code == 143
    assert went_on


def test_a_signal_that_comes_when_nothing_is_left_to_stop_is_not_forgotten() -> None:
    def send() -> None:
        postpone(True)
        os.kill(os.getpid(), signal.SIGTERM)

    assert interrupted(send).code == 143


@pytest.mark.parametrize(("verb", "resumes"), [("test", False), ("report", False), ("generate", True)])
def test_other_verbs_end_alike(
    verb: str, resumes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from surefoot import cli

    def run(arguments: list[str]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cli, "find_verb", lambda name: run)
    with pytest.raises(SystemExit) as stop:
        main([verb])
    error = capsys.readouterr().err
    assert stop.value.code == 130
    assert error.startswith("surefoot: interrupted (SIGINT)")
    assert ("the same command resumes" in error) == resumes


def test_fresh_is_left_out_of_the_advice(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_at(1, signal.SIGTERM, monkeypatch)
    with pytest.raises(SystemExit):
        fit(tiny("ERM"), "--fresh", "true")
    assert "the same command without --fresh resumes" in capsys.readouterr().err
