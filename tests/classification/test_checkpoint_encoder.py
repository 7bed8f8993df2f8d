"""Weights that one fit hands to the next: from every file that holds them, and from no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from surefoot.classification import CheckpointEncoder
from surefoot.classification.checkpoint_encoder import training_settings
from surefoot.classification.networks import MLP, Classifier, Encoder
from surefoot.errors import DataError, SurefootError
from surefoot.storage.json_files import write_json
from surefoot.training.rebuilding import weights_follow


class Stacked(Encoder):
    """An encoder whose own part is called ``encoder``, as a `CheckpointEncoder`'s is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.n_features = torch.nn.Linear(3, 4), 4

    def forward(self, input: Tensor) -> Tensor:
        return self.encoder(input)  # type: ignore[no-any-return]


def mlp() -> Encoder:
    return MLP(3, (4,))


def as_run(folder: Path, state: dict[str, Tensor]) -> Path:
    (folder / "run").mkdir()
    save_file(state, folder / "run/weights.safetensors")
    return folder / "run"


def as_file(folder: Path, state: dict[str, Tensor]) -> Path:
    return as_run(folder, state) / "weights.safetensors"


def as_checkpoint(folder: Path, state: dict[str, Tensor]) -> Path:
    others = {"adversary.encoder.weight": torch.zeros(1), "biased.encoder.weight": torch.zeros(1)}
    torch.save({"state_dict": {f"network.{k}": v for k, v in state.items()} | others}, folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize("write", [as_run, as_file, as_checkpoint])
@pytest.mark.parametrize("make", [mlp, Stacked])
@pytest.mark.parametrize(("given", "wanted"), [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)], ids=str)
def test_weights_arrive_however_they_were_handed_over(
    write: Callable[[Path, dict[str, Tensor]], Path],
    make: Callable[[], Encoder],
    given: int,
    wanted: int,
    tmp_path: Path,
) -> None:
    """Given were trained within so many `CheckpointEncoder`s, and wanted are those of one within so many."""
    trained = wrapped = make()
    for _ in range(given):
        wrapped = CheckpointEncoder(wrapped, None)
    path = write(tmp_path, Classifier(wrapped, 2).state_dict())
    inner = make()
    encoder: Encoder = inner
    for _ in range(wanted):
        encoder = CheckpointEncoder(encoder, None)
    loaded = CheckpointEncoder(encoder, path)
    inputs = torch.randn(5, 3)
    assert not make()(inputs).equal(trained(inputs))
    assert loaded(inputs).equal(trained(inputs))
    assert loaded.n_features == 4
    assert all(v.equal(trained.state_dict()[k]) for k, v in inner.state_dict().items())


def test_no_file_is_read_where_a_checkpoint_brings_the_weights_or_none_is_given(tmp_path: Path) -> None:
    inner = mlp()
    before = {k: v.clone() for k, v in inner.state_dict().items()}
    CheckpointEncoder(inner, None)
    with weights_follow():
        CheckpointEncoder(inner, tmp_path / "gone")
    assert all(v.equal(before[k]) for k, v in inner.state_dict().items())
    with pytest.raises(DataError, match=r"gone is not a file: expected a run folder of a finished fit"):
        CheckpointEncoder(inner, tmp_path / "gone")


@pytest.mark.parametrize("write", [as_run, as_checkpoint])
@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (MLP(3, (5,)), r"do not fit MLP: layers.1.(bias|weight) has shape \(4,.*\) and must have \(5,.*\)"),
        (MLP(3, (4, 4)), "missing are 2 of them, such as layers.3.bias"),
        (Stacked(), "missing are 2 of them, such as encoder.bias and of another network are 2 of them, such as layers"),
    ],
)
def test_other_weights_are_refused_and_change_nothing(
    write: Callable[[Path, dict[str, Tensor]], Path], encoder: Encoder, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, Classifier(mlp(), 2).state_dict())
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(DataError, match=message) as error:
        CheckpointEncoder(encoder, path)
    assert "\n" not in str(error.value)
    assert all(v.equal(before[k]) for k, v in encoder.state_dict().items())


def test_files_without_a_network_are_refused(tmp_path: Path) -> None:
    value_head = as_run(tmp_path, {"value_head.weight": torch.zeros(1)})
    torch.save({"state_dict": {"language_model.weight": torch.zeros(1)}}, tmp_path / "lm.ckpt")
    torch.save({"epoch": 1}, tmp_path / "none.ckpt")
    for path in (value_head, tmp_path / "lm.ckpt", tmp_path / "none.ckpt"):
        with pytest.raises(DataError, match="holds no encoder's weights"):
            CheckpointEncoder(mlp(), path)
    (tmp_path / "run/weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(SurefootError, match=r"weights\.safetensors cannot be read") as error:
        CheckpointEncoder(mlp(), value_head)
    assert "\n" not in str(error.value)


def test_what_weights_were_trained_with(tmp_path: Path) -> None:
    state = Classifier(mlp(), 2).state_dict()
    run, settings = as_run(tmp_path, state), {"model": {"class_path": "ERM"}, "data": {"class_path": "Digits"}}
    assert training_settings(run) == {}
    write_json(run / "manifest.json", settings | {"files": {}})
    assert training_settings(run) == training_settings(run / "weights.safetensors") == settings
    checkpoint = as_checkpoint(tmp_path, state)
    assert training_settings(checkpoint) == {}
    torch.save({"state_dict": {}, "surefoot_settings": settings | {"trainer": {}}}, checkpoint)
    assert training_settings(checkpoint) == settings
