"""Whatever goes wrong on the command line ends in one line that says what to mend."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit, tiny

from surefoot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that has to fail; returns its one line of error."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("surefoot: error:")]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    return errors[0]


def test_errors_that_cause_each_other_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen when a run folder is deleted while fitting: each error is the other's context."""
    from surefoot import cli
    from surefoot.errors import DataError

    def fail(arguments: list[str]) -> None:
        first, second = KeyError("first"), OSError("second")
        first.__context__, second.__context__ = second, first
        raise first

    monkeypatch.setattr(cli, "find_verb", lambda name: fail)
    with pytest.raises(KeyError, match="first"):
        main(["fit"])

    def fail_with_remedy(arguments: list[str]) -> None:
        first, second, third = KeyError("first"), DataError("mend it"), OSError("third")
        first.__context__, second.__cause__, third.__cause__ = second, third, first
        raise first

    monkeypatch.setattr(cli, "find_verb", lambda name: fail_with_remedy)
    with pytest.raises(SystemExit) as stop:
        main(["fit"])
    assert stop.value.code == 2


# Trap 4: facts travel at parse time, show in the config, and are checked against what is given.
def test_facts_of_the_data_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "x.yaml"
    config.write_text(yaml.safe_dump(tiny("GroupDRO", n_groups=7)))
    line = error_of(["fit", "--config", str(config), "--runs_root", str(tmp_path / "runs")], capsys)
    assert "model.init_args.n_groups is 7 but the data has 4" in line


def deep_setting(rate: object) -> dict[str, Any]:
    """Return a model whose optimizer has this learning rate."""
    model: dict[str, Any] = tiny()["model"]
    model["init_args"]["optimizer"]["init_args"]["lr"] = rate
    return model


# Trap 6: what is wrong in a config is found before anything is built.
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modle": {"a": 1}}, "modle"),
        ({"model": {"class_path": "ERMM"}}, "no class of this name is known: ERMM"),
        ({"trainer": {"max_epochs": "many"}}, 'trainer.max_epochs": expected int; got many'),
        ({"data": {"class_path": "DigitsDataModule", "init_args": {"minority": 0.1}}}, "minority"),
        (
            {"data": {"class_path": "DigitsDataModule", "init_args": {"confounding": {"minority_fraction": 3}}}},
            "minority_fraction must be in [0, 1], got 3",
        ),
        ({"model": None}, "required: fit.model"),
        ({"model": deep_setting("abc")}, 'error: Parser key "model.optimizer.lr": expected float; got abc'),
        ({"model": deep_setting([1])}, 'error: Parser key "model.optimizer.lr": expected float; got [1]'),
        ({"model": deep_setting(float("nan"))}, "Invalid learning rate: nan"),
        ({"seed_everything": -1}, "seed_everything must be in [0, 4294967295], got -1"),
        ({"seed_everything": 2**32}, "seed_everything must be in [0, 4294967295], got 4294967296"),
        ({"runs_root": ""}, "runs_root is empty"),
    ],
    ids=[
        *("section", "class", "type", "key", "value", "nothing", "rate", "list", "nan", "seed", "large seed"),
        "no folder",
    ],
)
def test_bad_configs_end_in_one_line(
    change: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump({"runs_root": str(tmp_path / "runs")} | tiny() | change))
    line = error_of(["fit", "--config", str(config), "--experiment", "bad"], capsys)
    assert expected in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fitt"], "no verb 'fitt'; there are fit"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["reproduce", "no_paper"], "no paper 'no_paper'; there are br_dro, "),
        (["reproduce", "br_dro", "--seeds", "0"], "--seeds must be at least 1"),
        (["report", "no_such_folder"], "no_such_folder is not a folder"),
        (["test"], "or --ckpt_path of a Surefoot run"),
        (["fit", "--config", "x.yaml", "--runs_root", ""], "--runs_root got an empty text"),
        (["test", "--ckpt_path="], "--ckpt_path got an empty text"),
        (["report", ""], "report got an empty text"),
    ],
)
def test_wrong_commands_end_in_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in error_of(arguments, capsys)


def test_broken_yaml_and_damaged_checkpoints_end_in_one_line(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("trainer: {max_epochs: 2\nmodel: [")
    assert "broken.yaml" in error_of(["fit", "--config", str(broken)], capsys)
    run = fit(tiny())
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    (run / "finished.json").unlink()
    (run / "checkpoints/previous.ckpt").unlink()
    capsys.readouterr()
    line = error_of(
        ["fit", "--config", str(tmp_path / "tiny.yaml"), "--runs_root", str(tmp_path / "runs")],
        capsys,
    )
    assert "last.ckpt cannot be read" in line
    assert "last.ckpt cannot be read" in error_of(["test", "--ckpt_path", str(last)], capsys)


class Payload:
    """What an attacker would put into a checkpoint."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["PAYLOAD"],))


def test_checkpoints_are_never_unpickled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "executed"
    monkeypatch.setenv("PAYLOAD", str(target))
    torch.save({"state_dict": {}, "evil": Payload()}, tmp_path / "evil.ckpt")
    error_of(["test", "--ckpt_path", str(tmp_path / "evil.ckpt")], capsys)
    assert not target.exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from surefoot.errors import SurefootError

    with pytest.raises(SurefootError):
        main(["--debug", "fitt"])


def test_missing_data_names_layout_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny() | {
        "data": {
            "class_path": "GroupFolderDataModule",
            "init_args": {"root": str(tmp_path / "none")},
        }
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    line = error_of(["fit", "--config", str(tmp_path / "x.yaml"), "--runs_root", str(tmp_path / "runs")], capsys)
    assert "none/metadata.csv is missing. Expected layout" in line


def test_an_error_in_a_loading_process_ends_in_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_datasets import write

    (write("waterbirds", tmp_path) / "2.png").write_bytes(b"no image")
    config = tiny()
    config["model"]["init_args"]["encoder"] = {
        "class_path": "SmallCNN",
        "init_args": {"widths": [4]},
    }
    config["data"] = {
        "class_path": "WILDSDataModule",
        "init_args": {
            "dataset": "waterbirds",
            "root": str(tmp_path),
            "image_size": 8,
            "num_workers": 1,
            "batch_size": 4,
        },
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    line = error_of(["fit", "--config", str(tmp_path / "x.yaml"), "--runs_root", str(tmp_path / "runs")], capsys)
    assert line.startswith("surefoot: error: example 2 of waterbirds cannot be read")


def test_a_full_disk_ends_in_one_line(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from surefoot.cli import recorder

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/disk")

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny()))
    monkeypatch.setattr(recorder, "write_json", full)
    line = error_of(
        ["fit", "--config", str(tmp_path / "tiny.yaml"), "--runs_root", str(tmp_path / "runs")],
        capsys,
    )
    assert line == "surefoot: error: No space left on device: /full/disk"
