"""An epoch resumed with other batches shows each of its examples once; what a method knows outlives its loader."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import DigitsDataModule
from lightning_modules import ERM, JTT, LfF
from lightning_modules.base import ResumableModule
from surefoot.classification.networks import MLP

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Killed(Exception):
    """Stands for kill -9: nothing is saved when it is raised."""


class Seen(Callback):
    """Keeps which examples were in which epoch's steps, and stops a run in the middle."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at, self.epochs, self.n_batches = kill_at, {}, 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if self.n_batches == self.kill_at:
            raise Killed
        self.n_batches += 1

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.epochs.setdefault(trainer.current_epoch, []).append(batch["index"].tolist())

    def of(self, epoch: int) -> list[int]:
        return [i for batch in self.epochs.get(epoch, []) for i in batch]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def build(kind: str = "ERM") -> ResumableModule:
    torch.manual_seed(0)
    encoder = MLP(192, (8,))
    encoder.layers.append(torch.nn.Dropout(0.3))
    if kind == "JTT":
        return JTT(encoder, sgd, identification_epochs=1, upweight=20.0, n_classes=2)
    return {"ERM": ERM, "LfF": LfF}[kind](encoder, sgd, n_classes=2)


def fit(
    folder: Path,
    seen: Seen,
    batch_size: int = 100,
    every: int = 2,
    kind: str = "ERM",
    resume: bool = False,
    **settings: Any,
) -> ResumableModule:
    module, checkpoint = build(kind), folder / "last.ckpt"
    save = ModelCheckpoint(
        folder,
        "last",
        every_n_train_steps=every,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    torch.manual_seed(1)
    run = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[seen, save],
        **({"max_epochs": 3} | settings),
    )
    data = DigitsDataModule(batch_size=batch_size)
    given = {"ckpt_path": str(checkpoint), "weights_only": True} if resume else {}
    run.fit(module, datamodule=data, **given)
    return module


N = 1079  # training digits


EPOCHS, STEPS = {"max_epochs": 3}, {"max_epochs": -1, "max_steps": 60}


@pytest.mark.parametrize(
    ("accumulate", "batch_size", "accumulate_after", "reload", "stop"),
    [
        (1, 40, 1, 0, EPOCHS),
        (1, 270, 1, 1, STEPS),
        (2, 60, 4, 0, STEPS),
        (2, 60, 4, 1, EPOCHS),
        (3, 77, 2, 1, EPOCHS),
    ],
)
def test_a_run_killed_and_resumed_with_other_batches_sees_every_example_once(
    tmp_path: Path,
    accumulate: int,
    batch_size: int,
    accumulate_after: int,
    reload: int,
    stop: dict[str, int],
) -> None:
    """Batches of 100, a checkpoint every second step, killed in the second epoch."""
    shared = {"reload_dataloaders_every_n_epochs": reload} | stop
    first, second = Seen(kill_at=11 + 8), Seen()
    with pytest.raises(Killed):
        fit(tmp_path, first, accumulate_grad_batches=accumulate, **shared)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (state,) = saved["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert state["epoch"] == 1
    assert 0 < state["n_examples"] < N
    fit(
        tmp_path,
        second,
        batch_size,
        resume=True,
        accumulate_grad_batches=accumulate_after,
        **shared,
    )
    before = first.of(1)[: state["n_examples"]]
    assert sorted(before + second.of(1)) == list(range(N))
    assert sorted(second.of(2)) == list(range(N)), "the epoch after is whole"
    sizes = [len(batch) for batch in second.epochs[2]]
    assert set(sizes[:-1]) == {batch_size}


@pytest.mark.parametrize("kind", ["ERM", "LfF"])
@pytest.mark.parametrize("settings", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 12}])
def test_accumulated_gradients_outlive_two_kills(kind: str, settings: dict[str, int], tmp_path: Path) -> None:
    """A resumed run may save between two steps: nothing is lost, and it ends in the same weights, bit for bit."""
    common = {"kind": kind, "accumulate_grad_batches": 3} | settings
    whole = fit(tmp_path / "whole", Seen(), **common)
    for kill_at, resume in ((8, False), (2, True)):
        with pytest.raises(Killed):
            fit(tmp_path, Seen(kill_at), resume=resume, **common)
    resumed = fit(tmp_path, Seen(), resume=True, **common)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_a_checkpoint_in_the_middle_of_a_step_goes_back_to_the_step_before(tmp_path: Path) -> None:
    class SaveWhenStopped(Seen):
        def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    first, second = SaveWhenStopped(kill_at=7), Seen()
    with pytest.raises(Killed):
        fit(tmp_path, first, every=1000, accumulate_grad_batches=2)
    fit(tmp_path, second, resume=True, accumulate_grad_batches=2)
    assert len(first.of(0)) == 700
    assert sorted(first.of(0)[:600] + second.of(0)) == list(range(N)), "batch 6 took no step"


