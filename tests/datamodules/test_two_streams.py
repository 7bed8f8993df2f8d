"""Two datasets side by side: every example once a pass, hidden targets, positions that outlive a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit, tiny
from lightning.pytorch import Trainer
from pseudo_labels import read_streams, two_streams
from small_datasets import tokenizer, write, write_madlibs

from datamodules import (
    DigitsDataModule,
    MadlibsDataModule,
    SharedSubspaceDataModule,
    TrainingSet,
    TwoStreamDataModule,
    UnlabeledWILDSDataModule,
    WILDSDataModule,
)
from datamodules.splits import TensorExamples
from surefoot.classification import Flip, Views
from surefoot.cli import main
from surefoot.errors import ConfigError
from surefoot.privacy.noise import SeededNoise
from surefoot.privacy.shared_subspace import SubspaceProblem
from surefoot.training.loading import EpochSampler, ResumableDataLoader
from surefoot.training.streams import StreamsLoader

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
N = 1079  # training digits


def digits(**settings: Any) -> DigitsDataModule:
    return DigitsDataModule(confounding=None, **settings)


def private() -> SharedSubspaceDataModule:
    return SharedSubspaceDataModule(SeededNoise(0), SubspaceProblem(n_private=40), n_eval=8)


def pair(first: Any = None, second: Any = None, **settings: Any) -> TwoStreamDataModule:
    streams = {"labelled": first or digits(batch_size=100), "unlabelled": second or digits(batch_size=64)}
    data = TwoStreamDataModule(streams, **settings)
    data.setup("fit")
    return data


def epochs_of(loader: StreamsLoader, n: int) -> list[list[dict[str, Any]]]:
    epochs = []
    for epoch in range(n):
        loader.sampler.set_epoch(epoch)
        epochs.append(list(loader))
    return epochs


def seen(batches: list[dict[str, Any]], name: str) -> list[int]:
    return [i for batch in batches for i in batch[name]["index"].tolist()]


@pytest.mark.parametrize("n_workers", [0, 1])
@pytest.mark.parametrize(("epoch_of", "n_batches"), [(None, 17), ("unlabelled", 17), ("labelled", 11)])
def test_each_stream_shows_every_example_once_a_pass(epoch_of: str | None, n_batches: int, n_workers: int) -> None:
    """Eleven batches of 100 or seventeen of 64 hold 1,079 examples; an epoch is the longer pass if nothing is said."""
    data = pair(second=digits(batch_size=64, num_workers=n_workers), epoch_of=epoch_of)
    loader = data.train_dataloader()
    assert len(loader) == n_batches
    epochs = epochs_of(loader, 3)
    assert [len(epoch) for epoch in epochs] == [n_batches] * 3
    paced, other = ("labelled", "unlabelled") if epoch_of == "labelled" else ("unlabelled", "labelled")
    for epoch in epochs:
        assert sorted(seen(epoch, paced)) == list(range(N))
    assert seen(epochs[0], paced) != seen(epochs[1], paced)
    batches = [batch for epoch in epochs for batch in epoch]
    shown = seen(batches, other)
    assert len(shown) > N
    passes = [shown[i : i + N] for i in range(0, len(shown), N)]
    assert all(sorted(p) == list(range(N)) for p in passes[:-1])
    assert len(set(passes[-1])) == len(passes[-1])
    assert passes[0] != passes[1]
    assert {len(batch[other]["target"]) for batch in batches} == {data.streams[other].batch_size}
    assert passes[0] != seen(epochs[0], paced), "beside the same examples, another order"


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_unlabelled_stream_has_no_targets(n_workers: int) -> None:
    second = digits(batch_size=64, num_workers=n_workers)
    for epoch_of in ("labelled", "unlabelled"):
        data = pair(second=second, without_targets=["unlabelled"], epoch_of=epoch_of)
        batch = next(iter(data.train_dataloader()))
        assert set(batch) == {"labelled", "unlabelled"}
        assert set(batch["unlabelled"]) == {"input", "index"}
        assert set(batch["labelled"]) == {"input", "target", "group", "index"}
        moved = data.on_after_batch_transfer(batch, 0)
        assert set(moved["unlabelled"]) == {"input", "index"}
    given = next(iter(pair().train_dataloader()))
    assert set(given["unlabelled"]) == {"input", "target", "group", "index"}


def test_each_stream_is_augmented_and_scaled_as_its_dataset_is() -> None:
    first, second = digits(standardise=True), digits(augmentation=Views({"weak": None, "strong": Flip(1.0)}))
    data = pair(first, second, without_targets=["unlabelled"])
    batch = next(iter(data.train_dataloader()))
    data.trainer = first.trainer = second.trainer = Trainer(accelerator="cpu", logger=False)
    data.trainer.training = True
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved["labelled"]["input"].equal(first.scale(batch["labelled"]["input"]))
    assert not moved["labelled"]["input"].equal(batch["labelled"]["input"])
    assert set(moved["unlabelled"]) == {"weak", "strong", "index"}
    assert moved["unlabelled"]["strong"].equal(batch["unlabelled"]["input"].flip(-1))
    (evaluated,) = (next(iter(loader)) for loader in data.val_dataloader()[:1])
    data.trainer.training = False
    assert data.on_after_batch_transfer(evaluated, 0)["input"].equal(first.scale(evaluated["input"]))


def test_evaluation_is_of_the_first_or_a_named_one() -> None:
    first, second = DigitsDataModule(), digits(evaluate_test_during_fit=False)
    for named, expected in ((None, first), ("unlabelled", second)):
        data = pair(first, second, evaluate=named)
        assert data.n_classes == 2
        assert data.n_groups == first.n_groups == 4
        assert data.eval_group_names == expected.eval_group_names
        assert data.n_eval_groups == expected.n_eval_groups
        assert data.evaluated("fit") == expected.evaluated("fit")
        assert data.evaluation_set("fit", "val") is expected.splits["val"]
        assert data.train_eval_group_shares().equal(expected.train_eval_group_shares())
        assert len(data.test_dataloader()[0].dataset) == len(expected.splits["test"].target)  # type: ignore[arg-type]
    assert data.fingerprints().keys() == {f"{n}/{s}" for n in data.streams for s in ("train", "val", "test")}


def test_streams_may_be_texts_or_wilds(tmp_path: Path) -> None:
    write("waterbirds", tmp_path)
    write_madlibs(tmp_path)
    birds = {"dataset": "waterbirds", "root": tmp_path, "image_size": 8, "batch_size": 3}
    data = pair(
        WILDSDataModule(**birds),
        WILDSDataModule(**birds, training=TrainingSet(split="val")),
        without_targets=["unlabelled"],
    )
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["unlabelled"]["input"].shape == (3, 3, 8, 8)
    predicted = 1 - data.splits["val"].target
    expected = data.first.official_evaluation("val", predicted)  # type: ignore[attr-defined]
    assert data.official_evaluation("val", predicted) == expected
    assert expected["adj_acc_avg"] == 0
    write("amazon", tmp_path)
    reviews = {"dataset": "amazon", "root": tmp_path, "tokenizer": str(tokenizer(tmp_path)), "batch_size": 3}
    unlabelled = UnlabeledWILDSDataModule(WILDSDataModule(**reviews), "test_unlabeled")
    data = pair(WILDSDataModule(**reviews), unlabelled)
    shown = [batch["unlabelled"] for epoch in epochs_of(data.train_dataloader(), 3) for batch in epoch]
    assert all(set(batch) == {"input", "index"} for batch in shown)
    assert sorted(i for batch in shown for i in batch["index"].tolist())[:6] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match="must be classification datamodules"):
        pair(unlabelled)
    texts = pair(MadlibsDataModule(tmp_path, batch_size=5), MadlibsDataModule(tmp_path, batch_size=7))
    batch = next(iter(texts.train_dataloader()))
    assert [len(batch[n]["input"]["input_ids"]) for n in ("labelled", "unlabelled")] == [5, 7]
    with pytest.raises(ConfigError, match="OfficialEvaluation needs a datamodule with"):
        texts.submission_name("val")


def streams_of(rank: int, n_ranks: int, sizes: tuple[int, int], epoch_of: str = "a") -> StreamsLoader:
    loaders = {}
    for name, size, n in zip("ab", sizes, (48, 35), strict=True):
        data = TensorExamples(target=torch.zeros(n))
        sampler = EpochSampler(data, 0)
        sampler.num_replicas, sampler.rank, sampler.num_samples = n_ranks, rank, -(-n // n_ranks)
        loaders[name] = ResumableDataLoader(data, sampler, batch_size=size, collate_fn=lambda batch: batch)
    return StreamsLoader(loaders, epoch_of)


def in_order(of_ranks: list[list[dict[str, Any]]]) -> list[int]:
    """Return what the ranks' batches of stream b have shown, in the order in which one rank would have."""
    steps = (torch.stack([batch["b"]["index"] for batch in step]) for step in zip(*of_ranks, strict=True))
    return [i for step in steps for i in step.T.flatten().tolist()]


