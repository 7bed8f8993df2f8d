"""An encoder that starts with weights of an earlier run: how one fit hands its network to the next."""

from pathlib import Path
from typing import Any

from torch import Tensor

from surefoot.classification.networks import Encoder
from surefoot.classification.token_encoder import Replacement, TokenEncoder, Tokens
from surefoot.errors import ConfigError, DataError, SurefootError
from surefoot.storage.json_files import read_json
from surefoot.storage.manifests import MANIFEST, find_weights
from surefoot.training.rebuilding import weights_will_follow
from surefoot.training.weights import read_checkpoint

__all__ = ("CheckpointEncoder", "training_settings")

_PREFIX = "encoder."


class CheckpointEncoder(TokenEncoder):
    """An encoder with the weights that another run has trained; a head is not taken over.

    Attributes:
        encoder: The encoder that holds the weights.
        weights: Where they were read from; none if the encoder has kept its own.
    """

    def __init__(self, encoder: Encoder, weights: Path | None) -> None:
        """Load weights into an encoder.

        Args:
            encoder: Network from inputs to features, of the kind that was trained.
            weights: Run folder of any classifier, its ``weights.safetensors``, or a checkpoint; none keeps the
                encoder's own weights.

        Raises:
            DataError: If there are no such weights, or they do not fit the encoder.
            SurefootError: If the file is damaged.
        """
        super().__init__()
        self.encoder, self.weights, self.n_features = encoder, weights, encoder.n_features
        if weights is not None and not weights_will_follow():
            _load(encoder, weights)

    def forward(self, input: object) -> Tensor:
        """Return the encoder's features, ``(batch, n_features)``."""
        features: Tensor = self.encoder(input)
        return features

    @property
    def _tokens_of(self) -> TokenEncoder:
        if not isinstance(self.encoder, TokenEncoder):
            raise ConfigError(
                f"{type(self.encoder).__name__} has no tokens: give a TransformersEncoder, or a TimmEncoder of a"
                " transformer."
            )
        return self.encoder

    @property
    def width(self) -> int:
        """Length of a token's vector.

        Raises:
            ConfigError: If the encoder has no tokens.
        """
        return self._tokens_of.width

    @property
    def embedding_width(self) -> int:
        """Length of a token's embedding."""
        return self._tokens_of.embedding_width

    @property
    def n_prefix_tokens(self) -> int:
        """The encoder's tokens before those of the input."""
        return self._tokens_of.n_prefix_tokens

    def tokens(self, input: object, replaced: Replacement | None = None) -> Tokens:
        """Return the encoder's last hidden states."""
        return self._tokens_of.tokens(input, replaced)

    def pool(self, tokens: Tokens) -> Tensor:
        """Return the features that the encoder pools, ``(batch, n_features)``."""
        return self._tokens_of.pool(tokens)


def _load(encoder: Encoder, path: Path) -> None:
    """Load an encoder's weights; those that were trained as a `CheckpointEncoder`'s are its encoder's.

    Raises:
        DataError: If they are not all there, or do not fit.
    """
    while isinstance(encoder, CheckpointEncoder):
        encoder = encoder.encoder
    state = _below(_PREFIX, _network(path))
    if not state:
        raise DataError(f"{path} holds no encoder's weights: expected those of a classifier's run.")
    expected = encoder.state_dict()
    while state.keys() != expected.keys() and all(name.startswith(_PREFIX) for name in state):
        state = _below(_PREFIX, state)
    reason = _misfit(expected, state)
    if reason is not None:
        raise DataError(
            f"the weights in {path} do not fit {type(encoder).__name__}: {reason}. Give the encoder the settings that"
            " it was trained with."
        )
    encoder.load_state_dict(state)


def _network(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the network in a run's weights or checkpoint, by their names in it."""
    file = find_weights(path)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise SurefootError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    state = read_checkpoint(file).get("state_dict")
    return _below("network.", state) if isinstance(state, dict) else {}


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _misfit(expected: dict[str, Tensor], state: dict[str, Tensor]) -> str | None:
    """Return how given tensors differ from those expected in names or shapes; none if they fit."""
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        kinds = (("missing", missing), ("of another network", unknown))
        return " and ".join(f"{what} are {len(names)} of them, such as {names[0]}" for what, names in kinds if names)
    other = [name for name, tensor in expected.items() if tensor.shape != state[name].shape]
    if not other:
        return None
    given, wanted = (tuple(tensors[other[0]].shape) for tensors in (state, expected))
    return f"{other[0]} has shape {given} and must have {wanted}"


def training_settings(weights: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of the fit that trained weights: ``model`` and ``data``, each with class path and arguments.

    Args:
        weights: What a `CheckpointEncoder` loads: run folder, weights or checkpoint.

    Returns:
        What is recorded; nothing where nothing is.

    Raises:
        SurefootError: If there are no such weights, or their record is damaged.
    """
    file = find_weights(weights)
    if file.suffix == ".safetensors":
        manifest = file.parent / MANIFEST
        recorded = read_json(manifest) if manifest.is_file() else {}
    else:
        recorded = read_checkpoint(file).get("surefoot_settings")
    recorded = recorded if isinstance(recorded, dict) else {}
    return {part: recorded[part] for part in ("model", "data") if isinstance(recorded.get(part), dict)}
