"""Every shipped config parses against the real signatures; every tiny twin trains through the public ``main()``."""

import csv
import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from labelled_completions import labelled_completions

import lightning_modules
from surefoot.cli import main

ROOT = Path(__file__).parents[1]
#: Folders of configs that are no experiments
APART = ("overlays", "pipelines")
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if p.relative_to(ROOT / "configs").parts[0] not in APART)
TWINS = sorted((ROOT / "tests/configs").rglob("*.yaml"))


def twin_parameters() -> list[Any]:
    """Return the twins, of which those of a method and a dataset that come before are slow."""
    seen: set[str] = set()
    found = []
    for path in TWINS:
        config = yaml.safe_load(path.read_text())
        data = config["data"]["class_path"] + str(config["data"]["init_args"].get("dataset", ""))
        is_new = not {config["model"]["class_path"], data} <= seen
        seen |= {config["model"]["class_path"], data}
        found.append(pytest.param(path, id=path.stem, marks=() if is_new else pytest.mark.slow))
    return found


OVERLAYS = sorted((ROOT / "configs/overlays").glob("*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 10
    assert OVERLAYS


@pytest.mark.parametrize("config", [*CONFIGS, *TWINS], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_parses(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(config), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.stem)
def test_overlays_parse_over_an_experiment(overlay: Path) -> None:
    experiment = "reasoning/sft_gsm8k_llama3_8b" if overlay.stem == "fsdp" else "erm_digits"
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "fit",
                "--config",
                str(ROOT / f"configs/{experiment}.yaml"),
                "--config",
                str(overlay),
                "--print_config",
            ]
        )
    assert stop.value.code == 0
    assert set(yaml.safe_load(overlay.read_text())) == {"trainer"}, "overlays are for machines, never for science"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_experiments_start_with_their_command_and_set_a_seed(config: Path) -> None:
    text = config.read_text()
    assert text.startswith(f"# surefoot fit --config {config.relative_to(ROOT)}")
    assert "seed_everything" in yaml.safe_load(text)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_an_experiment_lies_and_is_named_as_its_method_does(config: Path) -> None:
    """``lightning_modules/reasoning/grpo.py`` has ``configs/reasoning/grpo_*.yaml``."""
    name = yaml.safe_load(config.read_text())["model"]["class_path"]
    method = Path(inspect.getfile(getattr(lightning_modules, name))).relative_to(ROOT / "lightning_modules")
    assert config.parent.relative_to(ROOT / "configs") == method.parent
    assert config.stem.startswith(f"{method.stem}_")


@pytest.mark.parametrize("twin", TWINS, ids=lambda p: p.stem)
def test_a_twin_names_its_experiment(twin: Path) -> None:
    assert f"configs/{twin.relative_to(ROOT / 'tests/configs')}" in twin.read_text().splitlines()[0]


def test_named_configs_exist() -> None:
    """Of those that a document, a config or a docstring names; X stands for any."""
    folders = ("configs", "docs", "surefoot", "lightning_modules", "datamodules", "callbacks", "benchmarks")
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in (".md", ".py", ".yaml")]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    named = {(p, name) for p in files for name in re.findall(r"\bconfigs/[\w/]+\.yaml", p.read_text())}
    missing = [f"{p}: {name}" for p, name in named if not (ROOT / name).is_file() and Path(name).stem != "X"]
    assert len(named) > 40
    assert not missing


