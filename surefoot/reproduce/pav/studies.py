"""The runs of the arithmetic study: a policy per seed, its labelled samples, verifiers, searches, reinforcement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from surefoot.reproduce.claims import Scale
from surefoot.reproduce.jobs import Job, changed, component
from surefoot.reproduce.language_models import ENGINE, folder_of, model_of, optimizer, trainer

__all__ = (
    "ALPHA",
    "EXACT",
    "FIRST_SEED",
    "JUDGE",
    "ORACLE",
    "SAMPLING",
    "VERIFIERS",
    "K",
    "RewardSetting",
    "Size",
    "data",
    "policy",
    "pretraining",
    "reinforcement",
    "sizes",
    "verifier",
    "weak_policy",
)

#: Of policies that are judged. Settings were chosen on seeds 0 to 4 and 100.
FIRST_SEED = 200
#: Attempts of the prover in a beam search, and the weight of its advantage where that is not chosen: the paper's.
K, ALPHA = 4, 0.5
JUDGE = "process"  # the verifier whose values guide beams and reward steps
#: Completions as they are sampled everywhere.
SAMPLING: Mapping[str, Any] = {"temperature": 1.0, "max_tokens": 48}
#: The policy's values, computed: the verifier that knows all.
ORACLE = "oracle"
EXACT = component("ExactChainValues", tolerance=1.0)  # a policy goes on in many ways from what it never writes
#: Of a step in the solutions that models learn from: where wrong steps are done again, where they stay, and where they
#: are so many that right answers are luck.
NOTICED_ERROR_RATE, ERROR_RATE, WEAK_ERROR_RATE = 0.2, 0.15, 0.5
#: Solutions of an optimizer step, before there is a policy.
BATCH = 64


#: Verifier -> the labels that it learns. The outcome's are the same for all prefixes of a completion (as in Cobbe et
#: al. 2021, arXiv 2110.14168; of its end alone a model of this size learns nothing from 51,200); the control learns
#: whether each step is right.
VERIFIERS = {
    "outcome": "outcomes",
    "process": "labels",
    "control": "on_track",
    "few": "few",
    "first_pit": "first_pit",
}


class RewardSetting(NamedTuple):
    """How a policy is reinforced."""

    alpha: float  # of the prover's advantage; 0 for outcomes alone
    k: int  # attempts of the prover
    n_runs: int = 1  # of each policy

    @property
    def name(self) -> str:
        """Its name in tables."""
        return "outcome" if self.alpha == 0 else f"alpha {self.alpha:g}, K {self.k}"


class Size(NamedTuple):
    """How large the study is."""

    n_steps: int  # operations of a problem
    n_pretraining: int  # solutions whose wrong steps are noticed and done again
    n_erring: int  # solutions whose wrong steps stay
    n_validation: int  # problems on which training is watched
    n_traces: int  # whose steps are labelled
    n_rollouts: int  # from each of their prefixes
    n_outcomes: int  # completions of the outcome reward model
    n_held_out: int  # traces of the gate
    n_oracle: int  # rollouts from each of their prefixes
    n_predicted: int  # completions whose outcomes are predicted step by step
    n_few: int  # traces where first pits are compared with all steps
    epochs: int  # of a verifier on labelled traces; with fewer of them half as many steps
    outcome_epochs: int  # of the outcome reward model
    n_problems: int  # of a search, and of Pass@N
    samples: Sequence[int]  # of which the best is chosen
    widths: Sequence[int]  # candidates of a beam search
    ks: Sequence[int]  # attempts of the prover, compared at `width`
    width: int
    n_pass: int  # samples of each problem after reinforcement
    iterations: int
    rollout: int  # problems of an iteration
    rewards: Sequence[RewardSetting]
    alphas: Sequence[float]  # of the advantage in a beam search; the best on held-out problems is used
    verifiers: Sequence[str]


def sizes(scale: Scale) -> Size:
    """Return the study of a scale."""
    if scale == "quick":
        return Size(
            n_steps=2, n_pretraining=640, n_erring=64, n_validation=32, n_traces=24, n_rollouts=2, n_outcomes=48,
            n_held_out=8, n_oracle=4, n_predicted=16, n_few=8, epochs=1, outcome_epochs=1, n_problems=8,
            samples=(1, 2), widths=(1, 2), ks=(), width=2, n_pass=4, iterations=2, rollout=8,
            rewards=(RewardSetting(3, 1),), alphas=(0.5,), verifiers=("outcome", "process", "control"),
        )  # fmt: skip
    return Size(
        n_steps=5, n_pretraining=64_000, n_erring=9600, n_validation=512, n_traces=8192, n_rollouts=4,
        n_outcomes=102_400, n_held_out=128, n_oracle=32, n_predicted=1024, n_few=1024, epochs=10, outcome_epochs=1,
        n_problems=128, samples=(1, 2, 4, 8, 16, 32, 64), widths=(1, 2, 4, 8, 16), ks=(1, 2, 4, 8, 16, 32), width=8,
        n_pass=64, iterations=150, rollout=128,
        rewards=tuple(RewardSetting(*r) for r in ((0, 1, 2), (3, 1, 2), (3, 4))),
        alphas=(0.2, 0.5, 1.0), verifiers=(*VERIFIERS, ORACLE),
    )  # fmt: skip


def values_of(job: str, out: Path) -> dict[str, Any]:
    """Return the values that a verifier predicts."""
    return component("LearnedValues", run=str(folder_of(job, out).resolve()))


def data(size: Size, seed: int, min_steps: int | None = None, **numbers: Any) -> dict[str, Any]:
    """Return chains of additions and subtractions modulo 5, from which wrong steps hardly recover."""
    chains = {"min_steps": min_steps or size.n_steps, "max_steps": size.n_steps, "operators": "+-"}
    return component("ArithmeticDataModule", chains={**chains, "modulus": 5, "max_operand": 4}, seed=seed, **numbers)


def pretraining(seed: int, size: Size) -> Job:
    """Return the run that teaches a model arithmetic, and to notice wrong steps: it does each of them again."""
    model = component("TinyLanguageModel", width=64, n_layers=4, seed=seed, initializer_range=0.08)
    solutions = {"error_rate": NOTICED_ERROR_RATE, "retry_rate": 1.0}
    problems = data(size, seed, 1, n_train=size.n_pretraining, n_val=size.n_validation, solutions=solutions)
    return _fine_tuning(f"pretrained_seed{seed}", seed, model, problems)


def policy(seed: int, size: Size, out: Path) -> Job:
    """Return the run that makes the policy of it, by solutions whose wrong steps stay: it errs when it samples."""
    return _erring(f"policy_seed{seed}", ERROR_RATE, seed, size, out)


def weak_policy(seed: int, size: Size, out: Path) -> Job:
    """Return the run that makes the policy that is reinforced, which errs so much that outcomes teach it little."""
    return _erring(f"weak_seed{seed}", WEAK_ERROR_RATE, seed, size, out)


def _erring(name: str, error_rate: float, seed: int, size: Size, out: Path) -> Job:
    numbers = {"n_train": size.n_erring, "n_val": size.n_validation}
    problems = data(size, 500 + seed, **numbers, solutions={"error_rate": error_rate})
    return _fine_tuning(name, seed, model_of(f"pretrained_seed{seed}", out), problems)


def _fine_tuning(name: str, seed: int, model: Mapping[str, Any], problems: Mapping[str, Any]) -> Job:
    evaluation = {"temperature": 0.0, "max_tokens": 48}
    settings = {"language_model": model, "engine": ENGINE, "evaluation": evaluation, **optimizer(2e-3, 20)}
    return Job(
        name,
        {
            "seed_everything": seed,
            "trainer": trainer([component("ModelExporter")], max_epochs=1),
            "model": component("SFT", **settings),
            "data": changed(problems, batch_size=BATCH, eval_batch_size=512),
        },
    )


def verifier(seed: int, size: Size, name: str, completions: Path, out: Path) -> Job:
    """Return the run that trains a verifier, from the weights that the policy was made of.

    Args:
        seed: Of the policy and of the order of examples.
        size: Of the study.
        name: Of the verifier.
        completions: Labelled ones.
        out: Folder of runs.
    """
    settings = {"language_model": model_of(f"pretrained_seed{seed}", out), **optimizer(1e-3, 0.1)}
    settings["schedule"] = "linear"
    given = {"completions": str(completions.resolve()), "balanced": True, "batch_size": 64, "eval_batch_size": 512}
    return Job(
        f"{name}_seed{seed}",
        {
            "seed_everything": seed,
            "trainer": trainer(max_epochs=size.epochs),
            "model": component("ProcessReward", **settings),
            "data": component("LabelledCompletionsDataModule", **given),
        },
    )


def reinforcement(seed: int, size: Size, reward: RewardSetting, run: int, out: Path, lr: float) -> Job:
    """Return a run that reinforces the weak policy; the prover is the other one.

    Args:
        seed: Of the policy.
        size: Of the study.
        reward: Of steps.
        run: Number of the run, from which problems and draws follow as well.
        out: Folder of runs.
        lr: Learning rate.
    """
    credit = component("EffectiveRewardAdvantage", alpha=reward.alpha, k=reward.k, baseline="none")
    settings = {
        "language_model": model_of(f"weak_seed{seed}", out),
        "engine": ENGINE,
        "sampling": {"n": 1, **SAMPLING},
        "rewards": {"step_separator": "\n"},
        "values": values_of(f"{JUDGE}_seed{seed}", out),
        "credit": credit,
        "evaluation": dict(SAMPLING),
        **optimizer(lr, 10),
    }
    steps = {"max_steps": size.iterations, "max_epochs": -1, "check_val_every_n_epoch": None}
    steps["val_check_interval"] = max(1, size.iterations // 30)
    numbers = {"n_train": size.iterations * size.rollout, "n_val": size.n_validation}
    problems = data(size, 3000 + 100 * run + seed, **numbers, batch_size=size.rollout, eval_batch_size=512)
    return Job(
        f"reinforced_{reward.alpha:g}_{reward.k}_lr{lr:g}_seed{seed}_run{run}",
        {
            "seed_everything": 1000 * run + seed,
            "trainer": trainer([component("ModelExporter")], **steps),
            "model": component("Reinforce", **settings),
            "data": problems,
        },
    )  # fmt: skip