@pytest.mark.parametrize(("n_ranks", "sizes"), [(1, (4, 7)), (2, (4, 5)), (3, (3, 8))])
@pytest.mark.parametrize(("n_ranks_after", "sizes_after"), [(1, (4, 7)), (1, (9, 2)), (2, (4, 5)), (4, (2, 11))])
def test_positions_outlive_other_ranks_and_batch_sizes(
    n_ranks: int, sizes: tuple[int, int], n_ranks_after: int, sizes_after: tuple[int, int]
) -> None:
    """Stopped in the second epoch, whose other stream is in a later pass already."""
    before = [streams_of(r, n_ranks, sizes) for r in range(n_ranks)]
    runs = [[batch for epoch in epochs_of(loader, 1) for batch in epoch] for loader in before]
    for loader in before:
        loader.sampler.set_epoch(1)
    started = [iter(loader) for loader in before]
    runs = [[*run, next(s), next(s)] for run, s in zip(runs, started, strict=True)]
    states = [loader.state_dict() for loader in before]
    assert states == [states[0]] * n_ranks
    shown = in_order(runs)
    assert states[0]["beside"] == {"b": len(shown)}
    after = [streams_of(r, n_ranks_after, sizes_after) for r in range(n_ranks_after)]
    for loader in after:
        loader.load_state_dict(states[0])
        assert loader.state_dict() == states[0]
        assert loader.n_resumed_batches == len(loader) - loader.epochs.n_batches_left(states[0]["n_examples"])
    rest = [list(loader) for loader in after]
    shown += in_order(rest)
    for start in range(0, len(shown), 35):
        one_pass = shown[start : start + 35]
        assert len(set(one_pass)) == len(one_pass), "each example once a pass, whoever shows it"
    back = after[0].state_before(after[0].state_dict(), 2)
    assert back["beside"]["b"] == len(shown) - 2 * n_ranks_after * sizes_after[1]


