"""Data curation: who becomes a parent, what a variant is, and the verb in a pipeline."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Fit
from tiny_reasoning import tiny_reasoning

from datamodules import ArithmeticDataModule, CuratedDataModule, GSMSymbolicDataModule
from surefoot.cli import main
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.arithmetic import ProceduralPolicy, judge_steps, read_chain, vary_chain
from surefoot.reasoning.curation import (
    choose_parents,
    draw_variants,
    instruction_following_difficulties,
    read_curated,
    write_curated,
)
from surefoot.reasoning.language_models import TinyLanguageModel, perplexities
from surefoot.reasoning.learning_dynamics import TrackedRun
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.sequences import PromptCompletion

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]

PROBLEMS = [Problem(str(i), f"{i}+1=", str(i + 1), "line\n" * (i + 1)) for i in range(4)]


def record(accuracies: list[list[float]], perplexities_: list[list[float]]) -> TrackedRun:
    counts = 5 * torch.tensor(accuracies, dtype=torch.float64)
    ids = [str(i) for i in range(len(accuracies[0]))]
    measured = torch.tensor(perplexities_, dtype=torch.float64)
    return TrackedRun("r", list(range(len(accuracies))), 5, counts, measured, train_ids=ids)


def test_low_pre_memorization_accuracy_chooses_what_was_not_learned() -> None:
    """At p = exp(exp(-2.3)) = 1.105: solved unmemorized .8; memorized 0; unsolved .2; exactly .75's neighbour .6."""
    run = record([[0.8, 1.0, 0.2, 0.6]], [[1.5, 1.01, 1.5, 1.5]])
    assert [p.id for p in choose_parents("pre_memorization", PROBLEMS, run)] == ["1", "2", "3"]
    chosen = choose_parents("pre_memorization", PROBLEMS, run, accuracy_threshold=0.2)
    assert [p.id for p in chosen] == ["1", "2"]
    plain = choose_parents("pre_memorization", PROBLEMS, run, log_log_threshold=-9.0)
    assert [p.id for p in plain] == ["2", "3"], "without memorization, by accuracy alone"


def test_the_other_arms() -> None:
    assert choose_parents("iid", PROBLEMS) == PROBLEMS
    assert [p.id for p in choose_parents("heuristic", PROBLEMS)] == ["2", "3"]
    difficulties = {"0": 0.9, "1": 0.1, "2": 0.8, "3": 0.2}
    chosen = choose_parents("ifd", PROBLEMS, difficulties=difficulties)
    assert [p.id for p in chosen] == ["0", "2"]
    hard = choose_parents("ifd", PROBLEMS, difficulties=difficulties, percentile=25)
    assert [p.id for p in hard] == ["0", "2", "3"]


def test_what_an_arm_lacks_is_said() -> None:
    with pytest.raises(ConfigError, match="needs the record"):
        choose_parents("pre_memorization", PROBLEMS)
    with pytest.raises(ConfigError, match="needs the difficulty"):
        choose_parents("ifd", PROBLEMS)
    with pytest.raises(DataError, match="lacks 1 of 4 original problems, such as 3"):
        choose_parents("pre_memorization", PROBLEMS, record([[0.0] * 3], [[2.0] * 3]))
    with pytest.raises(DataError, match="leaves no parent"):
        choose_parents("pre_memorization", PROBLEMS, record([[1.0] * 4], [[2.0] * 4]))


def test_difficulty_is_a_ratio_of_perplexities() -> None:
    model, prompt = TinyLanguageModel(width=32, n_layers=1, n_heads=2), PlainPrompt()
    data = ArithmeticDataModule(n_train=3)
    problems = list(data.problems("train"))
    found = instruction_following_difficulties(problems, model, prompt, 64)
    for p in problems:
        target = prompt.target_ids(p, model)
        start = [model.tokenizer.bos_token_id]
        pair = [
            PromptCompletion(prompt.prompt_ids(p, model), target),
            PromptCompletion(start, target),
        ]
        asked, alone = perplexities(model, pair, 512).tolist()
        assert found[p.id] == pytest.approx(asked / alone, rel=1e-5)


def test_a_variant_of_a_chain_differs_in_one_place() -> None:
    draw = random.Random(0)
    for question in ("7+5-3*2%10=", "1+1=", "9*9*9%100="):
        for _ in range(50):
            other = vary_chain(question, draw)
            a, b = read_chain(question), read_chain(other)
            assert a.modulus == b.modulus
            parts = [(a.start, b.start)]
            for left, right in zip(a.operations, b.operations, strict=True):
                parts += list(zip(left, right, strict=True))
            assert sum(x != y for x, y in parts) == 1


