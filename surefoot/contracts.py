"""What a datamodule or a module can offer, as protocols: its user names what it needs, whatever the class.

What does not offer it is refused in one line, by `contract_of` or, for the datamodule of a trainer, by `datamodule_as`,
for a module by `module_as`.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import NotRequired, Protocol, TypedDict, TypeGuard, TypeVar, runtime_checkable

from torch import Tensor, nn

from surefoot.errors import ConfigError
from surefoot.losses.prediction import PredictionLoss
from surefoot.privacy.estimators import PublicData
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.pairs import PreferencePair, TextPair
from surefoot.reasoning.language_models import LanguageModel
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import Prompt
from surefoot.reasoning.rollouts import RolloutEngine
from surefoot.reasoning.sequences import Pack
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import Judged, JudgedText

__all__ = (
    "ChosenClasses",
    "ClassificationData",
    "CompletedTraining",
    "EvaluatedGroups",
    "EvaluatedSet",
    "EvaluatedSets",
    "EvaluatingModule",
    "ExampleBatch",
    "Fingerprints",
    "GroupedData",
    "LanguageModelTraining",
    "NetworkModule",
    "OfficialScores",
    "PairSource",
    "PolicyModule",
    "PredictingModule",
    "PrivateExamples",
    "ProblemSource",
    "PromptedModule",
    "RecordBatch",
    "SampledLoader",
    "SampledModule",
    "StagedTraining",
    "TrainAnnotations",
    "TrainExamples",
    "TrainGroups",
    "TrainPass",
    "TrainTargets",
    "TrueWeight",
    "VariantSource",
    "contract_of",
    "datamodule_as",
    "datamodule_of",
    "module_as",
    "offers",
)

Contract = TypeVar("Contract")


class ExampleBatch(TypedDict):
    """A batch of a classification datamodule, as monitors read it."""

    #: Images ``(batch, ...)``, or the tokenizer's tensors ``(batch, tokens)`` by name.
    input: Tensor | dict[str, Tensor]
    #: Targets, ``(batch,)``.
    target: Tensor
    #: Positions in the set, ``(batch,)``.
    index: Tensor
    #: Group ``(batch,)`` or membership ``(batch, groups)``; absent where hidden or unknown.
    group: NotRequired[Tensor]


class RecordBatch(TypedDict):
    """A batch of a reasoning datamodule: its positions, and what it is a batch of."""

    #: Positions in the set, ``(batch,)``.
    index: Tensor
    #: Problems to answer or to learn from.
    problem: NotRequired[list[Problem]]
    #: Preference pairs.
    pair: NotRequired[list[PreferencePair | TextPair]]
    #: Token ids of prompts, and of their completions.
    prompt: NotRequired[list[Sequence[int]]]
    completion: NotRequired[list[Sequence[int]]]
    #: Completions with values of their steps, of a policy that learns from them.
    trajectory: NotRequired[list[Trajectory]]
    #: Completions with values of their prefixes.
    judged: NotRequired[list[Judged | JudgedText]]


@runtime_checkable
class ProblemSource(Protocol):
    """Problems to train on or to answer."""

    def problems(self, split: str) -> Sequence[Problem]:
        """Return the problems of ``train``, ``val`` or ``test``."""


@runtime_checkable
class PairSource(Protocol):
    """Preference pairs to train on."""

    def pairs(self, split: str) -> Sequence[PreferencePair | TextPair]:
        """Return the pairs of ``train`` or ``val``, in the order of their index."""


@runtime_checkable
class VariantSource(ProblemSource, Protocol):
    """Problems of which new ones can be made."""

    def variant(self, parent: Problem, number: int) -> Problem:
        """Return a problem near another one; the same for the same number."""


@runtime_checkable
class EvaluatedSet(Protocol):
    """A split or a shifted set."""

    @property
    def target(self) -> Tensor:
        """Targets, ``(examples,)``."""

    @property
    def eval_group(self) -> Tensor | None:
        """Group or groups per example, ``(examples,)`` or ``(examples, groups)``; none where they are unknown."""


@runtime_checkable
class EvaluatedSets(Protocol):
    """Sets that are evaluated one after the other."""

    def evaluated(self, stage: str) -> list[str]:
        """Return the names of the sets that ``fit``, ``validate`` or ``test`` evaluates, in order."""

    def evaluation_set(self, stage: str, name: str) -> EvaluatedSet:
        """Return one of them."""


@runtime_checkable
class EvaluatedGroups(EvaluatedSets, Protocol):
    """Sets with a group per example."""

    @property
    def eval_group_names(self) -> list[str]:
        """Names of the groups."""

    def train_eval_group_shares(self) -> Tensor:
        """Return the share of the training examples in each group, ``(groups,)``."""


@runtime_checkable
class OfficialScores(Protocol):
    """A benchmark's own evaluator."""

    @property
    def splits(self) -> Mapping[str, EvaluatedSet]:
        """The benchmark's splits by name."""

    def official_evaluation(self, split: str, predictions: Tensor, seen: Tensor | None = None) -> Mapping[str, float]:
        """Return the benchmark's scores of predicted classes, ``(examples,)``."""

    def submission_name(self, split: str) -> str:
        """Return how the benchmark calls a file of predictions."""


