"""Configs of runs that two ranks and one rank train alike: with half the batch each, ranks see what one rank sees."""

from pathlib import Path
from typing import Any

import yaml
from conftest import tiny
from labelled_completions import labelled_completions
from pseudo_labels import two_streams
from small_datasets import write_pairs
from tiny_reasoning import tiny_reasoning

__all__ = (
    "JUDGED",
    "METHODS",
    "REASONING",
    "classifier_settings",
    "dfr_settings",
    "frozen_settings",
    "judged_settings",
    "private_settings",
    "reasoning_settings",
    "sharded_settings",
    "shifted_settings",
    "streams_settings",
    "value_settings",
)

ROOT = Path(__file__).parents[1]

#: Classifiers' methods.
METHODS = ("ERM", "GroupDRO", "CVaRDRO", "BRDRO", "LfF", "JTT")

#: Language models' methods.
REASONING = ("SFT", "AdvantageWeightedSFT", "GRPO", "DPO", "RFT")

#: Value models of steps -> share of the problems that are held out.
JUDGED = {"judged": 0.3, "judged_few": 0.12}


def classifier_settings(method: str, n_ranks: int) -> dict[str, object]:
    """Return a config of one of `METHODS`."""
    config = tiny(method)
    config["data"]["init_args"]["batch_size"] = 104 // n_ranks
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 10}
    config["trainer"]["callbacks"].append({"class_path": "ExampleDynamics"})
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    if method == "BRDRO":
        config["model"]["init_args"]["update"] = {"class_path": "NoRegretUpdate", "init_args": {"hedge_step": 0.05}}
    if method == "GroupDRO":
        config["data"]["init_args"]["training"] = {"sampling": "group_balanced"}
        config["model"]["init_args"]["step_size"] = 0.5
    if method == "CVaRDRO":
        config["model"]["init_args"]["level"] = 0.25
    return config


def reasoning_settings(method: str, n_ranks: int, folder: Path) -> dict[str, Any]:
    """Return a config in which two ranks with half the batch each see what one rank sees."""
    config = tiny_reasoning(method)
    config["model"]["init_args"] |= {"max_gradient_norm": 0.5, "max_tokens_per_pack": 120}
    config["model"]["init_args"]["optimizer"] = {
        "class_path": "torch.optim.SGD",
        "init_args": {"lr": 0.5},
    }
    if method == "GRPO":  # a single epoch over each minibatch: dealt out, minibatches would hold other groups
        config["model"]["init_args"] |= {
            "updates": {"epochs": 2},
            "credit": {"class_path": "GroupAdvantage", "init_args": {"scale": "batch"}},
        }
    if method == "DPO":
        config["model"]["init_args"]["engine"] = None
        config["data"] = {
            "class_path": "PreferencesDataModule",
            "init_args": {"pairs": str(write_pairs(folder)), "n_val": 2},
        }
    if method == "AdvantageWeightedSFT":
        completions = folder / "labelled_steps"
        if not completions.is_dir():
            labelled_completions(completions, n_problems=8)
        config["data"] = {
            "class_path": "LabelledTrajectoriesDataModule",
            "init_args": {"completions": str(completions), "seed": 0},
        }
    if method in ("SFT", "GRPO"):
        sampling = {"n": 3, "temperature": 0.8, "max_tokens": 10}
        observers = [
            {
                "class_path": "MemorizationTracker",
                "init_args": {"answers": {"sampling": sampling, "greedy": True}, "log_log_threshold": 1.3},
            },
            {"class_path": "GeneralizationPredictors", "init_args": {"batch_size": 4}},
        ]
        config["trainer"]["callbacks"] = [*config["trainer"]["callbacks"], *observers]
    config["data"]["init_args"]["batch_size"] = 8 // n_ranks
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    return config


def sharded_settings(n_ranks: int) -> dict[str, Any]:
    """Return SFT's config, on two ranks with the strategy of the shipped overlay."""
    config = reasoning_settings("SFT", n_ranks, Path())
    # One sequence a pack, and long ones left out: the ranks have different numbers of packs.
    config["model"]["init_args"] |= {
        "engine": None,
        "max_tokens_per_pack": 1,
        "max_sequence_tokens": 47,
    }
    config["trainer"] |= {"callbacks": [{"class_path": "ModelExporter"}], "limit_val_batches": 0}
    if n_ranks > 1:
        overlay = yaml.safe_load((ROOT / "configs/overlays/fsdp.yaml").read_text())["trainer"]
        overlay["strategy"]["init_args"]["data_parallel_size"] = n_ranks
        config["trainer"] |= overlay | {"devices": n_ranks}
    return config


def value_settings(n_ranks: int) -> dict[str, Any]:
    """Return the config of a value head on a language model; sharded on two ranks, and its gradient clipped."""
    config = sharded_settings(n_ranks)
    config["model"]["class_path"] = "value_regression.ValueRegression"
    del config["model"]["init_args"]["engine"], config["model"]["init_args"]["max_sequence_tokens"]
    del config["model"]["init_args"]["evaluation"]
    config["model"]["init_args"]["max_gradient_norm"] = 0.1
    return config


