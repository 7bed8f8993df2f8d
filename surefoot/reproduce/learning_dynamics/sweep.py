"""The runs of the learning-dynamics study: a tiny model pretrained once per seed, then fine-tuned in many ways."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.contracts import VariantSource, contract_of
from surefoot.reproduce.claims import Scale
from surefoot.reproduce.jobs import QUIET, Job, component

__all__ = (
    "PREFIXES",
    "FineTuning",
    "StudySize",
    "fine_tuning",
    "pretrained_folder",
    "pretraining",
    "sizes",
)

#: Starts of an answer that a memorized trace does not have; true lines that do not advance the chain.
PREFIXES = ("1+1=2\n", "so 2*3 is 6\n")

#: Several styles and useless lines: having memorized a trace differs from being able to solve the problem.
CHAINS = {"min_steps": 3, "max_steps": 3}
SOLUTIONS = {"styles": [0, 1, 2], "spurious_rate": 0.1}
WORLD: dict[str, object] = {"chains": CHAINS, "solutions": SOLUTIONS}


#: How answers are sampled, as in the paper.
SAMPLING: Mapping[str, Any] = {"n": 5, "temperature": 0.8, "top_p": 0.95}


class FineTuning(NamedTuple):
    """How a run fine-tunes."""

    rate: float  # peak learning rate
    epochs: int
    share: str  # of the training problems: full, half, quarter

    def name(self, seed: int) -> str:
        """Return the run's name, which figures read."""
        return f"arithmetic_{self.epochs}epochs_{self.share}_lr{self.rate:g}_seed{seed}"


class StudySize(NamedTuple):
    """How large the study is."""

    n_train: int
    n_test: int
    start_accuracy: float  # at which pretraining stops
    pretraining_problems: int  # at most
    fine_tunings: Sequence[FineTuning]
    n_curation: int  # originals, and new problems of a round
    curation_rounds: int
    curation_epochs: int
    max_tokens: int  # of an answer

    @property
    def sampling(self) -> dict[str, Any]:
        """How answers are sampled."""
        return {**SAMPLING, "max_tokens": self.max_tokens}


#: Two and a half decades of learning rates.
RATES = (3e-5, 5e-4, 2e-3, 1e-2)
MIDDLE_RATE = 5e-4
#: The paper's 1, 3 and 6 epochs, five times as many for a model without Llama's pretraining.
EPOCHS = (5, 15, 30)


def sizes(scale: Scale) -> StudySize:
    """Return the study of a scale."""
    if scale == "quick":
        fine_tunings = [FineTuning(rate, 5, "full") for rate in (5e-4, 5e-3)]
        return StudySize(
            n_train=32,
            n_test=32,
            start_accuracy=0.02,
            pretraining_problems=640,
            fine_tunings=fine_tunings,
            n_curation=16,
            curation_rounds=1,
            curation_epochs=2,
            max_tokens=32,
        )
    fine_tunings = [FineTuning(rate, epochs, "full") for rate in RATES for epochs in EPOCHS]
    fine_tunings += [FineTuning(MIDDLE_RATE, 30, "half"), FineTuning(MIDDLE_RATE, 60, "quarter")]
    return StudySize(
        n_train=256,
        n_test=256,
        start_accuracy=0.6,
        pretraining_problems=40_000,
        fine_tunings=fine_tunings,
        n_curation=192,
        curation_rounds=2,
        curation_epochs=15,
        max_tokens=80,
    )


def _data(seed: int, **numbers: object) -> dict[str, object]:
    return component("ArithmeticDataModule", **WORLD, seed=seed, **numbers)


