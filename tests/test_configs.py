"""Every shipped config parses against the real signatures; every tiny twin trains through the public ``main()``."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from surefoot.cli import main

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TWINS = sorted((ROOT / "tests/configs").glob("*.yaml"))
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
    experiment = "gsm8k_llama3_8b_sft" if overlay.stem == "fsdp" else "erm_digits"
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
    assert text.startswith(f"# surefoot fit --config configs/{config.name}")
    assert "seed_everything" in yaml.safe_load(text)


@pytest.mark.parametrize("config", TWINS, ids=lambda p: p.stem)
def test_twin_trains_tests_and_predicts(config: Path, tmp_path: Path) -> None:
    from small_datasets import (
        tokenizer,
        write,
        write_cifar10,
        write_fashion_mnist,
        write_gsm8k,
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
    }
    if data["class_path"] in writers:
        writers[data["class_path"]](tmp_path)
        flags += [root, str(tmp_path)]
    if data["class_path"] == "GSM8KDataModule":
        write_gsm8k(tmp_path)
        flags += ["--data.init_args.root", str(tmp_path)]
    if data["class_path"] == "PreferencesDataModule":
        flags += ["--data.init_args.pairs", str(write_pairs(tmp_path))]
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
        assert all({"question", "completion", "answer", "grade"} <= row.keys() for row in rows)
    assert [int(r["index"]) for r in rows] == list(range(len(rows)))


PIPELINES = sorted(p for p in (ROOT / "configs/pipelines").glob("*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_pipelines_and_their_stages_parse(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from surefoot.pipelines import read_pipeline

    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(path.read_text())
    if "stages" in content:
        for stage in read_pipeline(path):
            command = [stage.verb, "--config", str(stage.config)]
            command += [x for k, v in stage.flags.items() for x in (f"--{k}", str(v))]
            command += [] if stage.verb == "fit" else ["--out", "x"]
            with pytest.raises(SystemExit) as stop:
                main([*command, "--print_config"])
            assert stop.value.code == 0
    else:
        other = "curate" if "arm" in content else "generate"
        verb = ["fit"] if "trainer" in content else [other, "--out", "x"]
        with pytest.raises(SystemExit) as stop:
            main([*verb, "--config", str(path), "--print_config"])
        assert stop.value.code == 0
