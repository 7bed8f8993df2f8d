"""Which runs a report averages, which it distinguishes, and which it leaves out: every run is accounted for."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import callbacks
from surefoot.cli import main
from surefoot.report.methods import OBSERVERS, Method, group_runs
from surefoot.report.runs import LeftOut, read_runs
from surefoot.report.tables import group_estimates

METRIC = "test/worst_group_accuracy"


def write_run(
    folder: Path,
    value: float = 0.5,
    seed: Any = 0,
    data_seed: int | None = None,
    created: float = 1.0,
    finished: bool = True,
    metrics: str | None = None,
    ranks: int = 1,
    **changes: Any,
) -> Path:
    """Write a run folder as ``surefoot fit`` does; changes are dotted settings with ``__`` for dots."""
    settings: dict[str, Any] = {
        "seed_everything": seed,
        "trainer": {"max_epochs": 3, "precision": None, "devices": "auto", "callbacks": []},
        "model": {
            "class_path": "lightning_modules.ERM",
            "init_args": {"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}}},
        },
        "data": {
            "class_path": "datamodules.DigitsDataModule",
            "init_args": {"batch_size": 64, "seed": seed if data_seed is None else data_seed},
        },
    }
    for key, new in changes.items():
        *path, last = key.split("__")
        inner = settings
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = new
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "identity.json").write_text(json.dumps({"created": created, "verb": "fit"}))
    (folder / "environment.json").write_text(json.dumps({"ranks": ranks, "revision": "abc"}))
    if finished:
        (folder / "finished.json").write_text("{}")
    (folder / "metrics.csv").write_text(metrics or f"epoch,{METRIC}\n2,{value}\n")
    (folder / "selection.csv").write_text(
        f"rule,epoch,{METRIC},test/group_accuracy/a,test/group_accuracy/b,checkpoint\n"
        f"val_worst_group,1,{value},{value},0.9,\n"
    )
    return folder


def grouped(root: Path, rule: str = "val_worst_group") -> tuple[dict[str, Method], list[LeftOut]]:
    runs, unread = read_runs([root])
    methods, left_out = group_runs(runs, METRIC, rule)
    n_counted = sum(len(m.runs) for m in methods)
    assert n_counted + len(unread) + len(left_out) == len(list(root.rglob("config.yaml"))), "none lost"
    return {m.name: m for m in methods}, unread + left_out


def test_training_and_data_seeds_tell_runs_apart(tmp_path: Path) -> None:
    for i, (seed, data_seed) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)]):
        write_run(tmp_path / f"erm/{i}", 0.1 * i, seed, data_seed)
    methods, left_out = grouped(tmp_path)
    assert sorted(methods["erm"].by_pair().values()) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert not left_out


def test_the_newest_of_equal_runs_counts_and_the_others_are_named(tmp_path: Path) -> None:
    for i, created in ((0, 5.0), (1, 9.0), (2, 7.0)):
        write_run(tmp_path / f"erm/{i}", 0.1 * i, created=created)
    methods, left_out = grouped(tmp_path)
    assert list(methods["erm"].values.values()) == pytest.approx([0.1])
    assert {o.path.name for o in left_out} == {"0", "2"}
    assert all("which is newer" in o.reason for o in left_out)


def test_unseeded_runs_are_no_repeats(tmp_path: Path) -> None:
    for i in range(3):
        write_run(tmp_path / f"erm/{i}", seed=False, data_seed=0)
    methods, left_out = grouped(tmp_path)
    assert len(methods["erm"].runs) == 3
    assert not left_out


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"trainer__precision": "bf16-mixed"}, "erm (precision=bf16-mixed)"),
        ({"trainer__gradient_clip_val": 1.0}, "erm (gradient_clip_val=1.0)"),
        ({"trainer__limit_train_batches": 0.5}, "erm (limit_train_batches=0.5)"),
        ({"trainer__accumulate_grad_batches": 4}, "erm (accumulate_grad_batches=4)"),
        ({"trainer__max_epochs": 9}, "erm (max_epochs=9)"),
        ({"trainer__not_yet_invented": 1}, "erm (not_yet_invented=1)"),
        ({"ranks": 2}, "erm (batch_size=128)"),
        ({"model__init_args__optimizer__init_args__lr": 0.01}, "erm (lr=0.01)"),
        ({"model__class_path": "lightning_modules.JTT"}, "erm (model=JTT)"),
        ({"ckpt_path": "elsewhere/other/0/checkpoints/last.ckpt"}, None),
        (
            {"trainer__callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]},
            "erm (EarlyStopping=EarlyStopping)",
        ),
    ],
)
def test_settings_that_change_results_are_other_methods(
    tmp_path: Path, change: dict[str, Any], name: str | None
) -> None:
    write_run(tmp_path / "erm/0")
    write_run(tmp_path / "erm/1", **change)
    methods, left_out = grouped(tmp_path)
    assert len(methods) == 2
    assert not left_out
    assert name is None or name in methods


@pytest.mark.parametrize(
    "change",
    [
        {"trainer__devices": 2},
        {"trainer__accelerator": "gpu"},
        {"trainer__logger": [{"class_path": "lightning.pytorch.loggers.CSVLogger"}]},
        {"trainer__enable_progress_bar": False},
        {"trainer__precision": "32-true"},
        {"trainer__limit_val_batches": 1.0, "trainer__limit_train_batches": 1.0},
        {"trainer__callbacks": [{"class_path": "callbacks.GroupMetrics"}]},
        {"data__init_args__num_workers": 4},
        {"data__init_args__batch_size": 32, "ranks": 2},
        {"runs_root": "elsewhere"},
        {"ckpt_path": "moved/erm/1/checkpoints/last.ckpt"},
    ],
)
def test_settings_of_the_machine_pool(tmp_path: Path, change: dict[str, Any]) -> None:
    write_run(tmp_path / "erm/0", trainer__limit_val_batches=None, trainer__limit_train_batches=1.0)
    write_run(
        tmp_path / "erm/1",
        seed=1,
        **({"trainer__limit_val_batches": None, "trainer__limit_train_batches": None} | change),
    )
    methods, left_out = grouped(tmp_path)
    assert list(methods) == ["erm"]
    assert not left_out


@pytest.mark.parametrize("below", ["", "weights.safetensors", "checkpoints/last.ckpt"])
def test_a_stage_before_counts_by_its_settings_not_by_its_seed(below: str, tmp_path: Path) -> None:
    """Five seeds of a second stage that starts from five seeds of a first are one method."""
    for seed in (0, 1):
        first = write_run(tmp_path / f"erm/{seed}", seed=seed)
        path = str(first / below)
        write_run(tmp_path / f"dfr/{seed}", seed=seed, model__init_args__encoder__init_args__weights=path)
    other = write_run(tmp_path / "erm/2", model__init_args__optimizer__init_args__lr=1.0)
    path = str(other / below)
    write_run(tmp_path / "dfr/2", model__init_args__encoder__init_args__weights=path)
    methods, _ = grouped(tmp_path)
    assert sorted(len(m.runs) for n, m in methods.items() if n.startswith("dfr")) == [1, 2]
    assert len({n for n in methods if n.startswith("dfr")}) == 2


def test_settings_are_shown_as_a_config_has_them(tmp_path: Path) -> None:
    """Lists without quotes, an earlier stage by its name with the settings in which it differs."""
    lr = "model__init_args__optimizer__init_args__lr"
    for number, rate in enumerate((0.01, 0.1)):
        first = write_run(tmp_path / f"erm/{number}", **{lr: rate})
        path = str(first)
        betas = [0.9, 0.99 + number]
        changes = {"model__init_args__encoder__init_args__weights": path, "model__init_args__betas": betas}
        write_run(tmp_path / f"dfr{number}/0", **changes)
    out = tmp_path / "report"
    main(["report", str(tmp_path / "dfr0"), str(tmp_path / "dfr1"), "--out", str(out)])
    page = (out / "report.html").read_text().replace("<wbr>", "")  # where a line may break
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    differing = next(c[1:] for c in cells if c[:1] == ["model.init_args.betas"])
    assert differing == ["[0.9, 0.99]", "[0.9, 1.99]"]
    stage = "model.init_args.encoder.init_args.weights"
    assert [stage, "erm"] in cells, "the same in both"
    inner = f"{stage} &gt; model.init_args.optimizer.init_args.lr"
    assert [inner, "0.01", "0.1"] in cells
    assert "(&#x27;" not in page


def test_methods_are_named_by_what_differs(tmp_path: Path) -> None:
    lr = "model__init_args__optimizer__init_args__lr"
    write_run(tmp_path / "erm/0")
    write_run(tmp_path / "erm/1", **{lr: 0.01})
    write_run(tmp_path / "other/0", trainer__max_epochs=7)
    write_run(tmp_path / "seed_a/0", trainer__max_epochs=8)
    write_run(tmp_path / "seed_b/0", seed=1, trainer__max_epochs=8)
    methods, _ = grouped(tmp_path)
    assert list(methods) == [
        "erm (lr=0.003)",
        "erm (lr=0.01)",
        "other",
        "ERM on DigitsDataModule",
    ]


def test_what_cannot_be_reported_is_left_out_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    write_run(root / "erm/0", 0.25)
    write_run(root / "erm/1", 0.75, seed=1)
    write_run(root / "erm/2", seed=2, finished=False)
    (write_run(root / "erm/3", seed=3) / "config.yaml").write_text("model: [")
    (write_run(root / "erm/4", seed=4) / "identity.json").write_text("{")
    (write_run(root / "erm/5", seed=5) / "metrics.csv").write_text(f"{METRIC}\nhalf\n")
    (write_run(root / "erm/6", seed=6) / "config.yaml").write_bytes(b"\xff\xfe\x00")
    (write_run(root / "erm/7", seed=7) / "finished.json").write_text("[]")
    language = write_run(root / "sft/0", metrics="val/accuracy\n0.5\n")
    (language / "selection.csv").unlink()
    tested = write_run(root / "erm-test/0", finished=False)
    (tested / "identity.json").write_text(json.dumps({"verb": "test"}))
    write_run(root / "nan/0", float("nan"))
    (root / "foreign").mkdir()
    (root / "foreign/finished.json").write_text("{}")
    out = tmp_path / "report"
    main(["report", str(root), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "| erm | 0.500 |" in printed
    with (out / "left_out.csv").open() as file:
        reasons = {str(Path(r["path"]).relative_to(root)): r["reason"] for r in csv.DictReader(file)}
    expected = {
        "erm/2": "not finished",
        "erm/3": "cannot be read",
        "erm/4": "cannot be read",
        "erm/5": "cannot be read",
        "erm/6": "cannot be read",
        "erm/7": "cannot be read",
        "sft/0": "none ended a validation with GroupMetrics",
        "erm-test/0": "a run of test",
        "nan/0": "is nan",
        "foreign": "no config.yaml",
    }
    assert reasons.keys() == expected.keys()
    page = (out / "report.html").read_text().replace("<wbr>", "")  # where a line may break
    for run, reason in expected.items():
        assert reason in reasons[run]
        assert reasons[run].split("(")[0].strip() in printed
        assert "SurefootError" not in reasons[run]
        assert str(root / run) in page


def test_a_language_models_run_alone_is_reported_by_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "sft/0", metrics="val/accuracy,val/accuracy_low,val/accuracy_high\n0.5,0.4,0.6\n")
    (run / "selection.csv").unlink()
    main(["report", str(run), "--out", str(tmp_path / "report")])
    printed = capsys.readouterr().out
    assert "| sft | 0.500 | (0.400, 0.600) over examples; one seed | 1 |" in printed
    assert "val/accuracy (last)" in printed


def test_nothing_to_report_ends_in_one_line_with_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "erm/0", finished=False)
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path), "--out", str(tmp_path / "r")])
    assert "not finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "none"), "--out", str(tmp_path / "r")])
    assert "is not a folder" in capsys.readouterr().err


def test_intervals_of_accuracies_stay_between_zero_and_one(tmp_path: Path) -> None:
    for seed, value in enumerate((0.0, 0.0, 0.0)):
        write_run(tmp_path / f"zero/{seed}", value, seed)
    for seed, value in enumerate((0.99, 1.0, 0.9)):
        write_run(tmp_path / f"high/{seed}", value, seed, trainer__max_epochs=4)
    main(["report", str(tmp_path), "--out", str(tmp_path / "report")])
    table = (tmp_path / "report/table.md").read_text()
    intervals = [
        [float(x) for x in line.split("|")[3].strip(" ()").split(",")]
        for line in table.splitlines()
        if line.startswith(("| zero", "| high")) and line.count("|") == 5 and line.split("|")[3].strip().startswith("(")
    ]
    assert len(intervals) == 2
    assert all(0 <= low < high <= 1 for low, high in intervals)


def test_a_group_that_all_seeds_solve_has_the_interval_of_its_examples(tmp_path: Path) -> None:
    for seed in range(3):
        run = write_run(tmp_path / f"erm/{seed}", 1.0, seed)
        (run / "group_sizes.csv").write_text("split,group,size\nval,a,7\ntest,a,40\ntest,b,40\n")
    (estimates,) = group_estimates(list(grouped(tmp_path)[0].values()), "val_worst_group").values()
    # Wilson's interval of 40 of 40: 1 / (1 + 1.96^2 / 40) = .9124; seeds may share the examples, which count once
    assert estimates["a"] == pytest.approx((1.0, 0.9124, 1.0, 3), abs=1e-4)
    (run / "group_sizes.csv").unlink()
    (estimates,) = group_estimates(list(grouped(tmp_path)[0].values()), "val_worst_group").values()
    # not known of one run: 3 of 3, 1 / (1 + 1.96^2 / 3) = .4385
    assert estimates["a"].low == pytest.approx(0.4385, abs=1e-4)


def test_many_methods_with_many_groups_fit(tmp_path: Path) -> None:
    """More methods than colours, long names, and a link above the runs."""
    real = tmp_path / "real"
    for i in range(12):
        for seed in (0, 1):
            write_run(
                real / f"a_long_experiment_name_that_goes_on_and_on_{i}/{seed}", i / 12, seed,
                trainer__max_epochs=i,
            )  # fmt: skip
    (tmp_path / "link").symlink_to(real)
    (real / "latest").symlink_to(real / "a_long_experiment_name_that_goes_on_and_on_0/0")
    main(["report", str(tmp_path / "link"), "--out", str(tmp_path / "report")])
    page = (tmp_path / "report/report.html").read_text().replace("<wbr>", "")  # where a line may break
    assert page.count("<svg") == 2, "the groups' figure is on the page"
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(set(ids)) == len(ids)
    with (tmp_path / "report/runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 24


def test_observers_are_all_and_only_callbacks_that_exist() -> None:
    from lightning.pytorch import callbacks as lightning_callbacks

    ours = {name for name in callbacks.__all__ if name != "EvaluationObserver"}
    assert ours <= OBSERVERS, "one of ours never changes training, and its settings do not part runs"
    assert all(hasattr(lightning_callbacks, name) for name in OBSERVERS - ours)
