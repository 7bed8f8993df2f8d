"""SFT, RFT, DPO and GRPO through the public command line, and what their steps compute."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fit
from tiny_reasoning import tiny_reasoning

from lightning_modules import GRPO, SFT
from surefoot.cli import main
from surefoot.errors import ConfigError
from surefoot.losses.policy import LOSS_KINDS
from surefoot.reasoning.answers import Grade
from surefoot.reasoning.language_models import LanguageModel, PretrainedLanguageModel, TinyLanguageModel
from surefoot.reasoning.rollouts import HFEngine, Sampling

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(run: Path, key: str) -> list[float]:
    return [float(r[key]) for r in rows(run) if r.get(key)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {k: v for k, v in state.items() if k.startswith("language_model")}


def pairs_file(folder: Path, n: int = 16) -> Path:
    path = folder / "pairs.jsonl"
    lines = [{"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i}+0"} for i in range(n)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def dpo_settings(folder: Path, **model: Any) -> dict[str, Any]:
    settings = tiny_reasoning("DPO", engine=None, **model)
    settings["data"] = {
        "class_path": "PreferencesDataModule",
        "init_args": {"pairs": str(pairs_file(folder)), "n_val": 4, "batch_size": 4},
    }
    return settings


def test_sft_learns_and_the_first_loss_is_the_mean_over_tokens(fit: Fit) -> None:
    settings = tiny_reasoning("SFT")
    settings["trainer"]["max_epochs"] = 10
    run = fit(settings)
    losses = values(run, "train/loss")
    assert losses[-1] < 0.75 * losses[0]
    from datamodules import ArithmeticDataModule

    data = ArithmeticDataModule(**settings["data"]["init_args"])
    arguments = settings["model"]["init_args"]["language_model"]["init_args"]
    model = TinyLanguageModel(**arguments, seed=settings["seed_everything"])
    batch = next(iter(data.train_dataloader()))
    total, n = 0.0, 0
    for p in batch["problem"]:
        prompt, target = (
            model.encode(p.question + "\n"),
            [*model.encode(p.solution), model.eos_token_id],
        )
        logits = model.base(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        total -= logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum().item()
        n += len(target)
    assert losses[0] == pytest.approx(total / n, rel=1e-5)
    assert values(run, "train/tokens")[0] == n
    assert 0 <= values(run, "val/accuracy")[-1] <= 1
    assert "val/loss" in rows(run)[0]


def test_the_size_of_packs_does_not_matter(fit: Fit) -> None:
    runs = [fit(tiny_reasoning("SFT", max_tokens_per_pack=n), name=f"p{n}") for n in (40, 4000)]
    for (name, a), b in zip(weights(runs[0]).items(), weights(runs[1]).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_sft_leaves_out_what_is_too_long(fit: Fit) -> None:
    run = fit(tiny_reasoning("SFT", max_sequence_tokens=47))
    assert 0 < min(values(run, "train/share_kept")) < 1


def test_schedules_step_with_every_update(fit: Fit) -> None:
    run = fit(tiny_reasoning("SFT", schedule="linear", warmup=0.5))
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["last_epoch"] == 8
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_lora_trains_and_the_exported_folder_is_the_trained_model(fit: Fit) -> None:
    settings = tiny_reasoning("SFT")
    settings["model"]["init_args"]["language_model"]["init_args"]["lora"] = {"rank": 4}
    settings["trainer"]["callbacks"].append({"class_path": "ModelExporter", "init_args": {"every_n_epochs": 1}})
    run = fit(settings)
    exported = PretrainedLanguageModel(str(run / "model"))
    first = PretrainedLanguageModel(str(run / "model-epoch-1"))
    ids = torch.tensor([exported.encode("1+2*3=")])
    assert not torch.allclose(exported.base(ids).logits, first.base(ids).logits, atol=1e-4)
    base = settings["model"]["init_args"]["language_model"]["init_args"]
    trained = {k.removeprefix("language_model."): v for k, v in weights(run).items()}
    from surefoot.reasoning.language_models import LoRA

    model = TinyLanguageModel(**base | {"lora": LoRA(rank=4)})
    model.load_state_dict(trained)
    torch.testing.assert_close(model.base(ids).logits, exported.base(ids).logits, rtol=1e-4, atol=1e-5)


def test_dpo_separates_pairs_and_starts_at_ln_2(fit: Fit, tmp_path: Path) -> None:
    settings = dpo_settings(tmp_path, beta=0.5)
    settings["trainer"]["max_epochs"] = 6
    run = fit(settings)
    assert values(run, "train/loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert values(run, "train/reward_margin")[0] == pytest.approx(0.0, abs=1e-5)
    assert values(run, "train/loss")[-1] < 0.5
    assert values(run, "val/loss")[-1] < 0.6
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["reference_logprobs"].shape == (12, 2)
    assert (state["reference_logprobs"] < 0).all()


def test_dpo_by_the_loss_of_ipo_goes_to_its_margin(fit: Fit, tmp_path: Path) -> None:
    """At the reference the margin is 0, and the loss 1 / (2 beta)^2 = 4; rewards are beta times log-ratios."""
    settings = dpo_settings(tmp_path, beta=0.25, loss="ipo")
    settings["trainer"]["max_epochs"] = 20
    run = fit(settings)
    assert values(run, "train/loss")[0] == pytest.approx(4.0, abs=1e-4)
    assert values(run, "train/loss")[-1] < 1.0
    assert values(run, "train/reward_margin")[-1] == pytest.approx(0.5, abs=0.2)


def test_dpo_takes_pairs_of_token_ids_as_they_are(fit: Fit, tmp_path: Path) -> None:
    settings = dpo_settings(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps({"prompt": [5, 6], "chosen": [7, 8, 9], "rejected": [7 + i]}) for i in range(5))
    )
    fit(settings)


@pytest.mark.parametrize(
    "kind", [k if k in ("dapo", "gspo") else pytest.param(k, marks=pytest.mark.slow) for k in LOSS_KINDS]
)
def test_grpo_raises_its_reward(kind: str, fit: Fit) -> None:
    settings = tiny_reasoning("GRPO", loss={"kind": kind})
    settings["trainer"] |= {"max_epochs": 8, "limit_val_batches": 0}
    settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.01
    run = fit(settings, name=kind)
    rewards = values(run, "rollout/reward")
    assert len(rewards) == 32
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert max(values(run, "rollout/logprob_mismatch_max")) < 1e-4, "engine and trainer are the same model"
    ratios = values(run, "train/ratio")
    assert len(ratios) > 10
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-5), "one update per rollout is on policy"
    table = [json.loads(line) for line in (run / "samples.jsonl").read_text().split("\n")[:-1]]
    assert {r["step"] for r in table if r["stage"] == "train"} == set(range(2, 33, 2))
    assert set(table[0]) >= {"question", "completion", "grade", "rewards", "reference"}


def test_several_updates_per_rollout(fit: Fit) -> None:
    settings = tiny_reasoning(
        "GRPO",
        loss={"class_path": "PolicyLoss", "init_args": {"kl_coefficient": 0.1, "clip_low": 0.0, "clip_high": 0.0}},
        updates={"epochs": 2, "minibatches": 2, "mask_truncated": True},
    )
    settings["trainer"]["max_epochs"] = 3
    run = fit(settings)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 3 * 4 * 4
    assert max(values(run, "train/kl")) > 0
    assert not any("reference" in k for k in state["state_dict"]), "checkpoints hold one model"
    ratios = values(run, "train/ratio")
    assert any(abs(r - 1) > 1e-4 for r in ratios), "later updates are off policy"


def test_rewards_per_step_reach_their_tokens(fit: Fit) -> None:
    settings = tiny_reasoning(
        "GRPO",
        rewards={
            "functions": [
                {"class_path": "surefoot.reasoning.rewards.StepReward"},
                {"class_path": "surefoot.reasoning.rewards.AccuracyReward"},
            ],
            "weights": [1.0, 0.5],
            "step_separator": "\n",
        },
        credit={"class_path": "PerStepAdvantage"},
    )
    fit(settings)


def grpo(**arguments: Any) -> GRPO:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    model = TinyLanguageModel(width=32, n_layers=1, n_heads=2)
    return GRPO(language_model=model, optimizer=optimizer, engine=HFEngine(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling": Sampling(n=2, temperature=0.0)}, "greedy completions"),
        ({"warmup": -1.0}, "warmup >= 0"),
    ],
)
def test_grpo_refuses_nonsense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grpo(**arguments)


def test_a_group_of_one_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"sampling\.n is 1: .* nothing is learned"):
        grpo(sampling=Sampling(n=1))


def test_completions_without_signal_are_not_put_through_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Groups without signal change neither loss nor gradient, so they are not computed; but they count in the mean."""
    from lightning_modules.reasoning import grpo as module_file
    from lightning_modules.reasoning.grpo import CreditedRollout
    from surefoot.reasoning.problems import Problem
    from surefoot.reasoning.trajectories import Trajectory

    module = grpo()
    problem, wrong = Problem("p", "q", "1"), Grade("wrong", None)
    trajectories = [
        Trajectory(problem, g, [5, 6, g + 7], [8 + i, 9, 10], [-4.0] * 3, "stop", 0, grade=wrong)
        for g in range(2)
        for i in range(2)
    ]
    advantages = [torch.full((3,), a) for a in (1.0, -1.0, 0.0, 0.0)]
    forward = []
    original = LanguageModel.score
    monkeypatch.setattr(
        LanguageModel,
        "score",
        lambda s, p, t=1.0: forward.append(len(p.tokens)) or original(s, p, t),
    )
    monkeypatch.setattr(module, "log", lambda *a, **k: None)
    gradients = []
    for signal in (advantages, [a + (1e-30 if not a.any() else 0) for a in advantages]):
        found: list[torch.Tensor] = []

        def update(packs: Any, loss: Any, found: list[torch.Tensor] = found) -> torch.Tensor:
            module.zero_grad()
            for p in packs:
                loss(p).backward()
            found.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
            return torch.zeros(())

        monkeypatch.setattr(module, "update", update)
        behaviour = [torch.tensor(list(t.behaviour_logprobs)) for t in trajectories]
        module.policy_update(CreditedRollout(trajectories, signal, behaviour, None, None))
        gradients += found
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-8)
    assert forward[0] == 3 + 2 + 2, "the first group's prompt once, and all but the last token of two completions"
    assert sum(forward[1:]) == 2 * forward[0]
    assert module_file.GRPO is GRPO


