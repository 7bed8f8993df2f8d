"""What fit and test show: results and progress, and no line of Lightning's that is of no use."""

import logging
import warnings
from pathlib import Path

import pytest
from conftest import Fit, tiny
from lightning.pytorch import Trainer

from surefoot.cli import main
from surefoot.cli.result_lines import result_lines
from surefoot.compatibility.lightning import QuietProgressBar, log_short_runs, quiet_screen

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
NOISE = (
    *("💡", "litlogger", "litmodels", "TPU", "v_num", "oard", "dirpath", "LeafSpec"),
    *("Be aware", "Restoring", "many workers", "/-", "Loading `", "`Trainer(", "logging interval", "FLOPs"),
)


def test_every_line_is_of_use(
    fit: Fit, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines go to the logger that the screen reads; a schedule asks for the number of steps."""
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    config = tiny() | {"trainer": {**tiny()["trainer"], "enable_model_summary": True, "limit_val_batches": 1}}
    config["model"]["init_args"]["lr_scheduler"] = {"class_path": "torch.optim.lr_scheduler.ConstantLR"}
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        run = fit(config, "--trainer.enable_progress_bar", "true")
        main(
            [
                "test",
                *("--ckpt_path", str(run / "checkpoints/last.ckpt")),
                *("--runs_root", str(run.parents[1])),
            ]
        )
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("lightning.")]
    lines += [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
    printed = capsys.readouterr().out
    assert "Parameters" in printed
    assert "parameters are trained" in printed
    assert not [line for line in (*lines, *printed.splitlines()) if any(n in line for n in NOISE)]
    (end,) = [i for i, line in enumerate(lines) if line.startswith("finished: 2 epochs, 18 optim")]
    assert str(run) in lines[end]
    assert "val/worst_group_accuracy" in lines[end + 1]
    assert "val/accuracy" in lines[end + 1]


def test_training_without_an_optimizer_is_no_warning(fit: Fit) -> None:
    settings = tiny("DFR", n_subsets=1)
    del settings["model"]["init_args"]["optimizer"]
    settings["trainer"]["max_epochs"] = 1
    settings["data"]["init_args"]["training"] = {"split": "val"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fit(settings)
    assert not [w for w in warned if "configure_optimizers" in str(w.message)]


@pytest.mark.parametrize(
    ("epochs", "steps", "batches", "interval"), [(1, -1, 2, 2), (20, -1, 9, 50), (-1, 7, 9, 7), (-1, -1, 9, 50)]
)
def test_a_run_shorter_than_the_logging_interval_logs_its_last_step(
    epochs: int, steps: int, batches: int, interval: int
) -> None:
    trainer = Trainer(max_epochs=epochs, max_steps=steps, logger=False, enable_checkpointing=False)
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.fit_loop.max_batches = batches
    log_short_runs(trainer)
    assert trainer.log_every_n_steps == interval


def test_the_bar_shows_loss_and_accuracy_of_classifiers(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, object]] = []
    original = QuietProgressBar.get_metrics

    def remember(self: QuietProgressBar, *arguments: object) -> dict[str, object]:
        shown.append(original(self, *arguments))  # type: ignore[arg-type]
        return shown[-1]

    monkeypatch.setattr(QuietProgressBar, "get_metrics", remember)
    fit(tiny(), "--trainer.enable_progress_bar", "true")
    assert {"loss", "accuracy"} <= shown[-1].keys()
    assert not {"v_num"} & shown[-1].keys()


def test_an_endless_run_has_no_last_epoch() -> None:
    class Endless:
        max_epochs = -1

    bar = QuietProgressBar()
    bar._trainer = Endless()  # type: ignore[assignment]
    assert bar._get_train_description(3).strip() == "Epoch 3"
    Endless.max_epochs = 8
    assert bar._get_train_description(3).strip() == "Epoch 3/7"


def test_warnings_show_no_code_while_a_verb_runs() -> None:
    before, filters = warnings.formatwarning, list(warnings.filters)
    with quiet_screen():
        assert warnings.formatwarning("no answer", UserWarning, "a.py", 3, "x = 1") == "warning: no answer\n"
    assert (warnings.formatwarning, warnings.filters) == (before, filters)
    assert not logging.getLogger("lightning.pytorch.utilities.rank_zero").filters


def test_best_values_have_the_right_direction(tmp_path: Path) -> None:
    (tmp_path / "metrics.0.csv").write_text("val/accuracy,val/loss\n0.9,0.5\n")
    (tmp_path / "metrics.csv").write_text("val/accuracy,val/loss,val/x\n0.7,0.8,1\nnan,,3\n0.8,0.6,2\n")
    last = {"val/accuracy": 0.8, "val/loss": 0.6, "val/x": 2.0, "val/group_accuracy/a": 0.1}
    assert result_lines(tmp_path, 1, 7, last) == [
        f"finished: 1 epoch, 7 optimizer steps: {tmp_path}",
        "val/accuracy 0.8 (best 0.9), val/loss 0.6 (best 0.5), val/x 2",
    ]
    assert result_lines(tmp_path, 2, 7, {"train/loss": 0.25, "train/n": 3.0})[1] == "train/loss 0.25"
