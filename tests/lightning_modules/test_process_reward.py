"""Process reward models: what they learn, what one pass reads, and what cannot be learned from."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from labelled_completions import labelled_completions, stepwise
from safetensors.torch import load_file, save_file
from tiny_reasoning import tiny_reasoning
from tiny_tokenizers import byte_level, model_with

from datamodules import LabelledCompletionsDataModule
from lightning_modules.reasoning.judgements import JudgementMetrics
from surefoot.cli import main
from surefoot.errors import ConfigError, DataError
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.language_models import TinyLanguageModel
from surefoot.reasoning.metrics.judgements import (
    brier_score,
    calibration_error,
    first_error,
    first_errors,
    outcome_error,
    ranking,
)
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.prompts import PlainPrompt
from surefoot.reasoning.rollouts import HFEngine
from surefoot.reasoning.values import Judged, LabelSource, LearnedValues, check_values, prompt_template

pytestmark = pytest.mark.filterwarnings("ignore")
METRICS = Path(__file__).parents[2] / "docs/metrics.md"


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_completions(tmp_path_factory.mktemp("labelled") / "values")


def settings(completions: Path, judge: str = "steps", epochs: int = 12, **data: Any) -> dict[str, Any]:
    config = tiny_reasoning("SFT", optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}})
    init = config["model"]["init_args"]
    del init["engine"], init["evaluation"]
    config["model"]["class_path"] = "ProcessReward"
    config["trainer"] |= {"callbacks": [], "max_epochs": epochs, "limit_val_batches": 1.0}
    arguments = {"completions": str(completions), "judge": judge, "batch_size": 16, "seed": 0} | data
    config["data"] = {"class_path": "LabelledCompletionsDataModule", "init_args": arguments}
    return config


def last(run: Path, key: str) -> float:
    import csv

    with (run / "metrics.csv").open() as file:
        return [float(r[key]) for r in csv.DictReader(file) if r.get(key)][-1]


def test_values_of_steps_are_learned_and_read_in_one_pass(
    completions: Path, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(settings(completions))
    assert last(run, "val/auroc") > 0.98
    assert last(run, "val/brier") < 0.03
    assert last(run, "val/brier_after_0") < 0.01, "a problem is always right before the first step"
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val/brier_after_0" in header
    assert "val/auroc_after_0" not in header, "no problem starts wrong: there is nothing to rank"
    logged = {re.sub(r"_after_.+$", "", key) for key in header.split(",") if key.startswith("val/")}
    documented = re.findall(r"^\| `<stage>/([^`]+)`", METRICS.read_text(), flags=re.MULTILINE)
    assert logged <= {f"val/{key.replace('<n>', n)}" for key in documented for n in ("0", "25", "50", "75", "100")}
    assert last(run, "val/auroc_after_2") > 0.95
    assert last(run, "val/outcome_error_at_100_percent") < 0.05
    assert last(run, "val/outcome_error_at_0_percent") > 0.15, (
        "a third of the completions ends wrong, and none begins so"
    )
    values = LearnedValues(run)
    steps = [["a1\n", "x2\n", "b3\n"], ["a1\n", "b2\n", "c3\n"], ["a1\n", "x2\n", "x3\n"]]
    found = [stepwise("7", s) for s in steps]
    values.predict(found)
    assert [[round(v) for v in t.values] for t in found] == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    for t, own in zip(found, steps, strict=True):  # prefix by prefix, alone
        for n in range(1, len(own) + 1):
            alone = stepwise("7", own[:n])
            values.predict([alone])
            assert alone.values[-1] == pytest.approx(t.values[n], abs=1e-5)
    capsys.readouterr()
    flags = ["--runs_root", str(tmp_path / "tested"), "--trainer.accelerator", "cpu"]
    main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), *flags])
    assert "auroc" in capsys.readouterr().out


@pytest.mark.parametrize("judge", ["outcome", "tokens"])
def test_outcomes_and_tokens_are_learned(judge: str, completions: Path, fit: Fit) -> None:
    """The outcome at the end is certain; before the last steps it is a matter of chance."""
    run = fit(settings(completions, judge))
    assert last(run, "val/auroc") > (0.98 if judge == "outcome" else 0.7)
    assert load_file(run / "weights.safetensors").keys() == {"value_head.linear.weight", "value_head.linear.bias"}


def test_both_halves_weigh_alike_and_no_problem_is_on_two_sides(completions: Path) -> None:
    data = LabelledCompletionsDataModule(completions, balanced=True, val_share=0.2, test_share=0.3)
    train = data.judged("train")
    weighed = [(v >= 0.5, w) for j in train for v, w in zip(j.values, j.weights, strict=True)]
    high, low = (sum(w for above, w in weighed if above == half) for half in (True, False))
    assert high == pytest.approx(low) == pytest.approx(len(weighed) / 2)
    prompts = [{tuple(j.prompt) for j in data.judged(split)} for split in ("train", "val", "test")]
    assert [len(p) for p in prompts] == [30, 12, 18]
    assert len(set.union(*prompts)) == 60
    assert {w for j in data.judged("val") for w in j.weights} == {1.0}
    plain = LabelledCompletionsDataModule(completions, val_share=0.2, test_share=0.3)
    assert {w for j in plain.judged("train") for w in j.weights} == {1.0}, "values that are probabilities"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan"), 0.0], r"row 1 has the values \[1\.0, nan, 0\.0\]: expected probabilities"),
        ([1.0, 1.5, 0.0], "expected probabilities"),
        ([1.0, 0.0], "2 values for 3 prefixes: label it with surefoot label"),
        ([], "0 values for 3 prefixes"),
    ],
)
def test_labels_that_are_none_are_refused(values: list[float], message: str, tmp_path: Path) -> None:
    damaged = stepwise("1", ["a1\n", "b2\n"])
    damaged.values = values
    folder = ShardedFolder(tmp_path / "x", "label", {}, [1], [1])
    folder.write(lambda _: [damaged], lambda _: None, lambda: None, lambda _: {})
    with pytest.raises(DataError, match=message):
        LabelledCompletionsDataModule(tmp_path / "x", val_share=0, test_share=0).judged("train")
    LabelledCompletionsDataModule(tmp_path / "x", judge="outcome", val_share=0, test_share=0).judged("train")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> LearnedValues:
    """A value model with a random head, as a run of ProcessReward leaves it."""
    run = tmp_path_factory.mktemp("run")
    model = TinyLanguageModel(width=32, n_layers=1, n_heads=2, max_length=128)
    model.save(run / "model")
    weights = {"linear.weight": torch.randn(1, model.width), "linear.bias": torch.zeros(1)}
    save_file({f"value_head.{n}": w for n, w in weights.items()}, run / "weights.safetensors")
    return LearnedValues(run)


def test_steps_of_one_token_have_values(untrained: LearnedValues, tmp_path: Path) -> None:
    found = [stepwise("7", ["a", "x", "\n"]), stepwise("7", ["a"])]
    labels = [list(t.values) for t in found]
    untrained.predict(found)
    assert [len(t.values) for t in found] == [4, 2]
    assert found[0].values[:2] == pytest.approx(found[1].values)
    for t, own in zip(found, labels, strict=True):
        t.values = own
    folder = ShardedFolder(tmp_path / "x", "label", {}, [1], [2])
    folder.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    (first, second) = LabelledCompletionsDataModule(tmp_path / "x", val_share=0, test_share=0).judged("train")
    assert isinstance(first, Judged)
    assert (list(first.n_tokens), list(first.values)) == ([0, 1, 2, 3], [1.0, 1.0, 0.0, 0.0])
    assert list(second.n_tokens) == [0, 1]


def test_values_that_are_no_numbers_are_refused(untrained: LearnedValues) -> None:
    found = [stepwise("7", ["a1\n", "b2\n"])]
    with torch.no_grad():
        untrained.head.linear.bias.fill_(float("nan"))
    untrained.predict(found)
    with torch.no_grad():
        untrained.head.linear.bias.zero_()
    with pytest.raises(DataError, match=r"LearnedValues gave the values \[nan, nan, nan\]: expected finite numbers"):
        check_values(found, untrained)


def test_a_policy_of_other_tokens_is_refused(
    untrained: LearnedValues, completions: Path, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the value model that is to judge it, and by one that is to learn from its labels."""
    other = model_with(byte_level())
    policy = Policy(other, PlainPrompt(), HFEngine(), Grader(rule="last_number"))
    with pytest.raises(DataError, match="it has another tokenizer, train one with the policy's"):
        untrained(policy, [stepwise("7", ["a1\n"])], lambda *_: 0)
    other.save(tmp_path / "model")
    config = settings(completions)
    name = {"name": str(tmp_path / "model")}
    config["model"]["init_args"]["language_model"] = {"class_path": "PretrainedLanguageModel", "init_args": name}
    with pytest.raises(SystemExit) as stop:
        fit(config)
    assert stop.value.code == 2
    assert "the labels are of a policy with another tokenizer" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished run of ProcessReward"):
        LearnedValues(tmp_path)