@runtime_checkable
class TrainExamples(Protocol):
    """Numbered training examples: ``index`` in a batch is below their number."""

    @property
    def n_train(self) -> int:
        """Number of training examples."""


@runtime_checkable
class TrainAnnotations(TrainExamples, Protocol):
    """What is known of training examples and is never trained on."""

    @property
    def group_names(self) -> list[str]:
        """Names of the groups that are trained on."""

    def train_annotations(self) -> dict[str, Tensor]:
        """Return ``group (examples,)`` and flags such as ``minority (examples,)``."""


@runtime_checkable
class TrainGroups(Protocol):
    """Groups of the training examples."""

    def train_group_counts(self) -> Tensor:
        """Return the number of training examples of each group, ``(groups,)``."""


@runtime_checkable
class TrainPass(Protocol):
    """Training examples once more, in order and without augmentation."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""

    def train_examples(self) -> Iterator[ExampleBatch]:
        """Yield batches of this rank's share."""


@runtime_checkable
class TrainTargets(Protocol):
    """Targets of the training examples and how often each is drawn."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""

    @property
    def train_set(self) -> EvaluatedSet:
        """The split trained on."""

    def draw_weights(self) -> Tensor | None:
        """Return how often each example is drawn, relative to others, ``(examples,)``; none if all alike."""


@runtime_checkable
class PrivateExamples(TrainExamples, Protocol):
    """Private examples, sampled a step at a time, and public data."""

    @property
    def sampling_rate(self) -> float:
        """Probability of each example to be in a step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""

    @property
    def n_features(self) -> int:
        """Length of an input."""

    def public(self) -> PublicData:
        """Return the public data."""


@runtime_checkable
class SampledLoader(Protocol):
    """Batches of examples that a sampler draws."""

    @property
    def sampler(self) -> object:
        """The sampler, such as an `EpochSampler`."""


@runtime_checkable
class TrueWeight(Protocol):
    """Made-up regression data whose weights are known."""

    @property
    def true_weight(self) -> Tensor:
        """Weights that made the targets, ``(features,)``."""


@runtime_checkable
class ClassificationData(Protocol):
    """Data that know their number of classes before they are set up."""

    @property
    def n_classes(self) -> int | None:
        """Number of classes; none where targets are numbers."""


@runtime_checkable
class ChosenClasses(Protocol):
    """Data that keep some of a dataset's classes."""

    #: The dataset's own numbers of the classes, in the order of ours.
    classes: Sequence[int]


@runtime_checkable
class GroupedData(Protocol):
    """Data that know their number of groups before they are set up."""

    @property
    def n_groups(self) -> int:
        """Number of groups of the training grouping."""


@runtime_checkable
class NetworkModule(Protocol):
    """A module whose result is one of its networks, without what is only there to train it."""

    network: nn.Module


@runtime_checkable
class EvaluatingModule(Protocol):
    """A module that evaluates a batch outside of Lightning's loops, too."""

    def evaluation_step(self, batch: ExampleBatch) -> Mapping[str, Tensor]:
        """Return what callbacks read of a batch, such as ``logits (batch, classes)``."""


