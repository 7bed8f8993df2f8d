"""A checkpoint rebuilds its model when the network and every file that it was made from are gone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit, from_weights, tiny
from small_datasets import write_madlibs, write_pairs
from tiny_reasoning import tiny_reasoning

from surefoot.cli import main
from surefoot.errors import SurefootError
from surefoot.training.rebuilding import describe, described_folder, descriptions

pytestmark = pytest.mark.filterwarnings("ignore")


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def evaluate(verb: str, checkpoint: Path, root: Path, *flags: str) -> Path:
    main([verb, "--ckpt_path", str(checkpoint), "--runs_root", str(root), *flags])
    return max((root / f"tiny-{verb}").glob("[0-9]*"), key=lambda p: int(p.name))


def numbers(run: Path) -> Any:
    files = [*run.glob("predictions*"), *run.glob("metrics.csv")]
    assert files, list(run.iterdir())
    return {f.name: f.read_bytes() for f in files}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    from surefoot.cli.loading import load_module

    return {k: v.clone() for k, v in load_module(checkpoint).state_dict().items()}


def outcomes(checkpoint: Path, root: Path) -> tuple[Any, ...]:
    return (
        numbers(evaluate("test", checkpoint, root)),
        numbers(evaluate("predict", checkpoint, root)),
        weights(checkpoint),
    )


def assert_same(before: tuple[Any, ...], after: tuple[Any, ...], checkpoint: Path) -> None:
    assert before[:2] == after[:2]
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert before[2].keys() == after[2].keys()
    for name, value in after[2].items():
        assert value.equal(before[2][name]), name
        assert value.equal(stored[name]), name


@pytest.mark.parametrize("how", ["pretrained_cfg_overlay", "checkpoint_path"])
def test_timm(how: str, fit: Fit, tmp_path: Path) -> None:
    import timm

    file = tmp_path / "resnet.pth"
    torch.manual_seed(5)
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    arguments = {
        "pretrained_cfg_overlay": {"pretrained_cfg_overlay": {"file": str(file), "num_classes": 0, "classifier": None}},
        "checkpoint_path": {"checkpoint_path": str(file)},
    }[how]
    settings = tiny()
    settings["model"]["init_args"]["encoder"] = {
        "class_path": "TimmEncoder",
        "init_args": {
            "name": "test_resnet",
            "pretrained": how == "pretrained_cfg_overlay",
            "arguments": arguments,
        },
    }
    settings["trainer"] |= {"max_epochs": 1, "limit_train_batches": 1}
    checkpoint = last(fit(settings))
    before = outcomes(checkpoint, tmp_path / "before")
    file.unlink()
    assert_same(before, outcomes(checkpoint, tmp_path / "after"), checkpoint)
    with pytest.raises(SystemExit):
        fit(settings, "--fresh", "true")  # without a checkpoint the file is asked for


def test_dfr(fit: Fit, tmp_path: Path) -> None:
    settings = tiny()
    settings["trainer"] |= {"max_epochs": 1, "limit_train_batches": 1}
    erm = fit(settings, name="erm")
    settings = from_weights(tiny("DFR", n_subsets=1), erm)
    del settings["model"]["init_args"]["optimizer"]
    settings["trainer"]["max_epochs"] = 1
    settings["data"]["init_args"]["training"] = {"split": "val"}
    checkpoint = last(fit(settings))
    before = outcomes(checkpoint, tmp_path / "before")
    shutil.rmtree(erm)
    assert_same(before, outcomes(checkpoint, tmp_path / "after"), checkpoint)


def pretrained(folder: Path, **arguments: Any) -> dict[str, Any]:
    from surefoot.reasoning.language_models import TinyLanguageModel

    TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128, seed=5).save(folder)
    return {
        "class_path": "PretrainedLanguageModel",
        "init_args": {"name": str(folder)} | arguments,
    }


def reasoning(method: str, tmp_path: Path, model: dict[str, Any], **more: Any) -> dict[str, Any]:
    settings = tiny_reasoning(method, **more)
    settings["model"]["init_args"]["language_model"] = model
    settings["trainer"] |= {"max_steps": 2, "callbacks": [], "limit_val_batches": 0}
    if method == "DPO":
        settings["data"] = {
            "class_path": "PreferencesDataModule",
            "init_args": {"pairs": str(write_pairs(tmp_path)), "batch_size": 2, "n_val": 2},
        }
    return settings


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("SFT", {"lora": {"rank": 2}, "dtype": "bfloat16"}),
        ("DPO", {}),
        pytest.param("GRPO", {}, marks=pytest.mark.slow),
    ],
    ids=["SFT-lora-bfloat16", "DPO", "GRPO"],
)
def test_language_models(method: str, arguments: dict[str, Any], fit: Fit, tmp_path: Path) -> None:
    """Among them a chat template, a generation config and non-persistent buffers, which no state holds."""
    folder = tmp_path / "model"
    model = pretrained(folder, **arguments)
    path = folder / "tokenizer_config.json"
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"top_k": 7}))
    settings = reasoning(method, tmp_path, model)
    checkpoint = last(fit(settings))
    before = outcomes(checkpoint, tmp_path / "before")
    from surefoot.cli.loading import load_module

    was: Any = load_module(checkpoint)
    shutil.rmtree(folder)
    assert_same(before, outcomes(checkpoint, tmp_path / "after"), checkpoint)
    now: Any = load_module(checkpoint)
    was, now = was.language_model, now.language_model
    assert now.tokenizer.chat_template == template
    assert now.base.generation_config.top_k == 7
    assert now.stop_token_ids == was.stop_token_ids
    buffers = dict(was.named_buffers())
    assert {n: b.dtype for n, b in now.named_buffers()} == {n: b.dtype for n, b in buffers.items()}
    assert all(b.equal(buffers[n]) for n, b in now.named_buffers())
    assert now.dtype == was.dtype
    assert now.name == was.name


def test_training_goes_on_without_the_folder(fit: Fit, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    settings = reasoning("SFT", tmp_path, pretrained(folder))
    onwards = ("--ckpt_path", str(last(fit(settings))), "--trainer.max_steps", "4")
    whole = weights(last(fit(settings, *onwards, name="whole")))
    shutil.rmtree(folder)
    again = weights(last(fit(settings, *onwards, name="again")))
    assert all(value.equal(whole[name]) for name, value in again.items())


def test_the_reference_is_the_model_that_the_run_began_with_or_training_is_refused(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules import GRPO
    from surefoot.reasoning.language_models import PretrainedLanguageModel

    references = []
    setup = GRPO.setup

    def keep(self: GRPO, stage: str) -> None:
        setup(self, stage)
        references.append(self.reference)

    monkeypatch.setattr(GRPO, "setup", keep)
    folder = tmp_path / "model"
    settings = reasoning("GRPO", tmp_path, pretrained(folder), loss={"kl_coefficient": 0.1})
    began = PretrainedLanguageModel(str(folder)).state_dict()
    onwards = ("--ckpt_path", str(last(fit(settings))), "--trainer.max_steps", "4")
    fit(settings, *onwards, name="onwards")
    assert len(references) == 2
    for reference in references:
        assert not reference.training
        assert all(v.equal(began[n]) for n, v in reference.state_dict().items())
    shutil.rmtree(folder)
    with pytest.raises(SystemExit):
        fit(settings, *onwards, name="refused")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "training goes on beside the model that it began with" in error
    assert str(folder) in error


def tiny_bert(folder: Path) -> None:
    """Write a model and its tokenizer."""
    from transformers import BertConfig, BertModel

    from datamodules.texts import word_tokenizer

    torch.manual_seed(5)
    words = word_tokenizer(["you are a good bad person"])
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)


@pytest.mark.parametrize("nested", [False, True])
def test_text_encoder_and_its_tokenizer(nested: bool, fit: Fit, tmp_path: Path) -> None:
    """The tokenizer is the datamodule's, or that of a datamodule in it."""
    folder = tmp_path / "bert"
    tiny_bert(folder)
    madlibs = tmp_path / "madlibs"
    madlibs.mkdir()
    write_madlibs(madlibs)
    settings = tiny()
    settings["trainer"] |= {
        "max_epochs": 1,
        "limit_train_batches": 1,
        "callbacks": [{"class_path": "GroupMetrics"}],
    }
    settings["model"]["init_args"]["encoder"] = {
        "class_path": "TransformersEncoder",
        "init_args": {"name": str(folder), "config": {"hidden_dropout_prob": 0.3}},
    }
    settings["data"] = {
        "class_path": "MadlibsDataModule",
        "init_args": {
            "root": str(madlibs),
            "tokenizer": str(folder),
            "batch_size": 8,
        },
    }
    if nested:
        hierarchy = {"kind": {"source": [0]}, "rude": {"source": [1]}}
        within = {"data": settings["data"], "hierarchy": hierarchy, "batch_size": 8}
        settings["data"] = {"class_path": "SubclassShiftDataModule", "init_args": within}
    checkpoint = last(fit(settings))
    before = outcomes(checkpoint, tmp_path / "before")
    shutil.rmtree(folder)
    assert_same(before, outcomes(checkpoint, tmp_path / "after"), checkpoint)
    from surefoot.cli.loading import load_module

    module: Any = load_module(checkpoint)
    assert module.network.encoder.body.config.hidden_dropout_prob == 0.3