def test_judgements_by_hand() -> None:
    predicted, values = torch.tensor([0.9, 0.6, 0.2, 0.1]), torch.tensor([1.0, 0.25, 0.5, 0.0])
    assert brier_score(predicted, values) == pytest.approx((0.01 + 0.1225 + 0.09 + 0.01) / 4)
    # bins .9 | .6 | .2 | .1: |-.1| + |.35| + |-.3| + |.1|
    assert calibration_error(predicted, values) == pytest.approx(0.85 / 4)
    assert calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0])) == 0.0
    assert ranking(predicted, values) == pytest.approx(0.75)  # of 4 pairs one is the wrong way round
    assert math.isnan(ranking(predicted, torch.ones(4)))
    for scale in (1e-3, 1.0, 1e4):
        assert ranking(torch.tensor([-3.0, 5.0, 4.0, 90.0]) * scale, torch.tensor([0, 0, 1.0, 1])) == 0.75
    assert (first_error([0.9, 0.4, 0.8], 0.5), first_error([0.9], 0.5)) == (1, -1)
    found = first_errors(torch.tensor([1, 0, -1, -1, 2]), torch.tensor([1, 2, -1, 3, -1]))
    assert found == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    with pytest.raises(ValueError, match="some have none"):
        first_errors(torch.tensor([1]), torch.tensor([1]))


