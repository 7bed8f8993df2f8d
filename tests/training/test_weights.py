"""Files of others: code in a model's folder is not run, objects in a checkpoint are not unpickled."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.texts import TextPipeline
from surefoot.classification.pretrained_encoders import TransformersEncoder
from surefoot.errors import DataError, SurefootError
from surefoot.reasoning.language_models import PretrainedLanguageModel
from surefoot.training.weights import read_checkpoint


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of an unknown type whose own code leaves a trace, and a terminal on which the answer is yes."""
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": dict.fromkeys(classes, "code.Mine")})
    )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["code.Mine", None]}, "tokenizer_class": "Mine"})
    )
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    return tmp_path


@pytest.mark.parametrize(
    "load",
    [
        PretrainedLanguageModel,
        TransformersEncoder,
        lambda folder: TransformersEncoder(folder, pretrained=False),
        lambda folder: TextPipeline(folder, 8).tokenizer,
    ],
    ids=["language_model", "encoder", "config", "tokenizer"],
)
def test_code_in_a_models_folder_is_never_run(hostile_folder: Path, load: Callable[[str], Any]) -> None:
    with pytest.raises(DataError) as error:
        load(str(hostile_folder))
    assert not (hostile_folder / "trace").exists()
    assert "does not run" in str(error.value)
    assert "trust_remote_code" not in str(error.value)


class _Object:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize("write", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_is_refused_without_advice_to_load_it(
    tmp_path: Path, write: Callable[[Any, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write({"state_dict": _Object()}, tmp_path / "x.ckpt")
    with pytest.raises(SurefootError, match="not loaded") as error:
        read_checkpoint(tmp_path / "x.ckpt")
    assert "weights_only" not in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 and no more"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(SurefootError, match=r"x\.ckpt"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_missing_or_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match=r"nope\.ckpt cannot be read"):
        read_checkpoint(tmp_path / "nope.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(SurefootError, match="holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")
