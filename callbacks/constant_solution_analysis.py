"""How predictions revert to the optimal constant solution under shift, and through which mechanisms."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from callbacks.evaluation import EvaluationObserver
from surefoot.classification.layer_statistics import (
    LayerProbe,
    LayerSums,
    constants_without_signal,
    energy_within,
    principal_subspace,
    row_space,
    weight_layers,
)
from surefoot.classification.networks import Encoder
from surefoot.contracts import ExampleBatch, PredictingModule, TrainTargets, datamodule_as, offers
from surefoot.errors import ConfigError
from surefoot.losses.prediction import UNLABELLED, PredictionLoss
from surefoot.metrics.ood_score import ood_score
from surefoot.report.shift_figures import draw_layers, draw_sets
from surefoot.training.distributed import gather_rows, sum_over_ranks

__all__ = ("ConstantSolutionAnalysis",)


class ConstantSolutionAnalysis(EvaluationObserver):
    """Measures, of val or test and of every shifted set, how near predictions are to the optimal constant, and why.

    For any module with a ``prediction_loss`` whose evaluation returns ``outputs`` and ``losses``. It works during
    ``validate`` and ``test``, with one forward pass; the first set is the reference. Logged: ``shift/<set>/distance``
    and others, see the table of metrics. Written into the run folder's ``constant_solution/``: ``sets.csv``,
    ``layers.csv``, ``constants.csv`` and figures.

    Reference: Kang, Setlur, Tomlin, Levine, ICLR 2024, arXiv 2310.00873.

    Attributes:
        constant: The optimal constant prediction, in the loss's units.
        sets: One row per set: the quantities that are logged, with the distance's 95% interval over examples.
        layers: One row per set and layer.
        constants: One row per layer at which the signal was cut off and number of the prediction.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        max_features: int = 576,
        n_inputs: int = 4096,
        score_encoder: Encoder | None = None,
        score_repeats: int = 30,
        figures: bool = True,
    ) -> None:
        """Initialize the callback.

        Args:
            layers: Names of the convolutions and linear layers to watch; all by default.
            max_features: Layers with wider inputs (patches) have no subspace measured.
            n_inputs: Inputs per layer and set from which subspaces are measured.
            score_encoder: Network from whose features the distance of each set is scored (the paper: ResNet-18 of
                ImageNet, that is ``TimmEncoder`` with ``resnet18`` and ``pretrained``); it costs a forward pass of its
                own. None: no score.
            score_repeats: Repetitions of the score's weak classifier.
            figures: Whether figures are drawn.

        Raises:
            ConfigError: If a number is below one.
        """
        if min(max_features, n_inputs, score_repeats) < 1:
            raise ConfigError(
                f"max_features, n_inputs and score_repeats must be at least 1, got {max_features}, {n_inputs} and"
                f" {score_repeats}."
            )
        super().__init__()
        self.layer_names, self.max_features, self.n_inputs = layers, max_features, n_inputs
        self.score_encoder, self.score_repeats = score_encoder, score_repeats
        self.figures = figures
        self.constant: Tensor | None = None
        self.sets: list[dict[str, Any]] = []
        self.layers: list[dict[str, object]] = []
        self.constants: list[dict[str, object]] = []
        self._loss: PredictionLoss | None = None
        self._probe: LayerProbe | None = None
        self._cuts: dict[str, Tensor] | None = None
        self._sums: dict[str, Tensor] = {}
        self._features: dict[str, list[NDArray[np.float32]]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the hooks on, but not during fit."""
        if trainer.state.fn != "fit":
            self._begin(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the hooks on."""
        self._begin(trainer, pl_module)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: object = pl_module
        if not offers(module, PredictingModule) or not isinstance(module.prediction_loss, PredictionLoss):
            raise ConfigError(
                f"ConstantSolutionAnalysis needs a module with a prediction_loss; {type(pl_module).__name__} has none."
            )
        loss = module.prediction_loss
        data = datamodule_as(trainer, TrainTargets, "ConstantSolutionAnalysis")
        constant = loss.constant(data.train_set.target, data.n_classes, data.draw_weights())
        self._loss, self.constant = loss, constant.to(pl_module.device, torch.float32)
        self._probe = LayerProbe(weight_layers(pl_module, self.layer_names), self.max_features, self.n_inputs)
        self._probe.attach()
        self._cuts, self._sums, self._features = None, {}, {}
        if self.score_encoder is not None:
            self.score_encoder.to(pl_module.device).eval()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ExampleBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the name of the next set for the hooks, and measure the constants before the first."""
        self._await(trainer, pl_module, batch, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ExampleBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Set the name of the next set for the hooks, and measure the constants before the first."""
        self._await(trainer, pl_module, batch, dataloader_idx)

    def _await(self, trainer: Trainer, pl_module: LightningModule, batch: ExampleBatch, dataloader_idx: int) -> None:
        if self._probe is None:
            return
        if self._cuts is None:
            inputs = batch["input"]
            pair = {k: v[:2] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[:2]
            with trainer.precision_plugin.forward_context():
                self._cuts = constants_without_signal(pl_module, pl_module, pair, max_depth=5)
        self._probe.watch(self.splits(trainer)[dataloader_idx])

    def observe(self, trainer: Trainer, split: str, outputs: object, batch: ExampleBatch) -> None:
        """Add up a batch's quantities.

        Raises:
            ConfigError: If the module's evaluation returns no outputs.
        """
        if self._probe is None:
            return
        if not isinstance(outputs, Mapping) or "outputs" not in outputs:
            raise ConfigError(
                "ConstantSolutionAnalysis reads the outputs that validation_step and test_step return: a dict with"
                " outputs and losses."
            )
        self._probe.watch(None)
        assert self._loss is not None
        assert self.constant is not None
        assert self._cuts is not None
        predicted = outputs["outputs"].float()
        distances = self._loss.distances(predicted, self.constant).double()
        confidences = self._loss.confidences(predicted)
        scores = self._loss.class_scores(predicted)
        labelled = batch["target"] != UNLABELLED
        none = torch.zeros_like(distances)
        columns = [
            torch.ones_like(distances),
            distances,
            distances**2,
            none if confidences is None else confidences,
            labelled,
            none if scores is None else scores.argmax(1) == batch["target"],
            outputs["losses"],  # 0 where unlabelled
            *self._bias_shares(predicted),
        ]
        total = torch.stack([c.sum(dtype=torch.float64) for c in columns])
        before = self._sums.get(split)
        self._sums[split] = total if before is None else before + total
        if self.score_encoder is not None:
            features = self.score_encoder(batch["input"]).float().cpu().numpy()
            self._features.setdefault(split, []).append(features)

    def _bias_shares(self, predicted: Tensor) -> list[Tensor]:
        """Return, per cut, what share of each output accumulated biases are: ``|c| / (|c| + |f(x) - c|)``."""
        assert self._loss is not None
        signal = self._loss.signal(predicted)
        shares = []
        for constant in (self._cuts or {}).values():
            bias = self._loss.signal(constant[None])
            size = torch.linalg.vector_norm(bias)
            rest = torch.linalg.vector_norm(signal - bias, dim=1)
            shares.append(size / (size + rest).clamp_min(1e-12))
        return shares

    def conclude(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the sets have shown, write the tables and draw the figures."""
        if self._probe is None:
            return
        names = self.splits(trainer)
        cuts = list(self._cuts or {})
        empty = torch.zeros_like(next(iter(self._sums.values())))  # a rank may lack a small set
        sums = {n: sum_over_ranks(self._sums.get(n, empty)).cpu() for n in names}
        scores = self._ood_scores(names)
        self.sets = [self._set_row(n, sums[n], sums[names[0]], cuts, scores.get(n)) for n in names]
        self.layers = self._layer_rows(names)
        self.constants = self._constant_rows()
        for row in self.sets:
            for name, value in row.items():
                if name not in ("set", "n_examples", "distance_low", "distance_high") and (
                    value is not None and not name.startswith("bias_share/")
                ):
                    pl_module.log(f"shift/{row['set']}/{name}", value, rank_zero_only=False)
        self._end()
        self._write(trainer)

    def _set_row(
        self, name: str, sums: Tensor, first: Tensor, cuts: list[str], score: float | None
    ) -> dict[str, object]:
        assert self._loss is not None
        n = float(sums[0])
        means = sums / max(n, 1)
        deviation = float((means[2] - means[1] ** 2).clamp_min(0)) ** 0.5
        half = 1.96 * deviation / max(n, 1) ** 0.5
        distance, reference = float(means[1]), float(first[1] / first[0])
        n_labelled = float(sums[4])
        shares = dict(zip(cuts, means[7:].tolist(), strict=True))
        early = cuts[min(1, len(cuts) - 1)] if cuts else None  # what the first layer sees is gone
        return {
            "set": name,
            "n_examples": int(n),
            "ood_score": score,
            "distance": distance,
            "distance_low": distance - half,
            "distance_high": distance + half,
            "normalised_distance": distance / reference if reference > 0 else None,
            "confidence": float(means[3]) if self._has_confidence else None,
            "accuracy": float(sums[5]) / n_labelled if self._classifies and n_labelled else None,
            "loss": float(sums[6]) / n_labelled if n_labelled else None,
            "bias_share": shares[early] if early else None,
            **{f"bias_share/{cut}": share for cut, share in shares.items()},
        }

    @property
    def _has_confidence(self) -> bool:
        assert self._loss is not None
        return self._loss.confidences(self._example_outputs()) is not None

    @property
    def _classifies(self) -> bool:
        assert self._loss is not None
        return self._loss.class_scores(self._example_outputs()) is not None

    def _example_outputs(self) -> Tensor:
        assert self.constant is not None
        return torch.zeros(1, len(self.constant))

    def _ood_scores(self, names: list[str]) -> dict[str, float]:
        """Return how far out each set is; the first, by convention, at 0.5."""
        if self.score_encoder is None:
            return {}
        features = {
            n: np.stack(rows)
            for n in names
            if len(rows := gather_rows([row for part in self._features.get(n, []) for row in part]))
        }
        first = names[0]
        return {first: 0.5} | {
            n: ood_score(features[first], found, self.score_repeats) for n, found in features.items() if n != first
        }

    def _layer_rows(self, names: list[str]) -> list[dict[str, object]]:
        assert self._probe is not None
        reference = self._probe.sums[names[0]]  # every rank has seen the first set
        layers = [n for n in self._probe.layers if n in reference]
        bases: dict[str, Tensor] = {}
        reads: dict[str, Tensor] = {}
        norms: dict[str, float] = {}
        rows = []
        for name in names:
            found = self._probe.sums.get(name, {})
            for layer in layers:
                zeros = LayerSums(*(None if v is None else v * 0 for v in reference[layer]))  # type: ignore[arg-type]
                total = LayerSums(
                    *(None if v is None else sum_over_ranks(v).cpu() for v in found.get(layer, zeros))  # type: ignore[arg-type]
                )
                norm = float(total.norms / total.n_examples)
                within = reading = None
                if total.moments is not None:
                    if layer not in bases:
                        bases[layer] = principal_subspace(total.moments)
                        reads[layer] = row_space(self._probe.layers[layer]).cpu()
                    within = float(energy_within(total.moments, bases[layer]))
                    reading = float(energy_within(total.moments, reads[layer]))
                rows.append(
                    {
                        "set": name,
                        "layer": layer.removeprefix("network."),
                        "norm": norm,
                        "relative_norm": norm / max(norms.setdefault(layer, norm), 1e-12),
                        "in_distribution_share": within,
                        "row_space_share": reading,
                    }
                )
        return rows

    def _constant_rows(self) -> list[dict[str, object]]:
        assert self._loss is not None
        assert self.constant is not None
        rows = []
        for cut, outputs in (self._cuts or {}).items():
            predicted = self._loss.predictions(outputs[None])[0]
            distance = float(self._loss.distances(outputs[None], self.constant)[0])
            rows += [
                {
                    "signal_cut_before": cut.removeprefix("network."),
                    "number": i,
                    "prediction": value,
                    "optimal_constant": best,
                    "distance": distance,
                }
                for i, (value, best) in enumerate(zip(predicted.tolist(), self.constant.tolist(), strict=True))
            ]
        return rows

    def _end(self) -> None:
        if self._probe is not None:
            self._probe.detach()
        self._probe, self._sums, self._features = None, {}, {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off."""
        self._end()

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir) / "constant_solution"
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"sets": self.sets, "layers": self.layers, "constants": self.constants}
        for name, rows in tables.items():
            if rows:
                with (folder / f"{name}.csv").open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)
        if self.figures and len(self.sets) > 1:
            draw_sets(self.sets, folder)
            draw_layers(self.layers, folder)