def test_rft_fine_tunes_on_distinct_correct_completions(fit: Fit) -> None:
    from lightning_modules import RFT

    settings = tiny_reasoning("RFT", max_per_problem=2)
    run = fit(settings)
    assert "rollout/accuracy" in rows(run)[0]
    assert all(0 <= x <= 0.5 for x in values(run, "train/share_kept")), "at most 2 of 4 are kept"
    assert issubclass(RFT, SFT)


def test_without_an_engine_methods_that_sample_say_so(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit(tiny_reasoning("GRPO", engine=None))
    assert "GRPO samples completions: set model.init_args.engine" in capsys.readouterr().err


def test_evaluation_and_prediction_by_sampling(fit: Fit, tmp_path: Path) -> None:
    run = fit(tiny_reasoning("SFT"))
    settings = [
        "--ckpt_path",
        str(run / "checkpoints/last.ckpt"),
        "--runs_root",
        str(tmp_path / "runs"),
    ]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    flags = [
        "--model.init_args.evaluation.n",
        "4",
        "--model.init_args.evaluation.temperature",
        "1.0",
    ]
    main(["test", *settings, *quiet, *flags])
    found = [
        r for p in (tmp_path / "runs").rglob("metrics.csv") for r in csv.DictReader(p.open()) if r.get("test/pass@4")
    ]
    assert len(found) == 1
    assert float(found[0]["test/accuracy"]) <= float(found[0]["test/pass@2"]) <= float(found[0]["test/pass@4"])