def test_weights_that_a_checkpoint_lacks_are_named(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from surefoot.cli.loading import load_module

    settings = tiny()
    settings["trainer"] |= {"max_epochs": 1, "limit_train_batches": 1}
    run = fit(settings)
    content = torch.load(last(run), weights_only=True)
    del content["state_dict"]["network.head.bias"]
    broken = tmp_path / "broken.ckpt"
    torch.save(content, broken)
    expected = "holds no weights of network.head (1 tensors, such as network.head.bias)"
    with pytest.raises(SurefootError) as raised:
        load_module(broken)
    assert expected in str(raised.value)
    with pytest.raises(SystemExit):
        evaluate("test", broken, tmp_path / "runs")
    assert expected in capsys.readouterr().err


def test_descriptions_keep_bytes_and_write_nowhere_else(tmp_path: Path) -> None:
    class Part:
        source = "part"

        def save_description(self, folder: Path) -> None:
            (folder / "more").mkdir()
            (folder / "more/text.json").write_text("é\r\n", newline="")
            (folder / "bytes.model").write_bytes(bytes(range(256)))

    torch.save(describe([Part(), object()]), tmp_path / "x.pt")
    stored = torch.load(tmp_path / "x.pt", weights_only=True)
    with descriptions(stored), described_folder("part") as folder:
        assert (Path(str(folder)) / "more/text.json").read_bytes() == "é\r\n".encode()
        assert (Path(str(folder)) / "bytes.model").read_bytes() == bytes(range(256))
    assert not Path(str(folder)).exists()
    with described_folder("part") as folder:
        assert folder is None
    with (
        pytest.raises(SurefootError, match=r"\.\./out"),
        descriptions({"part": {"../out": "x"}}),
        described_folder("part"),
    ):
        pass


#: Runs commands as a machine does that reaches no hub and has this cache of it.
OFFLINE = """
import json, sys
import surefoot
from surefoot.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as stop:
        assert stop.code in (0, 2), stop.code
"""


def in_cache(home: Path, name: str) -> Path:
    """Return the folder where the hub's client keeps a model's files."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def offline(home: Path, *commands: list[str]) -> list[str]:
    """Run commands and return their errors."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", "-c", OFFLINE, json.dumps(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=home.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("surefoot: error:")]


@pytest.mark.slow
def test_models_of_the_hub_without_the_hub_and_its_cache(tmp_path: Path) -> None:
    """An encoder of timm, one of transformers with its tokenizer, and a language model, all trained by name."""
    import timm
    from safetensors.torch import save_file

    full, empty = tmp_path / "full", tmp_path / "empty"
    network = timm.create_model("test_resnet")
    save_file(network.state_dict(), in_cache(full, network.pretrained_cfg["hf_hub_id"]) / "model.safetensors")
    tiny_bert(in_cache(full, "someone/tiny-bert"))
    pretrained(in_cache(full, "someone/tiny-llama"))
    (tmp_path / "madlibs").mkdir()
    write_madlibs(tmp_path / "madlibs")
    images, texts = tiny(), tiny()
    short = {"max_epochs": 1, "limit_train_batches": 1, "callbacks": [{"class_path": "GroupMetrics"}]}
    images["trainer"] |= short
    images["model"]["init_args"]["encoder"] = {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet"}}
    images["model"]["init_args"]["encoder"]["init_args"]["pretrained"] = True
    texts["trainer"] |= short
    name = "someone/tiny-bert"
    texts["model"]["init_args"]["encoder"] = {"class_path": "TransformersEncoder", "init_args": {"name": name}}
    data = {"root": str(tmp_path / "madlibs"), "tokenizer": name, "batch_size": 8}
    texts["data"] = {"class_path": "MadlibsDataModule", "init_args": data}
    model = {"class_path": "PretrainedLanguageModel", "init_args": {"name": "someone/tiny-llama"}}
    every = {"images": images, "texts": texts, "llama": reasoning("SFT", tmp_path, model)}
    for experiment, settings in every.items():
        (tmp_path / f"{experiment}.yaml").write_text(yaml.safe_dump(settings))

    def evaluations(runs: str) -> list[list[str]]:
        checkpoints = [last(tmp_path / "runs" / e / "0") for e in every]
        verbs = [(v, c) for v in ("test", "predict") for c in checkpoints]
        return [[v, "--ckpt_path", str(c), "--runs_root", str(tmp_path / runs)] for v, c in verbs]

    fits = [["fit", "--config", f"{tmp_path}/{e}.yaml", "--runs_root", str(tmp_path / "runs")] for e in every]
    assert offline(full, *fits, *evaluations("before")) == []
    errors = offline(empty, *evaluations("after"), *([*f, "--fresh", "true"] for f in fits))
    assert len(errors) == len(fits), "a new fit, and it alone, needs what the cache had"
    assert not list(empty.rglob("*.safetensors"))
    for experiment in every:
        for verb in ("test", "predict"):
            before, after = (numbers(tmp_path / r / f"{experiment}-{verb}" / "0") for r in ("before", "after"))
            assert before == after