def private_settings(n_ranks: int) -> dict[str, Any]:
    """Return a config of DP-SGD; ranks share each Poisson sample and the noise."""
    seeded = {"class_path": "SeededNoise", "init_args": {"seed": 0}}
    config = tiny("ERM")
    config["trainer"] |= {"max_epochs": 1, "callbacks": []}
    config["model"] = {
        "class_path": "PrivateLinear",
        "init_args": {
            "loss": "squared",
            "budget": {"epsilon": 1.0, "delta": 1e-5},
            "noise": seeded,
            "subspace": {"class_path": "MethodOfMoments", "init_args": {"n_directions": 3}},
        },
    }
    config["data"] = {
        "class_path": "SharedSubspaceDataModule",
        "init_args": {"source": seeded, "problem": {"n_private": 201}, "sampling_rate": 0.05, "n_eval": 64},
    }
    config["data"]["init_args"]["steps_per_epoch"] = 15
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    return config


def frozen_settings(n_ranks: int) -> dict[str, Any]:
    """Return a config of a private probe on features that ranks compute in uneven shares."""
    config = private_settings(n_ranks)
    seeded = config["model"]["init_args"]["noise"]
    config["model"]["init_args"] |= {"loss": "softmax", "subspace": None}
    config["data"] = {
        "class_path": "FrozenFeaturesDataModule",
        "init_args": {
            "source": seeded,
            "data": {"class_path": "DigitsDataModule", "init_args": {"confounding": None, "target": "digit"}},
            "encoder": {"class_path": "MLP", "init_args": {"n_inputs": 192, "widths": [8]}},
            "private_classes": [1, 3, 5],
            "n_train": 201,
            "sampling_rate": 0.05,
            "steps_per_epoch": 15,
        },
    }
    return config


def dfr_settings(n_ranks: int) -> dict[str, Any]:
    """Return a config that refits a last layer on features which two ranks collect."""
    config = tiny("DFR", n_subsets=2)
    del config["model"]["init_args"]["optimizer"]
    config["trainer"] |= {"max_epochs": 1, "callbacks": [{"class_path": "GroupMetrics"}]}
    config["data"]["init_args"] |= {"training": {"split": "val"}, "batch_size": 50 // n_ranks}
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    return config


def streams_settings(n_ranks: int) -> dict[str, Any]:
    """Return a config of two streams, of which 104 labelled and 136 unlabelled examples are in a step of all ranks."""
    config = tiny("pseudo_labels.PseudoLabels")
    config["trainer"]["callbacks"] = [{"class_path": "pseudo_labels.StreamRecorder"}]
    config["data"] = two_streams(n_ranks, augmented=False)
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    return config


def shifted_settings(n_ranks: int) -> dict[str, Any]:
    """Return a config whose test evaluates shifted sets, of sizes that two ranks share unevenly."""
    config = tiny("ERM")
    config["trainer"]["max_epochs"] = 1
    config["trainer"]["callbacks"] = [
        {
            "class_path": "ConstantSolutionAnalysis",
            "init_args": {
                "score_encoder": {"class_path": "Flatten", "init_args": {"n_inputs": 192}},
                "score_repeats": 2,
            },
        },
        {"class_path": "SelectiveRisk"},
        {"class_path": "OODDetection", "init_args": {"n_training_examples": 200}},
    ]
    config["data"]["init_args"] = {
        "confounding": None,
        "target": "digit",
        "batch_size": 104 // n_ranks,
        "shifts": [{"class_path": "Corruption", "init_args": {"kind": "noise"}}],
    }
    if n_ranks > 1:
        config["trainer"] |= {"devices": n_ranks, "strategy": "ddp"}
    return config


def judged_settings(n_ranks: int, folder: Path, val_share: float) -> dict[str, Any]:
    """Return the config of a value model of steps; 7 or 3 of 23 completions are held out, uneven shares for two."""
    config = reasoning_settings("SFT", n_ranks, folder)
    init = config["model"]["init_args"]
    config["model"]["class_path"] = "ProcessReward"
    config["model"]["init_args"] = {k: init[k] for k in ("language_model", "optimizer", "max_tokens_per_pack")}
    config["trainer"] |= {"callbacks": [], "limit_val_batches": 1.0}
    completions = folder / "labelled"
    if not completions.is_dir():
        labelled_completions(completions, n_problems=23, per_problem=1)
    arguments = {"completions": str(completions), "seed": 3, "val_share": val_share, "test_share": 0}
    arguments |= {"batch_size": 8 // n_ranks, "eval_batch_size": 1}
    config["data"] = {"class_path": "LabelledCompletionsDataModule", "init_args": arguments}
    return config
