"""Predictions are refused that do not say of which examples they are, or leave some out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from surefoot.cli.predictions import PredictionWriter
from surefoot.errors import SurefootError


def write(folder: Path, *batches: Any, n_examples: int = 3, limit: float = 1.0) -> None:
    """Hand batches' outputs to a writer, as a loader of so many examples would."""
    loader = SimpleNamespace(dataset=range(n_examples))
    trainer: Any = SimpleNamespace(
        predict_dataloaders=loader,
        limit_predict_batches=limit,
        fast_dev_run=False,
        is_global_zero=True,
    )
    writer = PredictionWriter(folder)
    writer.on_predict_start(trainer, LightningModule())
    for i, outputs in enumerate(batches):
        writer.on_predict_batch_end(trainer, LightningModule(), outputs, None, i)
    writer.on_predict_epoch_end(trainer, LightningModule())


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
def test_predictions_of_unknown_examples_are_refused(
    outputs: Any, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(SurefootError, match=expected):
        write(tmp_path, outputs)
    assert not list(tmp_path.iterdir())


def test_missing_examples_are_refused_unless_a_limit_says_so(tmp_path: Path) -> None:
    half = {"predictions": torch.tensor([1.0, 2.0]), "index": torch.tensor([2, 0])}
    with pytest.raises(SurefootError, match="2 examples were predicted of 3"):
        write(tmp_path, half)
    same = {"predictions": torch.ones(3), "index": torch.tensor([0, 0, 1])}
    with pytest.raises(SurefootError, match="2 examples were predicted of 3"):
        write(tmp_path, same)
    with pytest.raises(SurefootError, match="nothing to predict"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
    write(tmp_path, half, limit=0.5)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines == ["index,prediction_0", "0,2.000000", "2,1.000000"]