def test_first_errors_are_of_steps_not_of_tokens_and_values_are_numbers() -> None:
    metrics = JudgementMetrics()
    values, labels = torch.tensor([0.9, 0.2, 0.8, 0.7]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    completions = torch.tensor([0, 0, 1, 1])
    metrics.update(values, labels, torch.tensor([1, 2, 1, 2]), completions)
    by_step = metrics.conclude()
    assert by_step["first_error_f1"] == 1
    assert by_step["calibration_error_after_1"] == pytest.approx((0.1 + 0.2) / 2)
    metrics.update(values, labels, torch.tensor([1, 1, 1, 1]), completions)
    assert "first_error_f1" not in metrics.conclude(), "two prefixes within one step"
    with pytest.warns(UserWarning, match="before"):
        assert metrics.conclude() == {}, "nothing was judged"
    with pytest.raises(DataError, match="a predicted value is no finite number"):
        metrics.update(torch.tensor([math.nan]), torch.ones(1), torch.ones(1), torch.zeros(1))


def test_how_soon_the_outcome_is_predicted_by_hand() -> None:
    """A right completion of four steps, a wrong one of one step, and one whose outcome nobody knows."""
    metrics = JudgementMetrics()
    predicted = torch.tensor([0.4, 0.6, 0.3, 0.7, 0.9, 0.8, 0.6, 0.1])
    steps, completions = torch.tensor([0, 1, 2, 3, 4, 0, 1, 1]), torch.tensor([7, 7, 7, 7, 7, 2, 2, 5])
    outcomes = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, -1.0])
    metrics.update(predicted, outcomes.clamp(min=0), steps, completions, outcomes=outcomes)
    found = metrics.conclude()
    assert found["outcome_error"] == pytest.approx(4 / 7)  # .4 and .3 of the right one, both of the wrong one
    by_step = [found[f"outcome_error_after_{n}"] for n in range(5)]
    assert by_step == [1.0, 0.5, 1.0, 0.0, 0.0]
    # the right one is read after 0, 1, 2, 3 and 4 steps; the wrong one at its prompt, then after its only step
    shares = [found[f"outcome_error_at_{percent}_percent"] for percent in (0, 25, 50, 75, 100)]
    assert shares == [1.0, 0.5, 1.0, 0.5, 0.5]
    assert outcome_error(torch.tensor([0.5, 0.2]), torch.tensor([1.0, 1.0])) == 0.5
    metrics.update(predicted[:2], outcomes[:2], torch.tensor([1, 1]), completions[:2], outcomes=outcomes[:2])
    assert not {name for name in metrics.conclude() if "percent" in name}, "two prefixes within one step"
    metrics.update(predicted, outcomes.clamp(min=0), steps, completions)
    assert not {name for name in metrics.conclude() if "outcome" in name}, "nobody knows"