def test_variants_are_solved_training_problems() -> None:
    data = ArithmeticDataModule(n_train=20, solutions=ProceduralPolicy(styles=(0, 1, 2), spurious_rate=0.3))
    parents = list(data.problems("train"))
    known = {p.question for p in parents}
    found = draw_variants(parents[:5], 60, data.variant, known, seed=1)
    assert found == draw_variants(parents[:5], 60, data.variant, known, seed=1)
    assert len({p.question for p in found}) == 60
    assert not known & {p.question for p in found}
    assert {p.details["parent"] for p in found} == {p.id for p in parents[:5]}
    held = {p.question for s in ("val", "test") for p in data.problems(s)}
    assert not held & {p.question for p in found}
    for p in found:
        assert judge_steps(p.question, p.solution.split("\n"))[-1] == "answer"
    with pytest.raises(DataError, match="of 20 distinct variants of 1 parents"):
        draw_variants(parents[:1], 20, lambda p, i: data.variant(p, i % 7))


def test_variants_of_word_problems_come_from_the_same_template() -> None:
    data = GSMSymbolicDataModule(n_train=10, n_val=0, n_test=2)
    parents = data.problems("train")
    for p in parents[:4]:
        variant = data.variant(p, 3)
        assert variant.details["template"] == p.details["template"]
        assert variant == data.variant(p, 3)
        assert variant.question != p.question
        assert float(variant.answer.replace(",", "")) == float(variant.answer.replace(",", ""))


def test_curated_problems_follow_the_originals(tmp_path: Path) -> None:
    data = ArithmeticDataModule(n_train=6, n_val=4, n_test=4)
    originals = list(data.problems("train"))
    added = draw_variants(originals, 5, data.variant)
    write_curated(tmp_path / "a", added)
    assert read_curated(tmp_path / "a") == added
    curated = CuratedDataModule(data, [tmp_path / "a"], batch_size=11)
    assert list(curated.problems("train")) == [*originals, *added]
    batch = next(iter(curated.train_dataloader()))
    assert sorted(batch["index"].tolist()) == list(range(11))
    assert len(curated.problems("test")) == 4
    with pytest.raises(DataError, match="named twice"):
        CuratedDataModule(data, [tmp_path / "a"] * 2).problems("train")
    with pytest.raises(DataError, match="is missing"):
        CuratedDataModule(data, [tmp_path / "b"]).problems("train")
    (tmp_path / "a/curated.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="line 1 has the fields id"):
        read_curated(tmp_path / "a")


def curate_settings(**changes: Any) -> dict[str, Any]:
    world = {"class_path": "ArithmeticDataModule", "init_args": {"n_train": 32, "n_val": 8}}
    return {"data": world, "n": 6, "log_log_threshold": 1.2} | changes


def test_the_verb_reads_a_tracked_run(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_reasoning("SFT")
    tracker = {"answers": {"sampling": {"n": 2, "max_tokens": 8}}, "log_log_threshold": 1.2}
    config["trainer"]["callbacks"] = [{"class_path": "MemorizationTracker", "init_args": tracker}]
    run = fit(config)
    path = tmp_path / "curate.yaml"
    path.write_text(yaml.safe_dump(curate_settings()))
    flags = ["--config", str(path), "--run", str(run)]
    main(["curate", *flags, "--out", str(tmp_path / "one")])
    assert "problems are parents of 6 new ones" in capsys.readouterr().out
    first = read_curated(tmp_path / "one")
    earlier = f'["{tmp_path / "one"}"]'
    main(["curate", *flags, "--earlier", earlier, "--out", str(tmp_path / "two")])
    assert not {p.question for p in first} & {p.question for p in read_curated(tmp_path / "two")}
    model = tiny_reasoning("SFT")["model"]["init_args"]["language_model"]
    path.write_text(yaml.safe_dump(curate_settings(model=model, method="ifd")))
    main(["curate", "--config", str(path), "--out", str(tmp_path / "three")])
    assert len(read_curated(tmp_path / "three")) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "best"], "'pre_memorization', 'iid', 'ifd', 'heuristic'"),
        ([], "needs the record of a tracked run"),
        (["--n", "0"], "--n must be positive"),
        (["--run", "nowhere"], "holds no step-*.parquet"),
        (["--data", "DigitsDataModule"], "cannot make variants"),
    ],
)
def test_what_the_verb_cannot_do_ends_in_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "curate.yaml"
    settings = curate_settings()
    if "--data" in flags:
        settings["data"] = {"class_path": "DigitsDataModule"}
        flags = []
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit) as stop:
        main(["curate", "--config", str(path), "--out", str(tmp_path / "o"), *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
