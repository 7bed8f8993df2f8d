"""One dataset, all methods, the same tuning: what papers on group robustness are compared on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from surefoot.reproduce._experiments import Job, Result, run_jobs
from surefoot.statistics import paired_difference

__all__ = (
    "AVERAGE",
    "BITS",
    "DIGITS",
    "FASHION",
    "FEATURES",
    "PRACTICAL",
    "RULE",
    "WATERBIRDS",
    "WORST",
    "Method",
    "Study",
    "compare",
    "difference_rows",
    "job",
    "last_value",
    "methods",
    "minority_weights",
    "recovery",
    "result_rows",
    "slug",
    "tune",
    "worst",
)

RULE = "val_worst_group"


VALIDATION = "val/worst_group_accuracy"
WORST, AVERAGE = "test/worst_group_accuracy", "test/train_weighted_accuracy"


#: The form that the paper recommends in practice, and the objective itself with two adversaries.
PRACTICAL = "BR-DRO (no-regret, Hedge)"
BITS, FEATURES = "BR-DRO (VIB, simple observation)", "BR-DRO (l2, features)"

#: How far Hedge may raise the logarithm of an importance in a whole run: the authors' 0.05 in 300 epochs on Waterbirds.
_HEDGE_GROWTH = 15.0


_TUNING_SEED = 1000  # tuning seeds start here; they are never evaluated


@dataclass(frozen=True)
class Study:
    """One dataset on which every method is tuned alike and compared."""

    name: str
    data: Mapping[str, Any]
    encoder: Mapping[str, Any]
    optimizer: Mapping[str, Any]  # the same weight decay for every method
    epochs: int
    n_tuning_seeds: int
    adversary_optimizer: Mapping[str, Any]
    trainer: Mapping[str, Any]


_ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 3e-3, "weight_decay": 1e-3}}


_CPU = {"accelerator": "cpu"}


DIGITS = Study(
    "digits",
    {"class_path": "DigitsDataModule", "init_args": {"confounder_strength": 0.3}},
    {"class_path": "SmallCNN", "init_args": {"widths": [32, 64]}},
    _ADAM,
    60,
    2,
    {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
    _CPU,
)


FASHION = Study(
    "fashion_mnist",
    {
        "class_path": "FashionMNISTDataModule",
        "init_args": {
            "classes": [5, 7],
            "n_train": 2000,
            "n_eval": 1500,
            "confounder_strength": 0.1,
        },
    },
    {"class_path": "SmallCNN", "init_args": {"widths": [16, 32, 64]}},
    _ADAM,
    30,
    1,
    {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
    _CPU,
)


#: The paper's own setting, for a GPU: Waterbirds, ResNet-50, weight decay 1.
WATERBIRDS = Study(
    "waterbirds",
    {
        "class_path": "WILDSDataModule",
        "init_args": {"dataset": "waterbirds", "batch_size": 128, "augmentation": "crop_flip"},
    },
    {"class_path": "TimmEncoder", "init_args": {"name": "resnet50", "pretrained": True}},
    {
        "class_path": "torch.optim.SGD",
        "init_args": {"lr": 1e-5, "momentum": 0.9, "weight_decay": 1.0},
    },
    300,
    1,
    {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
    {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"},
)


@dataclass(frozen=True)
class Method:
    """A method with the settings that it may be tuned over, as many for each method."""

    name: str
    class_path: str
    candidates: tuple[Mapping[str, Any], ...]
    groups: bool = False  # sees group labels in training


def methods(study: Study) -> tuple[Method, ...]:
    """Return all methods with their tuning candidates."""
    return published_methods() if study is WATERBIRDS else small_methods(study)


def published_methods() -> tuple[Method, ...]:
    """Return the methods with the settings and search spaces published for Waterbirds (baselines, sections 2 to 5)."""
    authors = {
        "adversary": {
            "class_path": "LinearAdversary",
            "init_args": {"norm": "l1", "temperature": 10.0},
        },
        "adversary_optimizer": dict(WATERBIRDS.adversary_optimizer),
        "update": "no_regret",
        "level": 0.05,
    }
    vib = {**authors, "adversary": {"class_path": "VIBAdversary"}, "standardise_observation": True}
    rates = tuple({"lr": lr} for lr in (1e-5, 1e-4, 1e-3))
    return (
        Method("ERM", "ERM", rates),
        Method("CVaR-DRO", "CVaRDRO", tuple({"level": v} for v in (0.1, 0.2, 0.5))),
        Method("LfF", "LfF", rates),
        Method("JTT", "JTT", tuple({"identification_epochs": 60, "upweight": u} for u in (20, 50, 100))),
        Method(
            PRACTICAL,
            "BRDRO",
            tuple({**authors, "penalty": p, "hedge_step": 0.05, "importance": "sampling"} for p in (0.02, 0.05, 0.1)),
        ),
        Method(BITS, "BRDRO", tuple({**vib, "penalty": p} for p in (0.02, 0.1, 0.2))),
        Method(FEATURES, "BRDRO", tuple({**authors, "penalty": p} for p in (0.02, 0.05, 0.1))),
        Method(
            "Group DRO",
            "GroupDRO",
            tuple({"step_size": s} for s in (0.001, 0.01, 0.1)),
            groups=True,
        ),
    )


def small_methods(study: Study) -> tuple[Method, ...]:
    """Return the methods of a study that a CPU carries, four candidates each."""
    vib = {
        "adversary": {"class_path": "VIBAdversary"},
        "adversary_optimizer": {**study.adversary_optimizer, "init_args": {"lr": 5e-3}},
        "level": 0.1,
        "observation": {"class_path": "ChannelStatistics"},
        "standardise_observation": True,
    }
    linear = {
        "adversary": {
            "class_path": "LinearAdversary",
            "init_args": {"norm": "l2", "temperature": 10.0},
        },
        "adversary_optimizer": dict(study.adversary_optimizer),
        "level": 0.1,
    }
    practical = {**vib, "update": "no_regret", "hedge_step": _HEDGE_GROWTH / study.epochs}
    base = study.optimizer["init_args"]["lr"]

    def grid(*own: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        return tuple({**settings, "lr": rate * base} for settings in own for rate in (1, 3))

    rates = tuple({"lr": rate * base} for rate in (1 / 3, 1, 3, 10))
    return (
        Method("ERM", "ERM", rates),
        Method("CVaR-DRO", "CVaRDRO", grid({"level": 0.1}, {"level": 0.5})),
        Method("LfF", "LfF", rates),
        Method("JTT", "JTT", grid(*({"identification_epochs": 5, "upweight": u} for u in (20, 50)))),
        Method(
            PRACTICAL,
            "BRDRO",
            grid(*({**practical, "penalty": 1e-3, "importance": i} for i in ("loss", "sampling"))),
        ),
        Method(BITS, "BRDRO", grid(*({**vib, "penalty": p} for p in (3e-4, 1e-3)))),
        Method(FEATURES, "BRDRO", grid(*({**linear, "penalty": p} for p in (1e-4, 1e-3)))),
        Method("Group DRO", "GroupDRO", grid({"step_size": 0.01}, {"step_size": 0.1}), groups=True),
    )


def job(
    study: Study,
    method: Method,
    candidate: Mapping[str, Any],
    seed: int,
    name: str,
    data: Mapping[str, Any] | None = None,
) -> Job:
    """Return the training run of a method on a study's data."""
    own = dict(candidate)
    optimizer = {**study.optimizer, "init_args": dict(study.optimizer["init_args"])}
    if "lr" in own:
        optimizer["init_args"]["lr"] = own.pop("lr")
    sampling = {"sampling": "group_balanced"} if method.groups else {"group_labels": "hidden"}
    return Job(
        name,
        {
            "seed_everything": seed,
            "trainer": {
                **study.trainer,
                "max_epochs": study.epochs,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1000,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "callbacks": [{"class_path": "GroupMetrics"}, {"class_path": "AdversaryMonitor"}],
            },
            "model": {
                "class_path": method.class_path,
                "init_args": {"encoder": dict(study.encoder), "optimizer": optimizer, **own},
            },
            "data": {
                **study.data,
                "init_args": {**study.data["init_args"], **sampling, **(data or {}), "seed": seed},
            },
        },
    )


