"""What ``predict`` writes: every example once, in the order of its split, whatever the number of ranks."""

import csv
import json
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from surefoot.compatibility.lightning import is_fast_dev_run
from surefoot.errors import SurefootError
from surefoot.storage.files import replacing
from surefoot.training.distributed import gather_rows

__all__ = ("PredictionWriter",)

_EXPECTED = (
    "expected a dict with index and probabilities or predictions, each (batch, ...), or a list of dicts with index"
)


class PredictionWriter(Callback):
    """Gathers all ranks' predictions, sorts them by example id and writes them.

    Tensors go to ``predictions.csv``: index, of classifiers the class, and a column per number. Rows go to
    ``predictions.jsonl``: of language models index, question, completion, extracted answer and grade. With several
    loaders the loader's number comes first.
    """

    def __init__(self, folder: Path) -> None:
        """Initialize the callback.

        Args:
            folder: Where to write to.
        """
        self.folder = folder
        self._batches: list[tuple[int, object]] = []  # number of the loader, what predict_step returned

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier predictions."""
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's predictions.

        Raises:
            SurefootError: If they are of another form, or do not say of which examples.
        """
        owner = type(pl_module).__name__
        if isinstance(outputs, Mapping):
            names = [n for n in ("probabilities", "predictions") if n in outputs]
            if not names or not isinstance(outputs.get("index"), Tensor):
                raise SurefootError(
                    f"{owner}.predict_step returned {', '.join(map(str, outputs)) or 'nothing'}: {_EXPECTED}."
                )
            kept: object = {k: outputs[k].detach().cpu() for k in (names[0], "index")}
        elif isinstance(outputs, list) and all(
            isinstance(row, Mapping) and isinstance(row.get("index"), int) for row in outputs
        ):
            kept = outputs
        else:
            raise SurefootError(f"{owner}.predict_step returned {_describe(outputs)}: {_EXPECTED}.")
        self._batches.append((dataloader_idx, kept))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all ranks' predictions.

        Raises:
            SurefootError: If an example is missing.
        """
        batches = gather_rows(self._batches)
        self._batches = []
        if not trainer.is_global_zero:
            return
        if not batches:
            raise SurefootError("there was nothing to predict: the predict loader is empty.")
        tensors = isinstance(batches[0][1], Mapping)
        name = "predictions.csv" if tensors else "predictions.jsonl"
        rows = _tensor_rows(batches) if tensors else _dict_rows(batches)
        self._check_whole(trainer, rows)
        with replacing(self.folder / name) as partial:
            write = _write_csv if tensors else _write_jsonl
            several = len(_loaders(trainer)) > 1
            write(partial, [rows[key] for key in sorted(rows)], several)
        rank_zero_info(f"{len(rows)} predictions: {self.folder / name}")

    def _check_whole(self, trainer: Trainer, rows: Mapping[tuple[int, int, int], object]) -> None:
        if trainer.limit_predict_batches != 1.0 or is_fast_dev_run(trainer):
            return
        for number, loader in enumerate(_loaders(trainer)):
            seen = len({index for of, index, _ in rows if of == number})
            if isinstance(loader.dataset, Sized) and seen != len(loader.dataset):
                raise SurefootError(
                    f"{seen} examples were predicted of {len(loader.dataset)}: their ids in index are not distinct, or"
                    " a rank has not seen its share. Nothing is written."
                )


def _loaders(trainer: Trainer) -> list[Any]:
    loaders: object = trainer.predict_dataloaders
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


def _describe(outputs: object) -> str:
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], Mapping):
        return f"rows of {', '.join(map(str, outputs[0]))}"
    return f"a {type(outputs).__name__}"


def _tensor_rows(batches: list[tuple[int, Any]]) -> dict[tuple[int, int, int], dict[str, object]]:
    """Return rows by loader, index and 0: an example that two ranks have seen is there once."""
    rows = {}
    for loader, batch in batches:
        name = next(n for n in batch if n != "index")
        values = batch[name].float().flatten(1) if batch[name].ndim > 1 else batch[name].float()[:, None]
        column = "probability" if name == "probabilities" else "prediction"
        for index, row in zip(batch["index"].tolist(), values, strict=True):
            chosen = {"class": int(row.argmax())} if column == "probability" else {}
            numbers = {f"{column}_{i}": f"{p:.6f}" for i, p in enumerate(row.tolist())}
            rows[loader, int(index), 0] = {"loader": loader, "index": index, **chosen, **numbers}
    return rows


def _dict_rows(batches: list[tuple[int, Any]]) -> dict[tuple[int, int, int], dict[str, object]]:
    """Return rows by loader, index and number of the sample."""
    return {
        (loader, row["index"], int(row.get("sample", 0))): {"loader": loader, **row}
        for loader, rows in batches
        for row in rows
    }


def _write_csv(path: Path, rows: list[dict[str, object]], several: bool) -> None:
    columns = [c for c in rows[0] if several or c != "loader"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path: Path, rows: list[dict[str, object]], several: bool) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = row if several else {k: v for k, v in row.items() if k != "loader"}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
