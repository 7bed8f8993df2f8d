"""Features of a frozen encoder: public classes beside private ones of the same dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from datamodules.classification import ClassificationDataModule
from datamodules.private import PrivateDataModule
from datamodules.splits import TensorExamples
from surefoot.classification import networks, pretrained_encoders
from surefoot.classification.checkpoint_encoder import CheckpointEncoder, training_settings
from surefoot.classification.networks import Encoder
from surefoot.contracts import ChosenClasses, offers
from surefoot.errors import ConfigError, DataError
from surefoot.privacy.estimators import PublicData
from surefoot.privacy.noise import NoiseSource
from surefoot.training.distributed import sum_over_ranks

__all__ = ("FrozenFeaturesDataModule",)


class FrozenFeaturesDataModule(PrivateDataModule):
    """Features of private classes' images or texts, ``(batch, features)``: minus the public mean, scaled to length 1.

    The encoder is frozen; its weights come from public pretraining or, in a `CheckpointEncoder`, from a run on the
    public classes. Public data are its features of the public classes' training examples: nothing private goes into
    them.

    The record of a run (``environment.json``) says whether the encoder is known to have seen public classes only. It is
    where the settings of the run that trained it name this dataset and other ``classes`` than the private ones; one
    that has seen these is refused.
    """

    def __init__(
        self,
        source: NoiseSource,
        data: LightningDataModule,
        encoder: Encoder,
        private_classes: Sequence[int],
        n_train: int | None = None,
        **loading: Any,
    ) -> None:
        """Initialize the features.

        Args:
            source: Where the samples of a step come from.
            data: Datamodule of all classes, such as CIFAR10DataModule.
            encoder: Network from inputs to features, such as a `CheckpointEncoder` with the weights of a run.
            private_classes: Classes that are private, renumbered in this order; all others are public.
            n_train: Private training examples to keep, drawn with the seed; all by default.
            loading: Arguments of `PrivateDataModule`.

        Raises:
            ConfigError: If there are fewer than two private classes or none public.
        """
        super().__init__(source, **loading)
        if not isinstance(data, ClassificationDataModule):
            raise ConfigError(f"{type(data).__name__} is not a classification datamodule.")
        chosen = set(private_classes)
        known = set(range(data.n_classes))
        if len(chosen) < 2 or len(chosen) < len(private_classes) or not chosen < known:
            raise ConfigError(
                f"private_classes must be at least two distinct ones of {data.n_classes}, with one left over for the"
                f" public, got {list(private_classes)}."
            )
        self.data, self.encoder = data, encoder
        self.private_classes, self.n_private = tuple(private_classes), n_train
        self.n_classes: int = len(self.private_classes)
        self._public: Tensor | None = None

    def prepare_data(self) -> None:
        """Let the dataset prepare itself."""
        self.data.prepare_data()

    def build(self) -> dict[str, TensorExamples]:
        """Put every split through the encoder once."""
        self.data.setup("fit")
        self.encoder_history()  # refuses one that was trained on private classes
        self.encoder.eval().requires_grad_(False)
        renumbered = torch.full((self.data.n_classes,), -1)
        renumbered[list(self.private_classes)] = torch.arange(self.n_classes)
        splits = {}
        center = torch.zeros(self.encoder.n_features)
        for name in ("train", "val", "test"):
            features, target = self._features(name)
            private = renumbered[target] >= 0
            if name == "train":
                center = features[~private].mean(0)  # of public examples: nothing private
                self._public = torch.nn.functional.normalize(features[~private] - center)
            x, y = features[private], renumbered[target[private]]
            x = torch.nn.functional.normalize(x - center)
            if name == "train" and self.n_private is not None:
                generator = torch.Generator().manual_seed(self.seed)
                kept = torch.randperm(len(y), generator=generator)[: self.n_private]
                x, y = x[kept], y[kept]
            splits[name] = TensorExamples(input=x, target=y)
        return splits

    @torch.no_grad()
    def _features(self, name: str) -> tuple[Tensor, Tensor]:
        """Return features and targets of a split, on every rank all of them; each rank computes its share."""
        split = self.data.splits[name]
        features = torch.zeros(len(split.target), self.encoder.n_features)
        n_seen = torch.zeros(len(split.target), dtype=torch.long)
        self.data.augmenting = False
        for raw in self.data.evaluation_loader(split):
            batch = self.data.on_after_batch_transfer(raw, 0)
            features[batch["index"]] = self.encoder(batch["input"]).float()
            n_seen[batch["index"]] += 1
        if not bool((sum_over_ranks(n_seen) == 1).all()):
            raise DataError(f"not every example of split {name!r} went through the encoder once.")
        return sum_over_ranks(features), split.target

    def fingerprints(self) -> dict[str, str]:
        """Return what is known of the encoder, for a run's record; nothing of it depends on private examples."""
        return super().fingerprints() | {"encoder": self.encoder_history()}

    def encoder_history(self) -> str:
        """Return what data the encoder's weights have seen, or that it is not known.

        Raises:
            ConfigError: If they have seen private classes.
        """
        encoder = self.encoder
        while isinstance(encoder, CheckpointEncoder) and encoder.weights is None:
            encoder = encoder.encoder
        if not isinstance(encoder, CheckpointEncoder):
            return _history_of_own_weights(encoder)
        path = encoder.weights
        assert path is not None
        settings = training_settings(path)
        data = settings.get("data") or {}
        if str(data.get("class_path")).rsplit(".", 1)[-1] != type(self.data).__name__:
            return f"not known: {path} does not say that it was trained on {type(self.data).__name__}"
        if not _began_at_random((settings["model"].get("init_args") or {}).get("encoder")):
            return f"not known: nothing says what the weights that {path} was trained from have seen"
        source: object = self.data
        own = source.classes if offers(source, ChosenClasses) else range(self.data.n_classes)
        private = {own[c] for c in self.private_classes}
        seen = (data.get("init_args") or {}).get("classes")
        both = private & set(private if seen is None else seen)
        if both:
            raise ConfigError(
                f"the encoder of {path} was trained on the classes {sorted(both)}, which are private here: its features"
                " would not be public. Train it on the public classes (data.init_args.classes)."
            )
        return f"public classes only: {path} was trained on the classes {sorted(seen or ())}"

    def public(self) -> PublicData:
        """Return the public classes' features."""
        assert self._public is not None
        return PublicData(self._public)


def _history_of_own_weights(encoder: Encoder) -> str:
    kind = type(encoder)
    if not any(True for _ in encoder.parameters()):
        return f"no data: {kind.__name__} has no weights"
    if kind.__module__ in (networks.__name__, pretrained_encoders.__name__) and not encoder.pretrained:
        return f"no data: {kind.__name__} has random weights"
    return f"not known: nothing says what the weights of {kind.__name__} were trained on"


def _began_at_random(encoder: object) -> bool:
    """Return whether an encoder of these settings is known to have no weights of other data when it is built."""
    if not isinstance(encoder, Mapping):
        return False
    module, _, name = str(encoder.get("class_path")).rpartition(".")
    arguments = encoder.get("init_args") or {}
    if name == CheckpointEncoder.__name__:
        return arguments.get("weights") is None and _began_at_random(arguments.get("encoder"))
    ours = name in (*networks.__all__, *pretrained_encoders.__all__) and module.startswith(
        networks.__name__.rpartition(".")[0]
    )
    return ours and not (arguments.get("pretrained") or arguments.get("arguments"))
