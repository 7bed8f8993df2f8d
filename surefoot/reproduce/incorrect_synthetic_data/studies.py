"""The runs of the arithmetic study: a policy of each synthetic data set, and what is learned from its own solutions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.reproduce.claims import Scale
from surefoot.reproduce.jobs import Job, changed, component, slug
from surefoot.reproduce.language_models import ENGINE, completions_of, model_of, optimizer, trainer

__all__ = (
    "EDIT_DPO",
    "FEW_ATTEMPTS",
    "FIRST_SEED",
    "LABELS",
    "LABELS_ONCE",
    "PAIRS",
    "PER_STEP_DPO",
    "RANDOM_DPO",
    "SAMPLES",
    "SFT",
    "SHARED_PREFIX",
    "ScalingSize",
    "SyntheticData",
    "fine_tuning",
    "folder",
    "learning",
    "pits",
    "policy",
    "problems",
    "rft",
    "sampling",
    "sizes",
    "weighted",
)

#: Of what is judged. Settings were chosen on seed 100.
FIRST_SEED = 200
#: Methods, as tables name them.
SFT, PER_STEP_DPO, RANDOM_DPO, EDIT_DPO = "SFT", "per-step DPO", "DPO, random pairs", "DPO, distant pairs"
#: Per-step DPO otherwise.
SHARED_PREFIX, FEW_ATTEMPTS = "per-step DPO, shared prefix", "per-step DPO, one attempt"
#: What is stored of a data set: solutions of its policy, these with values of their steps, with values of one attempt
#: each, and pairs of them.
SAMPLES, LABELS, LABELS_ONCE, PAIRS = "samples", "labels", "labels_once", "pairs"
#: Solutions or pairs of an optimizer step, and tokens of a solution.
BATCH, MAX_TOKENS = 32, 64
PAIRS_OF_A_PROBLEM = 4


class ScalingSize(NamedTuple):
    """How large the study is."""

    epochs: Mapping[int, int]  # number of synthetic problems -> epochs of SFT
    n_problems: Sequence[int]  # numbers of which the policy's own solutions are learned from too
    n_fixed: int  # number at which variants are compared
    n_samples: int  # of each problem, for RFT
    n_labelled: int  # of these, the first ones, whose steps get values
    n_rollouts: int  # from each of their prefixes
    kept: Sequence[int]  # most correct solutions of a problem, in RFT
    ks: Sequence[int]  # attempts of the prover, in weighted SFT
    betas: Sequence[float]  # of DPO, at the fixed number
    n_test: int


def sizes(scale: Scale) -> ScalingSize:
    """Return the study of a scale."""
    if scale == "quick":
        return ScalingSize(
            epochs={48: 20, 96: 10}, n_problems=(48,), n_fixed=48, n_samples=4, n_labelled=2, n_rollouts=2, kept=(1, 4),
            ks=(5,), betas=(0.1,), n_test=16,
        )  # fmt: skip
    return ScalingSize(
        epochs={500: 40, 1000: 30, 2000: 15, 4000: 10, 8000: 6, 16_000: 4}, n_problems=(500, 1000, 2000), n_fixed=1000,
        n_samples=16, n_labelled=8, n_rollouts=8, kept=(1, 4, 16), ks=(1, 5), betas=(0.03, 0.1, 0.3, 1.0), n_test=512,
    )  # fmt: skip


class SyntheticData(NamedTuple):
    """Problems with a teacher's solutions."""

    seed: int
    n: int
    spurious_rate: float = 0.0  # of true lines before each step that do not advance the solution

    @property
    def name(self) -> str:
        """For runs and folders, without the seed."""
        return f"n{self.n}" + (f"_spurious{self.spurious_rate:g}" if self.spurious_rate else "")


def problems(given: SyntheticData, size: ScalingSize, **more: Any) -> dict[str, Any]:
    """Return a data set: chains of two to four operations, of which the teacher does two at once in every second step.

    Such steps are hard, and the teacher never errs: that short steps are safer can only be learned from own errors.
    """
    solutions = {"long_step_rate": 0.5, "spurious_rate": given.spurious_rate}
    settings = {"chains": {"min_steps": 2, "max_steps": 4}, "solutions": solutions, "seed": given.seed}
    numbers = {"n_train": given.n, "n_val": size.n_test, "n_test": size.n_test}
    return component("ArithmeticDataModule", **{**settings, **numbers, **more})


def sampling(n: int, temperature: float = 1.0) -> dict[str, Any]:
    """Return how solutions are sampled."""
    return {"n": n, "temperature": temperature, "max_tokens": MAX_TOKENS}


def folder(name: str, given: SyntheticData, out: Path) -> Path:
    """Return where something is stored of a data set."""
    return completions_of(f"{name}_{given.name}", given.seed, out)