@pytest.mark.parametrize("limit", [3, 1.0])
def test_an_epoch_of_few_batches_is_not_gone_on_with_in_the_next(limit: float, tmp_path: Path) -> None:
    """The checkpoint of an epoch's last step, with or without ``limit_train_batches``: the next epoch is new."""
    shared: dict[str, Any] = {"limit_train_batches": limit, "max_epochs": -1, "max_steps": 40}
    per_epoch = 3 if limit == 3 else 11
    whole, first, second = Seen(), Seen(kill_at=per_epoch), Seen()
    fit(tmp_path / "whole", whole, every=per_epoch, **shared)
    with pytest.raises(Killed):
        fit(tmp_path, first, every=per_epoch, **shared)
    fit(tmp_path, second, every=per_epoch, resume=True, **shared)
    assert second.epochs[1] == whole.epochs[1]


def test_jtt_draws_its_errors_more_often_from_every_loader() -> None:
    """A loader of its own for every epoch: the share of draws from the error set stays what the upweighting says."""
    module, seen = build("JTT"), Seen()
    assert isinstance(module, JTT)
    Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[seen],
        max_epochs=5,
        reload_dataloaders_every_n_epochs=1,
    ).fit(module, datamodule=DigitsDataModule(batch_size=100))
    n_errors = float(module.errors.sum())
    expected = 21 * n_errors / (21 * n_errors + N - n_errors)
    for epoch in range(1, 5):
        share = float(module.errors[torch.tensor(seen.of(epoch))].float().mean())
        assert share == pytest.approx(expected, abs=0.05), f"epoch {epoch}"


RANK = """
import sys
from pathlib import Path
import surefoot  # before lightning, which imports torchvision
from test_resume_epoch import Killed, Seen, fit

one, two = Path(sys.argv[1]), Path(sys.argv[2])
ddp = {"devices": 2, "strategy": "ddp", "max_epochs": 2}
seen = Seen()
fit(one, seen, 50, resume=True, **ddp)
Path(one / f"seen_{sys.argv[3]}").write_text(str(seen.epochs))
seen = Seen(kill_at=8)
try:
    fit(two, seen, 30, **ddp)
except Killed:
    Path(two / f"seen_{sys.argv[3]}").write_text(str(seen.epochs))
"""


@pytest.mark.slow
def test_one_rank_goes_on_as_two_and_two_as_one(tmp_path: Path) -> None:
    """On gloo: a killed epoch of one rank is finished by two, and the other way round; no example is lost."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    alone = Seen(kill_at=7)
    with pytest.raises(Killed):
        fit(one, alone, 40, max_epochs=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    common["PYTHONPATH"] = os.pathsep.join(str(Path(__file__).parents[i]) for i in (2, 0))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(one), str(two), str(r)],
            env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors[-3000:]

    def of_ranks(folder: Path, epoch: int) -> list[int]:
        batches = [ast.literal_eval((folder / f"seen_{r}").read_text())[epoch] for r in range(2)]
        return [i for of_rank in batches for batch in of_rank for i in batch]

    # Six batches of 40 were saved; 839 are left, one of which is shown twice to even out the ranks' shares.
    before = alone.of(0)[:240]
    assert sorted(set(before + of_ranks(one, 0))) == list(range(N))
    assert len(before + of_ranks(one, 0)) == N + 1
    assert len(of_ranks(one, 1)) == N + 1
    # Eight batches of 30 on each of two ranks were saved.
    last = Seen()
    fit(two, last, 70, max_epochs=2, resume=True)
    assert len(of_ranks(two, 0)) == 8 * 30 * 2
    assert sorted(of_ranks(two, 0) + last.of(0)) == list(range(N))
    assert sorted(last.of(1)) == list(range(N))
