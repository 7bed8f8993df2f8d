"""A name stands for what it holds: other content is another run, another dataset, another stage."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit, from_weights, tiny
from safetensors.torch import save_file

from surefoot.storage.contents import content_of, differing_contents, named_contents

pytestmark = pytest.mark.filterwarnings("ignore")


def tensors(changed: float = 0.0) -> dict[str, torch.Tensor]:
    weights = {f"layer.{i}": torch.arange(40_000.0).view(200, 200) for i in range(30)}
    weights["layer.17"][100, :] += changed
    return weights


def test_weights_are_told_apart_by_one_row_and_not_by_name_or_time(tmp_path: Path) -> None:
    for folder, changed in (("a", 0.0), ("b", 0.0), ("c", 1e-2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
        save_file(tensors(changed), tmp_path / folder / "model.safetensors")
        torch.save({"state_dict": tensors(changed), "seconds": time.time()}, tmp_path / f"{folder}.ckpt")
    os.utime(tmp_path / "a" / "model.safetensors", (1, 1))
    for name in ("", "/model.safetensors"):
        a, b, c = (content_of(Path(f"{tmp_path}/{x}{name}")) for x in "abc")
        assert a == b
        assert a != c
    a, b, c = (content_of(tmp_path / f"{x}.ckpt") for x in "abc")
    assert a == b, "times in a checkpoint do not count"
    assert a != c
    (tmp_path / "b" / "config.json").write_text('{"rope_theta": 1}')
    assert content_of(tmp_path / "b") != content_of(tmp_path / "a")


@pytest.mark.parametrize("place", [0, 10_000, 383_999])
def test_files_up_to_384_kib_are_read_whole(place: int, tmp_path: Path) -> None:
    data = bytearray(384_000)
    (tmp_path / "x.csv").write_bytes(data)
    before = content_of(tmp_path)
    data[place] = 1
    (tmp_path / "x.csv").write_bytes(data)
    assert content_of(tmp_path) != before


def test_large_files_and_folders_take_milliseconds(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:  # sparse: 300 tensors, 8 GB
        import json

        spans = {
            f"layers.{i}": {
                "dtype": "F32",
                "shape": [7_000_000],
                "data_offsets": [i * 28_000_000, (i + 1) * 28_000_000],
            }
            for i in range(300)
        }
        header = json.dumps(spans).encode()
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 300 * 28_000_000)
    with (tmp_path / "train.jsonl").open("wb") as file:
        file.truncate(3 * 2**30)
    began = time.perf_counter()
    first = content_of(tmp_path)
    assert time.perf_counter() - began < 0.1
    with (tmp_path / "train.jsonl").open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"x")
    assert content_of(tmp_path) != first


def test_which_settings_name_a_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("val", "data", "model", "out", "runs"):
        Path(name).mkdir()
        Path(name, "x.txt").write_text(name)
    Path("model/config.json").write_text("{}")
    Path("list.txt").write_text("1")
    settings: dict[str, Any] = {
        "model": {"class_path": "list.txt", "init_args": {"name": "model", "exchange": "./out"}},
        "data": {
            "split": "val",
            "root": Path("data"),
            "files": ["list.txt", "./val", "a/b\0"],
            "n": 3,
            "no": None,
        },
        "other": {"root": "./data", "download": True, "question": "How/why?" * 1000},
        "here": "./",
    }
    found = named_contents(settings, [Path("runs").resolve()])
    assert set(found) == {
        "model.init_args.name",
        "data.root",
        "data.files.0",
        "data.files.1",
        "here",
    }
    Path("runs/x.txt").write_text("another log")
    Path("data/x.txt").write_text("other")
    changed = named_contents(settings, [Path("runs").resolve()])
    assert differing_contents(found, changed) == ["data.root", "here"]
    assert differing_contents(found, {"model.init_args.name": "?", "new": "x"}) == ["model.init_args.name"]


def test_operators_and_separators_name_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of all files exists under such names on every machine."""
    monkeypatch.setattr("surefoot.storage.contents.content_of", lambda *a: pytest.fail(f"{a[0]} was read"))
    assert named_contents({"data": {"operators": "/", "separator": "//", "others": ["///", "+-*/", ""]}}) == {}


def test_a_hub_name_is_the_commit_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert named_contents({"name": "some/model"}) == {}
    for text in ("some/of--these", "runs/..", "a/-1", "x.git", "other/one."):
        assert named_contents({"name": text}) == {}, "a text that no name on the hub can be"
    for commit in ("1" * 40, "2" * 40):
        (tmp_path / f"models--gpt2/snapshots/{commit}").mkdir(parents=True)
        (tmp_path / f"models--gpt2/snapshots/{commit}/config.json").write_text("{}")
        (tmp_path / "models--gpt2/refs").mkdir(exist_ok=True)
        (tmp_path / "models--gpt2/refs/main").write_text(commit)
        assert named_contents({"name": "gpt2"}) == {"name": f"commit {commit}"}
    for commit in ("1" * 40, "2" * 40):
        repository = tmp_path / "models--some--model"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs/main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        assert named_contents({"name": "some/model"}) == {"name": f"commit {commit}"}


def test_a_run_goes_on_only_from_the_same_content(fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The network that DFR starts from is named by a path, and trained anew in between."""
    settings = from_weights(tiny("DFR", n_subsets=1), tmp_path / "start")
    settings["trainer"]["max_epochs"] = 1
    del settings["model"]["init_args"]["optimizer"]
    settings["data"]["init_args"]["training"] = {"split": "val"}

    def start(seed: int) -> None:
        torch.manual_seed(seed)
        from surefoot.classification.networks import MLP, Classifier

        (tmp_path / "start").mkdir(exist_ok=True)
        save_file(Classifier(MLP(192, (8,)), 2).state_dict(), tmp_path / "start/weights.safetensors")

    start(1)
    first = fit(settings)
    assert fit(settings) == first
    assert "already finished" in caplog.text
    start(2)
    second = fit(settings)
    assert second != first
    assert "model.init_args.encoder.init_args.weights holds something else than for" in caplog.text
    start(1)
    fit(settings)
    assert f"already finished: {tmp_path}/runs/tiny/0" in caplog.text


def test_training_goes_on_from_a_checkpoint_only_beside_the_model_that_it_began_with(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The KL divergence's reference is read again from the folder."""
    from tiny_reasoning import tiny_reasoning

    from surefoot.reasoning.language_models import TinyLanguageModel

    def save(seed: int) -> None:
        TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128, seed=seed).save(tmp_path / "model")

    settings = tiny_reasoning("GRPO", loss={"kl_coefficient": 0.1})
    settings["model"]["init_args"]["language_model"] = {
        "class_path": "PretrainedLanguageModel",
        "init_args": {"name": str(tmp_path / "model")},
    }
    settings["trainer"] |= {"max_steps": 1, "callbacks": [], "limit_val_batches": 0}
    save(1)
    run = fit(settings)
    assert (run / "model/model.safetensors").is_file(), "written without a ModelExporter, too"
    onwards = ("--ckpt_path", str(run / "checkpoints/last.ckpt"), "--trainer.max_steps", "2")
    save(2)
    with pytest.raises(SystemExit):
        fit(settings, *onwards)
    assert "language_model.init_args.name names has changed since" in capsys.readouterr().err
    assert fit(settings) != run, "and the same settings are another run"
    save(1)
    assert fit(settings, *onwards).parent == run.parent