def test_going_back_shows_the_same_again() -> None:
    """As after a kill between two steps of accumulated gradients."""
    whole, stopped, resumed = (streams_of(0, 1, (4, 7)) for _ in range(3))
    expected = list(whole)
    batches = iter(stopped)
    for _ in range(8):
        next(batches)
    saved = stopped.state_dict()
    resumed.load_state_dict(saved)
    resumed.rewind(3, stopped.n_examples_per_batch)
    found = list(resumed)
    assert len(found) == len(expected) - 5
    for one, other in zip(found, expected[5:], strict=True):
        assert all(one[name]["index"].equal(other[name]["index"]) for name in "ab")
    before = stopped.state_before(saved, 3)
    assert (before["n_examples"], before["beside"]["b"]) == (5 * 4, 5 * 7)


def test_another_loader_in_place_of_one_goes_on_in_both_streams() -> None:
    """With ``reload_dataloaders_every_n_epochs``; another fit begins anew."""
    data, whole = pair(epoch_of="labelled"), pair(epoch_of="labelled")
    first, second = epochs_of(whole.train_dataloader(), 2)
    parts = []
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        parts.append(list(loader))
    assert [seen(p, "unlabelled") for p in parts] == [seen(e, "unlabelled") for e in (first, second)]
    data.setup("fit")
    assert seen(list(data.train_dataloader()), "unlabelled") == seen(first, "unlabelled")