def _trainer(epochs: int, callbacks: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {
        "accelerator": "cpu",
        "max_epochs": epochs,
        **QUIET,
        "log_every_n_steps": 10,
        "callbacks": list(callbacks),
    }


def _model(size: StudySize, language_model: Mapping[str, object], rate: float, **settings: object) -> dict[str, object]:
    return component(
        "SFT",
        language_model=dict(language_model),
        optimizer=component("torch.optim.AdamW", lr=rate, weight_decay=0.01),
        max_tokens_per_pack=8192,
        engine=component("HFEngine", max_sequences=512),
        evaluation={"temperature": 0.0, "max_tokens": size.max_tokens},
        **settings,
    )


def pretraining(seed: int, size: StudySize) -> Job:
    """Return the run that makes the start: fresh problems, until some are solved."""
    stop = component(
        "EarlyStopping", monitor="val/accuracy", mode="max", stopping_threshold=size.start_accuracy, patience=1000
    )
    trainer = _trainer(1, [{"class_path": "ModelExporter"}, stop]) | {"val_check_interval": 10}
    language_model = component("TinyLanguageModel", seed=seed)
    n_train = size.pretraining_problems
    return Job(
        f"pretrained_seed{seed}",
        {
            "seed_everything": seed,
            "trainer": trainer,
            "model": _model(size, language_model, 2e-3, warmup=20),
            # other problems than those of fine-tuning, which have seed 0 to 999; no derive_seed, which would be other
            # problems than those of the committed results
            "data": _data(
                1000 + seed, n_train=n_train, n_val=min(256, n_train // 5), batch_size=64, eval_batch_size=256
            ),
        },
    )


def pretrained_folder(out: Path, seed: int) -> Path:
    """Return where such a run has written the model."""
    return out / "runs" / f"pretrained_seed{seed}" / "latest" / "model"


def fine_tuning(seed: int, size: StudySize, setting: FineTuning, out: Path, prefixes: bool = False) -> Job:
    """Return a run of the sweep."""
    shares = {"full": 1, "half": 2, "quarter": 4}
    every = 10 if setting.share == "quarter" else 5
    answers = {"sampling": size.sampling, "greedy": True, "prefixes": list(PREFIXES) if prefixes else []}
    observers = [
        component("MemorizationTracker", problems={"test_split": "test"}, answers=answers, every_n_epochs=every),
        component("GeneralizationPredictors", batch_size=size.n_train // 8, every_n_epochs=every),
    ]
    trainer = _trainer(setting.epochs, observers) | {"limit_val_batches": 0}
    n_train = size.n_train // shares[setting.share]
    return Job(
        setting.name(seed),
        {
            "seed_everything": seed,
            "trainer": trainer,
            "model": _model(size, _pretrained(out, seed), setting.rate, warmup=5, schedule="linear"),
            "data": _data(seed, n_train=n_train, n_val=0, n_test=size.n_test, batch_size=16),
        },
    )


def _pretrained(out: Path, seed: int) -> dict[str, object]:
    return component("PretrainedLanguageModel", name=str(pretrained_folder(out, seed).resolve()))


def _originals(seed: int, size: StudySize) -> dict[str, object]:
    chains = {"chains": {"min_steps": 2, "max_steps": 4}}
    numbers = {"n_train": size.n_curation, "n_val": 0, "n_test": 2 * size.n_test}
    arguments = WORLD | chains | numbers | {"seed": 500 + seed}  # no derive_seed: committed results are of these
    return {"class_path": "ArithmeticDataModule", "init_args": arguments}


def curation_data(seed: int, size: StudySize) -> VariantSource:
    """Return a seed's originals, of which variants can be made."""
    from surefoot.cli.loading import build_datamodule  # imports lightning

    data = build_datamodule(_originals(seed, size))
    return contract_of(data, VariantSource, "curation")


def curation_round(seed: int, size: StudySize, out: Path, name: str, additions: Sequence[Path]) -> Job:
    """Return a run that trains from the pretrained model on the originals and what was added."""
    originals = _originals(seed, size)
    every = max(1, size.curation_epochs // 3)
    tracked = {"test_split": "test", "data": originals}
    tracker = component(
        "MemorizationTracker", problems=tracked, answers={"sampling": size.sampling}, every_n_epochs=every
    )
    trainer = _trainer(size.curation_epochs, [tracker]) | {"limit_val_batches": 0}
    added = [str(a.resolve()) for a in additions]
    return Job(
        f"curation_{name}_seed{seed}",
        {
            "seed_everything": seed,
            "trainer": trainer,
            "model": _model(size, _pretrained(out, seed), MIDDLE_RATE, warmup=5, schedule="linear"),
            "data": component("CuratedDataModule", data=originals, additions=added, batch_size=16, seed=seed),
        },
    )