def slug(text: str) -> str:
    """Return a name that is good for files."""
    return "".join(c if c.isalnum() else "_" for c in text.lower()).strip("_")


def worst(result: Result) -> float:
    """Return the test accuracy of the worst group at the epoch with the best worst group on val."""
    return result.selection[RULE][WORST]


def tune(study: Study, out: Path, n_seeds: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Choose each method's candidate by its mean worst-group accuracy on val, over seeds that are not evaluated.

    Returns:
        Method -> candidate, and one tidy row per method, candidate and seed.
    """
    all_methods = methods(study)
    keys = [
        (m, i, s)
        for m in all_methods
        for i in range(len(m.candidates))
        for s in range(_TUNING_SEED, _TUNING_SEED + n_seeds)
    ]
    names = {(m.name, i, s): f"{study.name}-tune-{slug(m.name)}-{i}-{s}" for m, i, s in keys}
    jobs = [job(study, m, m.candidates[i], s, names[m.name, i, s]) for m, i, s in keys]
    results = run_jobs(jobs, out)
    score = {(m.name, i, s): results[names[m.name, i, s]].selection[RULE][VALIDATION] for m, i, s in keys}
    rows = [
        {"study": study.name, "method": n, "candidate": i, "seed": s, "val_worst_group": value}
        for (n, i, s), value in score.items()
    ]
    chosen = {}
    for method in all_methods:
        means = [
            fmean(v for (n, c, _), v in score.items() if (n, c) == (method.name, i))
            for i in range(len(method.candidates))
        ]
        chosen[method.name] = means.index(max(means))
    return chosen, rows


def recovery(result: Result, name: str) -> float:
    """Return the mean of a monitored quantity over the second half of the epochs."""
    values = result.history.get(f"adversary/{name}", [])
    return fmean(values[len(values) // 2 :]) if values else float("nan")


def compare(
    study: Study,
    chosen: Mapping[str, int],
    n_seeds: int,
    out: Path,
    leave_out: Collection[str] = (),
) -> dict[str, list[Result]]:
    """Train methods at their chosen candidates on the evaluation seeds."""
    all_methods = [m for m in methods(study) if m.name not in leave_out]
    names = {(m.name, s): f"{study.name}-{slug(m.name)}-{s}" for m in all_methods for s in range(n_seeds)}
    jobs = [
        job(study, m, m.candidates[chosen[m.name]], s, names[m.name, s]) for m in all_methods for s in range(n_seeds)
    ]
    results = run_jobs(jobs, out)
    return {m.name: [results[names[m.name, s]] for s in range(n_seeds)] for m in all_methods}


def last_value(result: Result, name: str) -> float:
    """Return the last value of a logged quantity, NaN if it was not logged."""
    return result.last.get(name, float("nan"))


def minority_weights(result: Result) -> list[str]:
    """Return the names of the logged mean weights of the groups whose confounder disagrees (two classes)."""
    pairs = ("y=0,colour=1", "y=1,colour=0")
    return [f"adversary/group_weight/{p}" for p in pairs if f"adversary/group_weight/{p}" in result.history]


def result_rows(
    study: Study, chosen: Mapping[str, int], results: Mapping[str, Sequence[Result]]
) -> list[dict[str, Any]]:
    """Return one tidy row per method and seed."""
    by_name = {m.name: m for m in methods(study)}
    return [
        {
            "study": study.name,
            "method": name,
            "candidate": chosen[name],
            "group_labels": by_name[name].groups,
            "seed": seed,
            **result.selection[RULE],
            "oracle_worst_group": result.selection["test_oracle"][WORST],
            "val_average_worst_group": result.selection["val_average"][WORST],
            "train_accuracy": result.last.get("train/accuracy"),
            **{f"minority_{k}": recovery(result, f"minority_{k}") for k in ("auc", "precision", "recall")},
        }
        for name, rs in results.items()
        for seed, result in enumerate(rs)
    ]


def difference_rows(study: Study, results: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """Return the paired difference of every two methods, with its 95% interval over seeds."""
    quantities = {"worst_group": WORST, "average": AVERAGE}
    rows = []
    for first, second in combinations(results, 2):
        for name, quantity in quantities.items():
            values = ([r.selection[RULE][quantity] for r in results[m]] for m in (first, second))
            estimate = paired_difference(*values)
            rows.append(
                {
                    "study": study.name,
                    "method": first,
                    "minus": second,
                    "quantity": name,
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n_seeds": estimate.n,
                }
            )
    return rows
