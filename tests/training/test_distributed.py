"""Two gloo ranks train like one: whole-batch weights, thresholds and adversaries agree within float tolerance."""

import csv
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Fit
from fresh_processes import Ended, run_fresh
from pseudo_labels import read_streams
from rank_configs import (
    JUDGED,
    METHODS,
    REASONING,
    classifier_settings,
    dfr_settings,
    frozen_settings,
    judged_settings,
    private_settings,
    reasoning_settings,
    sharded_settings,
    shifted_settings,
    streams_settings,
    value_settings,
)
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from surefoot.cli import main
from surefoot.reasoning.learning_dynamics import read_record

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[2]

#: Runs every config given, one after the other, as one rank of two; Lightning has been imported without a rank.
RANK = """
import os, sys
from lightning.pytorch.utilities import rank_zero_only
from surefoot.cli import main
rank_zero_only.rank = int(os.environ["RANK"])
for config in sys.argv[2:]:
    main(["fit", "--config", config, "--runs_root", sys.argv[1]])
    if config.endswith("shifted.yaml"):
        checkpoint = sys.argv[1] + "/shifted/0/checkpoints/last.ckpt"
        main(["test", "--config", config, "--runs_root", sys.argv[1], "--experiment", "shifted-test",
              "--ckpt_path", checkpoint])
    for name, flags in (("shifted", []), ("SFT", ["--data.init_args.n_test", "7"])):
        if config.endswith(f"/{name}.yaml"):
            checkpoint = f"{sys.argv[1]}/{name}/0/checkpoints/last.ckpt"
            main(["predict", "--config", config, "--runs_root", sys.argv[1], "--experiment", name + "-predict",
                  "--ckpt_path", checkpoint, *flags])
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train every method on two ranks, in processes that know of each other what torchrun would tell them."""
    folder = tmp_path_factory.mktemp("ranks")
    every = {method: classifier_settings(method, 2) for method in METHODS}
    every |= {method: reasoning_settings(method, 2, folder) for method in REASONING}
    every |= {
        "private": private_settings(2),
        "shifted": shifted_settings(2),
        "sharded": sharded_settings(2),
        "values": value_settings(2),
        **{name: judged_settings(2, folder, share) for name, share in JUDGED.items()},
        "frozen": frozen_settings(2),
        "dfr": dfr_settings(2),
        "streams": streams_settings(2),
    }
    configs = []
    for name, given in every.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(given))
        configs.append(str(path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}

    def run(rank: int) -> Ended:
        environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return run_fresh(RANK, [str(folder / "runs"), *configs], environment, ROOT / "tests", seconds=240)

    with ThreadPoolExecutor(2) as both:
        for ended in both.map(run, range(2)):
            assert ended.code == 0, ended.errors[-3000:]
    return folder / "runs"


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_equal_one(method: str, two_ranks: Path, fit: Fit) -> None:
    alone = fit(classifier_settings(method, 1), name=method)
    states = [torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (alone, two_ranks / method / "0")]
    one, two = (s["state_dict"] for s in states)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(
                two[name],
                value,
                rtol=1e-4,
                atol=1e-5,
                equal_nan=True,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    assert len(states[1]["random_states"]) == 2, "each rank's random state is in the checkpoint"
    metrics = ((r / "selection.csv").read_text() for r in (alone, two_ranks / method / "0"))
    rows = [[line.split(",")[:7] for line in text.splitlines()] for text in metrics]
    assert rows[0] == rows[1], "each example is evaluated once, on one rank or the other"
    seen = [
        [r["n_seen"] for r in csv.DictReader((folder / "example_dynamics.csv").open())]
        for folder in (alone, two_ranks / method / "0")
    ]
    assert seen[0] == seen[1]
    assert (two_ranks / method / "0/finished.json").is_file()
    assert not (two_ranks / method / "1").exists(), "both ranks write to one folder"


def test_two_ranks_sample_and_spend_like_one(two_ranks: Path, fit: Fit) -> None:
    alone = fit(private_settings(1), name="private")
    one, two = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (alone, two_ranks / "private/0"))
    assert one["privacy_ledger"] == two["privacy_ledger"]
    for name in ("weight", "average", "basis"):
        torch.testing.assert_close(two["state_dict"][name], one["state_dict"][name], rtol=1e-4, atol=1e-6)


def test_two_ranks_make_the_features_of_one(two_ranks: Path, fit: Fit) -> None:
    alone = fit(frozen_settings(1), name="frozen")
    one, two = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (alone, two_ranks / "frozen/0"))
    assert one["privacy_ledger"] == two["privacy_ledger"]
    assert one["state_dict"]["weight"].abs().sum() > 0
    for name in ("weight", "average"):
        torch.testing.assert_close(two["state_dict"][name], one["state_dict"][name], rtol=1e-4, atol=1e-6)