def policy(given: SyntheticData, out: Path) -> dict[str, Any]:
    """Return the policy that was made of the teacher's solutions."""
    return model_of(f"sft_{given.name}_seed{given.seed}", out)


def pits(form: str = "full") -> dict[str, Any]:
    """Return what pairs solutions up to their first pit with right ones."""
    return component("FirstPitPairs", form=form, max_per_problem=PAIRS_OF_A_PROBLEM)


def fine_tuning(given: SyntheticData, size: ScalingSize) -> Job:
    """Return the run that makes the policy of the teacher's solutions."""
    data = problems(given, size, batch_size=BATCH, eval_batch_size=512)
    steps = {"max_epochs": size.epochs[given.n], "check_val_every_n_epoch": size.epochs[given.n]}
    return _job(f"sft_{given.name}", given, "SFT", _untrained(given), data, steps, 2e-3)


def rft(given: SyntheticData, size: ScalingSize, kept: int, out: Path) -> Job:
    """Return the run that makes a policy anew of right solutions of its own, with twice the steps of SFT.

    Args:
        given: Whose policy has sampled them.
        size: Of the study.
        kept: Most solutions of a problem.
        out: Folder of runs.
    """
    samples = str(folder(SAMPLES, given, out).resolve())
    data = component("CompletionsDataModule", completions=samples, max_per_problem=kept)
    n_steps = 2 * size.epochs[given.n] * -(-given.n // BATCH)
    steps = {"max_steps": n_steps, "max_epochs": -1, "check_val_every_n_epoch": None, "val_check_interval": n_steps}
    return _job(f"rft{kept}_{given.name}", given, "SFT", _untrained(given), _evaluated(data, given, size), steps, 2e-3)


def learning(method: str, given: SyntheticData, size: ScalingSize, out: Path, beta: float = 0.1) -> Job:
    """Return the run that learns from pairs of a policy's solutions.

    Args:
        method: A kind of DPO.
        given: Whose policy has sampled them.
        size: Of the study.
        out: Folder of runs.
        beta: Of DPO.
    """
    builders = {
        PER_STEP_DPO: (LABELS, pits()),
        FEW_ATTEMPTS: (LABELS_ONCE, pits()),
        RANDOM_DPO: (LABELS, component("RandomPairs", max_per_problem=PAIRS_OF_A_PROBLEM)),
        EDIT_DPO: (LABELS, component("EditDistancePairs", max_per_problem=PAIRS_OF_A_PROBLEM)),
    }
    if method == SHARED_PREFIX:
        pairs: dict[str, Any] = {"pairs": str(folder(PAIRS, given, out).resolve())}
    else:
        stored, builder = builders[method]
        pairs = {"completions": str(folder(stored, given, out).resolve()), "builder": builder}
    data = _evaluated(component("PreferencesDataModule", **pairs), given, size)
    name, steps = f"{slug(method)}_beta{beta:g}_{given.name}", {"max_epochs": 1}
    return _job(name, given, "DPO", policy(given, out), data, steps, 3e-5, beta=beta)


def weighted(given: SyntheticData, size: ScalingSize, k: int, out: Path) -> Job:
    """Return the run that weighs the steps of a policy's solutions by their advantages for the best of k attempts."""
    labels = str(folder(LABELS, given, out).resolve())
    data = _evaluated(component("LabelledTrajectoriesDataModule", completions=labels), given, size)
    name, steps = f"weighted_k{k}_{given.name}", {"max_epochs": 1}
    return _job(name, given, "AdvantageWeightedSFT", policy(given, out), data, steps, 3e-4, beta=0.3, k=k)


def _untrained(given: SyntheticData) -> dict[str, Any]:
    return component("TinyLanguageModel", width=64, n_layers=3, seed=given.seed, initializer_range=0.08)


def _evaluated(data: Mapping[str, Any], given: SyntheticData, size: ScalingSize) -> dict[str, Any]:
    """Return stored solutions or pairs with the validation problems of their data set."""
    return changed(data, evaluate_on=problems(given, size), batch_size=BATCH, eval_batch_size=512)


def _job(
    name: str,
    given: SyntheticData,
    method: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    steps: Mapping[str, Any],
    lr: float,
    **settings: Any,
) -> Job:
    """Return a run; its learning rate falls to 0."""
    module = {
        "language_model": dict(model),
        "engine": ENGINE,
        "evaluation": {"temperature": 0.0, "max_tokens": MAX_TOKENS},
        "schedule": "linear",
        **optimizer(lr, 20),
        **settings,
    }
    return Job(
        f"{name}_seed{given.seed}",
        {
            "seed_everything": given.seed,
            "trainer": trainer([component("ModelExporter")], **steps),
            "model": component(method, **module),
            "data": dict(data),
        },
    )