@pytest.mark.parametrize("config", twin_parameters())
def test_twin_trains_tests_and_predicts(config: Path, tmp_path: Path) -> None:
    from small_datasets import (
        tokenizer,
        write,
        write_big_bench_mistake,
        write_cifar10,
        write_fashion_mnist,
        write_gsm8k,
        write_gsm8k_solutions,
        write_madlibs,
        write_pairs,
    )

    flags = ["--runs_root", str(tmp_path / "runs")]
    data = yaml.safe_load(config.read_text())["data"]
    if data["class_path"] == "WILDSDataModule":
        write(data["init_args"]["dataset"], tmp_path)
        flags += ["--data.init_args.root", str(tmp_path)]
        if "tokenizer" in data["init_args"]:
            flags += ["--data.init_args.tokenizer", str(tokenizer(tmp_path))]
    root = "--data.init_args.root"
    if data["class_path"] in ("SubclassShiftDataModule", "FrozenFeaturesDataModule"):
        data, root = data["init_args"]["data"], "--data.init_args.data.init_args.root"
    writers = {
        "FashionMNISTDataModule": write_fashion_mnist,
        "CIFAR10DataModule": write_cifar10,
        "MadlibsDataModule": write_madlibs,
        "GSM8KDataModule": write_gsm8k,
        "GSM8KSolutionsDataModule": write_gsm8k_solutions,
        "BigBenchMistakeDataModule": write_big_bench_mistake,
    }
    if data["class_path"] in writers:
        writers[data["class_path"]](tmp_path)
        flags += [root, str(tmp_path)]
    if data["class_path"] == "PreferencesDataModule":
        flags += ["--data.init_args.pairs", str(write_pairs(tmp_path))]
    if data["class_path"] in ("LabelledCompletionsDataModule", "LabelledTrajectoriesDataModule"):
        flags += ["--data.init_args.completions", str(labelled_completions(tmp_path / "labels"))]
    if config.stem.startswith("jtt"):  # a network this small may get every or no example right
        flags += ["--trainer.limit_val_batches", "1"]
    main(["fit", "--config", str(config), *flags])
    run = tmp_path / "runs" / config.stem / "latest"
    assert (run / "finished.json").is_file()
    assert (run / "config.yaml").is_file()
    assert (run / "metrics.csv").is_file()
    _test_and_predict(config.stem, run, tmp_path / "evaluated")


def _test_and_predict(name: str, run: Path, root: Path) -> None:
    """Evaluate a run's checkpoint through ``main()``, with nothing but the checkpoint."""
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    for verb in ("test", "predict"):
        main([verb, "--ckpt_path", checkpoint, "--runs_root", str(root)])
    settings = yaml.safe_load((run / "config.yaml").read_text())
    tested, predicted = (root / f"{name}-{verb}/latest" for verb in ("test", "predict"))
    if "shifts" in settings["data"]["init_args"] and settings["data"]["init_args"]["shifts"]:
        tables = list((tested / "constant_solution").glob("*.csv"))
        assert {t.stem for t in tables} == {"sets", "layers", "constants"}
    logged = (tested / "metrics.csv").read_text().splitlines()[0].split(",")
    assert any("test/" in key for key in logged)
    (file,) = predicted.glob("predictions.*")
    if file.suffix == ".csv":
        with file.open() as opened:
            rows = list(csv.DictReader(opened))
        values = [float(r[k]) for r in rows for k in r if k.startswith(("prob", "pred"))]
        assert values
        assert all(math.isfinite(v) for v in values)
    else:
        rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        answered, judged = {"question", "completion", "answer", "grade"}, {"completion", "n_tokens", "values"}
        assert all(row.keys() >= answered or row.keys() >= judged for row in rows)
    assert [int(r["index"]) for r in rows] == list(range(len(rows)))


PIPELINES = sorted((ROOT / "configs/pipelines").glob("*.yaml"))
STAGES = sorted((ROOT / "configs/pipelines/stages").glob("*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_pipelines_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surefoot.pipelines import read_pipeline

    monkeypatch.chdir(ROOT)
    assert path.read_text().startswith(f"# surefoot pipeline {path.relative_to(ROOT)}")
    for stage in read_pipeline(path):
        command = [stage.verb, "--config", str(stage.config)]
        command += [x for k, v in stage.flags.items() for x in (f"--{k}", str(v))]
        command += [] if stage.verb == "fit" else ["--out", "x"]
        with pytest.raises(SystemExit) as stop:
            main([*command, "--print_config"])
        assert stop.value.code == 0


@pytest.mark.parametrize("path", STAGES, ids=lambda p: p.stem)
def test_stages_parse_alone(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    telling = {"method": "curate", "builder": "pairs", "completions": "label", "search": "search"}
    other = next((verb for key, verb in telling.items() if key in content), "generate")
    verb = ["fit"] if "trainer" in content else [other, "--out", "x"]
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--config", str(path), "--print_config"])
    assert stop.value.code == 0
