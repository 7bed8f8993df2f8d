"""Predictions are refused that do not say of which examples they are, or leave some out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from surefoot.cli.predictions import PredictionWriter
from surefoot.errors import SurefootError

pytestmark = pytest.mark.filterwarnings("ignore")


class Fixed(LightningModule):
    """Predicts what it was given, batch by batch."""

    def __init__(self, batches: tuple[Any, ...]) -> None:
        super().__init__()
        self.batches = batches

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.batches[batch_idx]


def write(folder: Path, *batches: Any, n_examples: int = 3, limit: int = 1) -> None:
    """Predict with a loader of so many examples in one batch, or with a limit on its batches of one."""
    examples: Any = list(range(n_examples))
    loader = DataLoader(examples, batch_size=n_examples if limit == 1 else 1)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_predict_batches=1.0 if limit == 1 else limit,
        callbacks=[PredictionWriter(folder)],
    )
    trainer.predict(Fixed(batches), loader)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"probabilities": torch.ones(3, 2)}, "returned probabilities: expected a dict with index"),
        (torch.ones(3, 2), "returned a Tensor: expected"),
        ([{"text": "x"}], "returned rows of text: expected"),
        ({"index": torch.arange(3)}, "returned index: expected"),
        (None, "returned a NoneType: expected"),
    ],
    ids=["no-index", "tensor", "row-without-index", "nothing-but-index", "none"],
)
def test_predictions_of_unknown_examples_are_refused(outputs: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SurefootError, match=expected):
        write(tmp_path, outputs)
    assert not list(tmp_path.iterdir())


def test_missing_examples_are_refused_unless_a_limit_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"predictions": torch.tensor([1.0, 2.0]), "index": torch.tensor([2, 0])}
    with pytest.raises(SurefootError, match="2 examples were predicted of 3"):
        write(tmp_path, half)
    same = {"predictions": torch.ones(3), "index": torch.tensor([0, 0, 1])}
    with pytest.raises(SurefootError, match="2 examples were predicted of 3"):
        write(tmp_path, same)
    assert not list(tmp_path.iterdir())
    one, other = ({k: v[i : i + 1] for k, v in half.items()} for i in range(2))
    with caplog.at_level("INFO"):
        write(tmp_path, one, other, limit=2)
    said = caplog.text + capsys.readouterr().err
    assert f"2 predictions: {tmp_path / 'predictions.csv'}" in said
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines == ["index,prediction_0", "0,2.000000", "2,1.000000"]