def test_a_label_that_is_counted_elsewhere_counts_for_first_errors_alone() -> None:
    """Two solutions begin alike: the shared step is right, and predicted to be wrong, once in three labels."""
    metrics = JudgementMetrics()
    predicted, labels = torch.tensor([0.2, 0.9, 0.2, 0.1]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    counted = torch.tensor([True, True, False, True])
    metrics.update(predicted, labels, torch.tensor([1, 2, 1, 2]), torch.tensor([0, 0, 1, 1]), counted)
    found = metrics.conclude()
    assert found["brier"] == pytest.approx((0.64 + 0.01 + 0.01) / 3)
    assert found["brier_after_1"] == pytest.approx(0.64)
    assert (found["first_error_accuracy_wrong"], found["first_error_accuracy_right"]) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_values_of_half_precision_are_near_those_of_full(dtype: Any, untrained: LearnedValues, tmp_path: Path) -> None:
    untrained.model.save(tmp_path / "model")
    head = {f"value_head.{n}": w for n, w in untrained.head.state_dict().items()}
    save_file(head, tmp_path / "weights.safetensors")
    half = LearnedValues(tmp_path, dtype=dtype)
    assert {p.dtype for p in half.model.parameters()} == {getattr(torch, dtype)}
    assert {p.dtype for p in half.head.parameters()} == {torch.float32}
    found, expected = ([stepwise("7", ["a1\n", "x2\n"])] for _ in range(2))
    half.predict(found)
    untrained.predict(expected)
    assert found[0].values == pytest.approx(expected[0].values, abs=0.02)
    assert found[0].values != expected[0].values


def written(folder: Path, *provers: str) -> Path:
    """Labelled completions of several problems, one after the other of each prover."""
    found = [stepwise(str(i), ["a1\n", "b2\n"]) for i in range(max(4, len(provers)))]
    for i, t in enumerate(found):
        t.prover = provers[i % len(provers)]
    sharded = ShardedFolder(folder, "label", {}, [len(found)], [len(found)])
    sharded.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    return folder


def prover(name: str, n: int = 4, **more: Any) -> str:
    return json.dumps({"model": {"name": name}, "sampling": {"n": n, "temperature": 1.0}, **more})


def test_labels_of_several_provers_are_not_learned_together(tmp_path: Path) -> None:
    """Unless they differ in how many were sampled, and by what; outcomes are nobody's labels."""
    mixed = written(tmp_path / "mixed", prover("a"), prover("b"))
    with pytest.raises(DataError, match="mixed has labels of several provers, of another model"):
        LabelledCompletionsDataModule(mixed).judged("train")
    LabelledCompletionsDataModule(mixed, judge="outcome").judged("train")
    alike = written(tmp_path / "alike", prover("a"), "", prover("a", n=8, engine="VLLMEngine"))
    data = LabelledCompletionsDataModule(alike, val_share=0, test_share=0)
    assert data.prover() == prover("a")
    apart = [written(tmp_path / name, prover(name)) for name in ("a", "b")]
    with pytest.raises(DataError, match=r"a and .*b has labels of several provers"):
        LabelledCompletionsDataModule(apart).judged("train")
    both = LabelledCompletionsDataModule([apart[0], alike], val_share=0, test_share=0)
    assert (len(both.judged("train")), both.prover()) == (8, prover("a"))
    with pytest.raises(ConfigError, match="at least one folder"):
        LabelledCompletionsDataModule([])
    written_over, moved = (
        [json.dumps({**json.loads(prover(model)), "contents": {"model": held}}) for model, held in of]
        for of in ((("latest", "x"), ("latest", "y")), (("latest", "x"), ("/runs/0", "x")))
    )
    with pytest.raises(DataError, match="of another model"):
        LabelledCompletionsDataModule(written(tmp_path / "over", *written_over)).judged("train")
    LabelledCompletionsDataModule(written(tmp_path / "moved", *moved)).judged("train")
    odd = written(tmp_path / "odd", "not json", prover("a"))
    with pytest.raises(DataError, match="of another description and model and sampling"):
        LabelledCompletionsDataModule(odd).judged("train")


def test_a_run_says_whose_labels_it_has_learned_and_judges_no_other_prompt(fit: Fit, tmp_path: Path) -> None:
    labels = written(tmp_path / "labels", prover("a"))
    run = fit(settings(labels, epochs=1, val_share=0.25, test_share=0))
    assert LabelSource.read(run) == LabelSource("{question}", prover("a"))
    values = LearnedValues(run)
    same, other = (stepwise("7", ["a1\n", "b2\n"]) for _ in range(2))
    values.predict([same])
    other.prompt = [*other.prompt, *other.completion[2:3]]  # a new line
    with pytest.raises(DataError, match=r"'7=' where the policy's is '7=\\n'"):
        values.predict([other])
    policy = Policy(values.model, PlainPrompt(), HFEngine(), Grader(rule="last_number"))
    with pytest.raises(DataError, match="after another prompt"):
        values(policy, [same, other], lambda *_: 0)
    other.values = ()
    with pytest.raises(DataError, match="after another prompt"):
        values.extend(policy, [other], lambda *_: 0)
    (run / "labels.json").unlink()
    LearnedValues(run).predict([other])  # an older run says nothing


def test_completions_after_several_prompts_are_warned_of(fit: Fit, tmp_path: Path) -> None:
    """In one run's labels, of two folders: nothing is refused later."""
    plain = written(tmp_path / "plain", prover("a"))
    found = [stepwise(str(i), ["a1\n", "b2\n"]) for i in range(4, 8)]
    for t in found:
        t.prompt, t.prover = [*t.prompt, *t.completion[2:3]], prover("a")
    other = ShardedFolder(tmp_path / "other", "label", {}, [4], [4])
    other.write(lambda _: found, lambda _: None, lambda: None, lambda _: {})
    config = settings(plain, epochs=1, val_share=0.25, test_share=0)
    config["data"]["init_args"]["completions"] = [str(plain), str(other.path)]
    with pytest.warns(UserWarning, match="were sampled after several prompts"):
        run = fit(config)
    assert LabelSource.read(run) == LabelSource(None, prover("a"))


def test_the_common_prompt_of_questions() -> None:
    """A question that stands twice, one that other text around it contains, and prompts without a common one."""
    assert prompt_template([("1+1=", "Q: 1+1=\nA:"), ("2+2=", "Q: 2+2=\nA:")]) == "Q: {question}\nA:"
    assert prompt_template([("ab", "ab? ab!"), ("c", "c? c!")]) == "{question}? {question}!"
    assert prompt_template([("1", "11=2\n1"), ("7", "11=2\n7")]) == "11=2\n{question}"
    assert prompt_template([("1", "1\n11=2"), ("7", "7\n11=2")]) == "{question}\n11=2"
    assert prompt_template([(" ab ", "<ab>"), ("c", "<c>")]) == "<{question}>"
    assert prompt_template([("1", "1\n"), ("2", "2 ")]) is None
    assert prompt_template([("1", "one")]) is None
    assert prompt_template([("", "x")]) is None
    assert prompt_template([]) is None


def test_prompts_are_compared_as_far_as_a_tokenizer_writes_them_back() -> None:
    """What differs is named; a question that is lost in the tokens is passed over, what stands around it is not."""
    source = LabelSource("Answer this: {question}\nA:")

    def check(question: str, written: str) -> None:
        made = stepwise("7", ["a1\n"])
        made.problem = Problem("7", question, "1")
        source.check_prompts([made], lambda _: written)

    check("1+1=", "Answer this: 1+1=\nA:")
    check(" 1+1= ", "Answer this: 1+1=\nA:")
    check("½+½=", "Answer this: 1/2+1/2=\nA:")
    for question in ("1+1=", "½+½="):
        with pytest.raises(DataError, match=r"'Answer this: .*' where the policy's is 'Answer me: .*'"):
            check(question, "Answer me: 1+1=\nA:")
    with pytest.raises(DataError, match=r"1=\\nA:' where the policy's is .*1=\\nB:'"):
        check("1+1=", "Answer this: 1+1=\nB:")


def test_a_damaged_record_of_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"prompts": 1}')
    with pytest.raises(DataError, match="does not say whose labels"):
        LabelSource.read(tmp_path)