@pytest.mark.parametrize("change", [{"epoch_of": "b"}, None])
def test_a_position_of_other_streams_is_refused(change: dict[str, str] | None) -> None:
    state = streams_of(0, 1, (4, 7)).state_dict() if change else {"epoch": 0, "n_examples": 8}
    with pytest.raises(ConfigError, match="training goes on with the streams that it began with"):
        streams_of(0, 1, (4, 7), **(change or {})).load_state_dict(state)


def test_a_position_of_two_streams_is_not_one_stream_s() -> None:
    state = streams_of(0, 1, (4, 7)).state_dict()
    loader = pair().first.train_dataloader()
    with pytest.raises(ConfigError, match="epochs are of a beside b, and the data are one stream"):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoStreamDataModule({"a": digits()}), "streams must be two datamodules .*, got a"),
        (lambda: TwoStreamDataModule({}), "got none"),
        (lambda: TwoStreamDataModule({"a": digits(), "input": digits()}), "got a, input"),
        (lambda: pair(without_targets=["target"]), "without_targets must be of labelled and unlabelled, got target"),
        (lambda: pair(evaluate="val"), "evaluate must be of labelled and unlabelled, got val"),
        (lambda: pair(epoch_of="both"), "epoch_of must be of labelled and unlabelled, got both"),
        (lambda: pair(second=private()).train_dataloader(), "SharedSubspaceDataModule cannot be a stream"),
        (lambda: pair(second=digits(target="digit"), evaluate="unlabelled"), "has 2 classes and the evaluated one 10"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_method_of_ones_own_trains_on_them_from_a_config(fit: Fit, tmp_path: Path) -> None:
    config = tiny("pseudo_labels.PseudoLabels")
    callbacks = [{"class_path": "GroupMetrics"}, {"class_path": "pseudo_labels.StreamRecorder"}]
    config["trainer"] |= {"callbacks": callbacks, "max_epochs": 2}
    config["data"] = two_streams()
    run = fit(config, "--data.init_args.streams.labelled.init_args.batch_size", "40")
    steps = read_streams(run)
    assert len(steps) == 2 * 8, "an epoch is a pass over the unlabelled stream"
    assert {len(step["labelled"]["index"]) for step in steps} == {40}
    assert {tuple(step["unlabelled"]["entries"]) for step in steps} == {("index", "strong", "weak")}
    checkpoint = run / "checkpoints/last.ckpt"
    main(["test", "--ckpt_path", str(checkpoint), "--runs_root", str(tmp_path / "runs")])
    assert "test/worst_group_accuracy" in (tmp_path / "runs/tiny-test/latest/metrics.csv").read_text()
    main(["predict", "--ckpt_path", str(checkpoint), "--runs_root", str(tmp_path / "runs")])
    assert torch.load(checkpoint, weights_only=True)["surefoot_settings"]["model"]["init_args"]["n_classes"] == 2


def test_a_method_of_one_stream_says_so(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("ERM")
    config["trainer"]["callbacks"] = []
    config["data"] = two_streams()
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "ERM trains on the batch's input, and this one has labelled, unlabelled" in line


@pytest.mark.parametrize("observer", ["ExampleWeightMonitor", "ExampleDynamics"])
def test_what_follows_each_example_of_one_dataset_is_refused(
    observer: str, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two streams have two numberings: nothing is counted under the wrong example."""
    config = tiny("pseudo_labels.PseudoLabels")
    config["trainer"]["callbacks"] = [{"class_path": observer}]
    config["data"] = two_streams()
    line = refusal(config, fit, capsys)
    assert f"error: {observer} needs a datamodule with" in line
    assert "n_train" in line
    assert "TwoStreamDataModule" in line


@pytest.mark.parametrize("method", ["LfF", "JTT", "DFR", "GroupDRO", "BRDRO", "CVaRDRO"])
def test_methods_of_one_stream_are_refused(method: str, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(method)
    if method == "DFR":
        del config["model"]["init_args"]["optimizer"]
    config["trainer"]["callbacks"] = []
    config["data"] = two_streams()
    line = refusal(config, fit, capsys)
    assert line.startswith(f"surefoot: error: {method} ")
    assert "TwoStreamDataModule" in line or "this one has labelled, unlabelled" in line


def refusal(config: dict[str, Any], fit: Fit, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line in which a fit ends, before a step was taken."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(printed)
    return printed[-1]