def test_two_ranks_refit_the_last_layer_of_one(two_ranks: Path, fit: Fit) -> None:
    alone = fit(dfr_settings(1), name="dfr")
    one, two = (load_file(r / "weights.safetensors") for r in (alone, two_ranks / "dfr/0"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    rows = [(r / "selection.csv").read_text().splitlines()[1].split(",")[:7] for r in (alone, two_ranks / "dfr/0")]
    assert rows[0] == rows[1]


def test_two_ranks_show_two_streams_like_one(two_ranks: Path, fit: Fit) -> None:
    """Every example once a pass; the passes of the stream beside the epoch's run on from epoch to epoch."""
    alone, together = fit(streams_settings(1), name="streams"), two_ranks / "streams/0"
    one, of_ranks = read_streams(alone), [read_streams(together, rank) for rank in range(2)]
    n_labelled, n_unlabelled = 108, 1079  # of the labelled digits, each group has as many as the smallest
    shown: dict[str, list[int]] = {"labelled": [], "unlabelled": []}
    for whole, *halves in zip(one, *of_ranks, strict=True):
        for name, indices in shown.items():
            both = [i for pair in zip(*(half[name]["index"] for half in halves), strict=True) for i in pair]
            expected = whole[name]["index"]
            assert both[: len(expected)] == expected
            assert len(both) - len(expected) <= (name == "unlabelled"), "one evens out an epoch's last shares"
            indices += expected
    assert len(shown["unlabelled"]) == 2 * n_unlabelled
    for name, n in (("labelled", n_labelled), ("unlabelled", n_unlabelled)):
        passes = [shown[name][i : i + n] for i in range(0, len(shown[name]), n)]
        assert len(passes) > 1
        assert all(len(set(one_pass)) == len(one_pass) for one_pass in passes)
        assert all(set(one_pass) == set(passes[0]) for one_pass in passes[:-1])
    assert (together / "finished.json").is_file()


def test_two_ranks_report_shifted_sets_like_one(two_ranks: Path, fit: Fit, tmp_path: Path) -> None:
    """The same weights, tested on one rank and on two."""
    config, runs = tmp_path / "shifted.yaml", tmp_path / "runs"
    config.write_text(yaml.safe_dump(shifted_settings(1)))
    checkpoint = two_ranks / "shifted/0/checkpoints/last.ckpt"
    given = ["--config", str(config), "--runs_root", str(runs), "--ckpt_path", str(checkpoint)]
    main(["test", *given, "--experiment", "shifted-test"])
    folders = (runs / "shifted-test/0", two_ranks / "shifted-test/0")
    tables = ("constant_solution/sets", "constant_solution/constants", "selective_risk")
    for table in tables:
        one, two = (list(csv.DictReader((f / f"{table}.csv").open())) for f in folders)
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            for key, text in a.items():
                if key in ("set", "policy", "signal_cut_before", "ood_score") or not text:
                    assert key == "ood_score" or b[key] == text
                else:
                    assert float(b[key]) == pytest.approx(float(text), rel=1e-4, abs=1e-6), key
    one, two = (list(csv.DictReader((f / "constant_solution/layers.csv").open())) for f in folders)
    for a, b in zip(one, two, strict=True):  # subspaces are measured on the first inputs of each rank
        assert float(b["relative_norm"]) == pytest.approx(float(a["relative_norm"]), rel=1e-3)
        assert float(b["row_space_share"]) == pytest.approx(float(a["row_space_share"]), rel=1e-3)
    one, two = (list(csv.DictReader((f / "ood_detection.csv").open())) for f in folders)
    for a, b in zip(one, two, strict=True):
        assert float(b["auroc"]) == pytest.approx(float(a["auroc"]), abs=0.02)


@pytest.mark.parametrize(("name", "n_rows"), [("shifted", 359), ("SFT", 7)])
def test_two_ranks_predict_every_row_once(name: str, n_rows: int, two_ranks: Path, tmp_path: Path) -> None:
    """Uneven shares are gathered in the order of the split, as one rank has them."""
    one = shifted_settings(1) if name == "shifted" else reasoning_settings(name, 1, tmp_path)
    if name == "SFT":
        one["data"]["init_args"]["n_test"] = 7
    config, runs = tmp_path / "one.yaml", tmp_path / "runs"
    config.write_text(yaml.safe_dump(one))
    checkpoint = two_ranks / name / "0/checkpoints/last.ckpt"
    given = ["--config", str(config), "--runs_root", str(runs), "--ckpt_path", str(checkpoint)]
    main(["predict", *given])
    files = [next((f / "latest").glob("predictions.*")) for f in (runs / "one", two_ranks / f"{name}-predict")]
    if name == "SFT":
        rows = [[json.loads(r) for r in f.read_text().split("\n")[:-1]] for f in files]
        assert rows[0] == rows[1]
    else:
        rows = [list(csv.DictReader(f.open())) for f in files]
        for a, b in zip(*rows, strict=True):
            assert {k: float(v) for k, v in b.items()} == pytest.approx({k: float(v) for k, v in a.items()}, abs=2e-6)
    assert [int(r["index"]) for r in rows[1]] == list(range(n_rows))


def test_two_ranks_with_sharded_weights_equal_one(two_ranks: Path, fit: Fit, tmp_path: Path) -> None:
    """FSDP2 through the shipped overlay on two gloo ranks: the exported model is that of one rank."""
    alone = fit(sharded_settings(1), name="sharded")
    one, two = (load_file(r / "model/model.safetensors") for r in (alone, two_ranks / "sharded/0"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_a_sharded_value_head_equals_that_of_one_rank(two_ranks: Path, fit: Fit, tmp_path: Path) -> None:
    """Trained, clipped and saved with the model that it reads; the two ranks' checkpoint is a folder of shards."""
    alone = fit(value_settings(1), name="values")
    rows = [list(csv.DictReader((r / "metrics.csv").open())) for r in (alone, two_ranks / "values/0")]
    for key in ("train/loss", "train/gradient_norm"):
        one, two = ([float(r[key]) for r in table if r[key]] for table in rows)
        assert two == pytest.approx(one, rel=1e-4)
    assert max(one) > 0.1, "gradients are clipped"
    dcp_to_torch_save(two_ranks / "values/0/checkpoints/last.ckpt", tmp_path / "whole.ckpt")
    checkpoints = (alone / "checkpoints/last.ckpt", tmp_path / "whole.ckpt")
    first, second = (torch.load(c, weights_only=True)["state_dict"] for c in checkpoints)
    assert first["value_head.linear.weight"].any()
    for folder, whole in ((alone, first), (two_ranks / "values/0", second)):
        handed_on = load_file(folder / "weights.safetensors")
        assert {"value_head.linear.weight", "value_head.linear.bias"} == handed_on.keys(), (
            "the model has its own folder"
        )
        assert all(value.equal(whole[name]) for name, value in handed_on.items())
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", JUDGED)
def test_two_ranks_judge_steps_like_one(name: str, two_ranks: Path, fit: Fit, tmp_path: Path) -> None:
    """Ranks hold different numbers of prefixes and batches: calibration, ranking and first errors are of all."""
    alone = fit(judged_settings(1, tmp_path, JUDGED[name]), name=name)
    tables = [list(csv.DictReader((r / "metrics.csv").open())) for r in (alone, two_ranks / name / "0")]
    keys = {k for k in tables[0][0] if k.split("/")[0] in ("train", "val")}
    assert keys == {k for k in tables[1][0] if k.split("/")[0] in ("train", "val")}
    assert {"val/calibration_error", "val/brier_after_0", "val/auroc", "val/first_error_f1"} <= keys
    one, two = ([{k: float(r[k]) for k in keys if r[k]} for r in table] for table in tables)
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("method", REASONING)
def test_two_ranks_of_a_language_model_equal_one(method: str, two_ranks: Path, fit: Fit, tmp_path: Path) -> None:
    """Same completions, same losses, same weights: ranks sample by problem and normalise over all ranks' tokens."""
    alone = fit(reasoning_settings(method, 1, tmp_path), name=method)
    one, two = (
        torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for r in (alone, two_ranks / method / "0")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    rows = [list(csv.DictReader((r / "metrics.csv").open())) for r in (alone, two_ranks / method / "0")]
    keys = {
        k
        for k in rows[0][0]
        if k.split("/")[0] in ("train", "val", "predictors")
        or k == "memorization/median_perplexity"
        or k in ("rollout/reward", "rollout/accuracy")
    }
    found = [[{k: float(r[k]) for k in keys if r.get(k)} for r in table] for table in rows]
    for a, b in zip(*found, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    if method in ("SFT", "GRPO"):
        records = [read_record(r / "memorization", "r") for r in (alone, two_ranks / method / "0")]
        by_id = [dict(zip(r.train_ids, r.train_perplexities.T, strict=True)) for r in records]
        assert by_id[0].keys() == by_id[1].keys(), "every example once, on one rank or the other"
        for identity, value in by_id[0].items():
            torch.testing.assert_close(by_id[1][identity], value, rtol=1e-3, atol=1e-5)