@runtime_checkable
class PredictingModule(Protocol):
    """A module that says what its outputs mean."""

    prediction_loss: PredictionLoss


@runtime_checkable
class StagedTraining(Protocol):
    """A module that trains a network first which is not its result."""

    @property
    def selectable(self) -> bool:
        """Whether the network is the final one, so that its checkpoints may be chosen."""


@runtime_checkable
class LanguageModelTraining(Protocol):
    """A module that trains a language model."""

    language_model: LanguageModel


@runtime_checkable
class PromptedModule(LanguageModelTraining, Protocol):
    """A module that trains a language model, and how problems are put to it."""

    prompt: Prompt
    max_tokens_per_pack: int

    def equalise_packs(self, packs: Sequence[Pack]) -> list[Pack]:
        """Return the packs; where weights are sharded, as many as the rank with the most has."""


@runtime_checkable
class PolicyModule(PromptedModule, Protocol):
    """A module whose language model answers problems."""

    engine: RolloutEngine | None
    grader: Grader

    def ready_policy(self) -> Policy:
        """Return the policy with the present weights; it needs an engine."""


@runtime_checkable
class SampledModule(Protocol):
    """A module that keeps what was sampled last."""

    rollout: list[Trajectory]
    evaluated: list[Trajectory]


class _Trainer(Protocol):
    """Lightning's trainer while it runs on a datamodule, which it sets where type checkers do not see it."""

    datamodule: object


class Fingerprints(Protocol):
    """A datamodule whose splits have hashes, for the record of a run."""

    def fingerprints(self) -> dict[str, str]:
        """Return a hash by split."""
        ...


class CompletedTraining(Protocol):
    """A module that says whether its training did what its settings say."""

    def unfinished(self) -> str | None:
        """Return what is missing; none if nothing is."""
        ...


def offers(data: object, contract: type[Contract]) -> TypeGuard[Contract]:
    """Return whether an object has all that a contract names."""
    return not _missing(data, contract)


def contract_of(data: object, contract: type[Contract], user: str) -> Contract:
    """Return an object as what a contract says of it.

    Args:
        data: A datamodule, or none.
        contract: One of this file's protocols, or another.
        user: Who needs it, for the message.

    Raises:
        ConfigError: If it lacks something.
    """
    if offers(data, contract):
        return data
    given = "there is none" if data is None else f"{type(data).__name__} has none"
    missing = ", ".join(_missing(data, contract))
    raise ConfigError(f"{user} needs a datamodule with {missing} ({contract.__name__}); {given}.")


def datamodule_of(trainer: object) -> object:
    """Return a trainer's datamodule; none where it was given loaders."""
    return trainer.datamodule if offers(trainer, _Trainer) else None


def datamodule_as(trainer: object, contract: type[Contract], user: str) -> Contract:
    """Return a trainer's datamodule as what a contract says of it; see `contract_of`."""
    return contract_of(datamodule_of(trainer), contract, user)


def module_as(module: object, contract: type[Contract], user: str) -> Contract:
    """Return a module as what a contract says of it.

    Args:
        module: A LightningModule.
        contract: One of this file's protocols, or another.
        user: Who needs it, for the message.

    Raises:
        ConfigError: If it lacks something.
    """
    if offers(module, contract):
        return module
    missing = ", ".join(_missing(module, contract))
    raise ConfigError(f"{user} needs a method with {missing} ({contract.__name__}); {type(module).__name__} has none.")


def _missing(data: object, contract: type[object]) -> list[str]:
    """Return what a contract names and an object lacks; properties are not evaluated, they may need ``setup``."""
    names = {
        name
        for base in contract.__mro__
        if getattr(base, "_is_protocol", False) and base is not Protocol  # `typing.is_protocol` comes with 3.13
        for name in (*vars(base), *inspect.get_annotations(base))
        if not name.startswith("_")
    }
    names -= data._modules.keys() if isinstance(data, nn.Module) else set()
    nothing = object()
    return sorted(name for name in names if inspect.getattr_static(data, name, nothing) is nothing)
