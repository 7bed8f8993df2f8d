"""surefoot search as users meet it: both kinds of search, resumed after kill -9, refused when something has changed."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from fresh_processes import run_fresh
from tiny_reasoning import save_untrained_values, tiny_reasoning
from tiny_scorers import classifier_folder

from surefoot.cli import main
from surefoot.errors import DataError
from surefoot.reasoning.completions.store import read_completions, read_trajectories
from surefoot.reasoning.values import LearnedValues, StepClassifierValues, StepLayout, StepTexts

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A value model that has learned nothing, as a run of ProcessReward leaves it."""
    run = save_untrained_values(tmp_path_factory.mktemp("run"), n_layers=1, max_length=128)
    return {"class_path": "surefoot.reasoning.values.LearnedValues", "init_args": {"run": str(run)}}


def settings(search: str, verifier: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    init = {"separator": "1"} | ({"verifier": verifier} if verifier else {})
    return {
        "model": tiny_reasoning("SFT")["model"]["init_args"]["language_model"],
        "engine": {"class_path": "HFEngine", "init_args": {"max_sequences": 64}},
        "prompt": {"class_path": "PlainPrompt"},
        "grader": {"rule": "last_number"},
        "sampling": {"max_tokens": 16},
        "data": {"class_path": "ArithmeticDataModule", "init_args": {"n_test": 7, "n_train": 10}},
        "search": {"class_path": f"surefoot.reasoning.search.{search}", "init_args": init},
        "n": [1, 4],
        "problems_per_shard": 3,
    } | changes


def write(folder: Path, given: dict[str, Any]) -> Path:
    (folder / "search.yaml").write_text(yaml.safe_dump(given))
    return folder / "search.yaml"


def table(folder: Path) -> dict[tuple[str, int], dict[str, str]]:
    with (folder / "accuracy.csv").open() as file:
        return {(row["selection"], int(row["n"])): row for row in csv.DictReader(file)}


def test_best_of_n_and_beams_beside_each_other(
    verifier: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["search", "--config", str(write(tmp_path, settings("BestOfN", verifier))), "--out", str(tmp_path / "best")])
    best = table(tmp_path / "best")
    assert set(best) == {(s, n) for s in ("pass", "majority", "weighted_majority", "best") for n in (1, 4)}
    assert best["best", 1]["accuracy"] == best["pass", 1]["accuracy"], "of one candidate every choice is the same"
    tokens = {n: float(best["best", n]["generated_tokens"]) for n in (1, 4)}
    assert tokens[4] == pytest.approx(4 * tokens[1])
    assert len(read_completions(tmp_path / "best/n-0004")) == 28
    capsys.readouterr()
    given = write(tmp_path, settings("BeamSearch", verifier))
    flags = ["--baseline", str(tmp_path / "best"), "--out", str(tmp_path / "beam")]
    main(["search", "--config", str(given), *flags])
    beam = table(tmp_path / "beam")
    assert set(beam) == set(best)
    stored = read_completions(tmp_path / "beam/n-0004")
    assert float(beam["best", 4]["generated_tokens"]) * 7 >= sum(map(len, stored["completion_ids"]))
    assert float(beam["best", 4]["scored_tokens"]) > 0
    printed = capsys.readouterr()
    assert "best: the baseline's" in printed.out
    assert "N = 4: 7/7 problems" in printed.err
    for name in ("accuracy_by_n", "accuracy_by_tokens"):
        assert (tmp_path / f"beam/{name}.svg").read_text().startswith("<?xml")
    before = (tmp_path / "beam/accuracy.csv").read_text()
    main(["search", "--config", str(given), *flags])
    assert "problems," not in capsys.readouterr().err, "a finished search is left as it is"
    assert (tmp_path / "beam/accuracy.csv").read_text() == before


@pytest.mark.parametrize("search", ["BestOfN", "BeamSearch"])
def test_a_public_scorer_is_a_verifier(search: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It reads the policy's steps as texts; the last step's score stands in the last value."""
    folder = classifier_folder(tmp_path / "scorer")
    init = {"folder": str(folder), "layout": {"step": "Step {n}: {step}<extra_0>"}, "prompt_value": 0.75}
    public = {"class_path": "StepClassifierValues", "init_args": init}
    given = write(tmp_path, settings(search, public))
    with pytest.warns(UserWarning, match="steps are decoded, and retokenised by"):
        main(["search", "--config", str(given), "--out", str(tmp_path / "out")])
    found = table(tmp_path / "out")
    assert float(found["best", 4]["scored_tokens"]) > 0
    scorer = StepClassifierValues(folder, StepLayout(step="Step {n}: {step}<extra_0>"), prompt_value=0.75)
    for t in read_trajectories(tmp_path / "out/n-0004"):
        assert list(t.values) == pytest.approx(
            [0.75, *scorer.judge([StepTexts(t.problem.question, t.steps)])[0]], rel=1e-3
        )
    assert "retokenised" not in capsys.readouterr().out
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main(["search", "--config", str(given), "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
    assert "cannot be read" in capsys.readouterr().err


def test_completions_are_ranked_by_their_progress_too(
    verifier: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings("BestOfN", verifier)
    given["search"]["init_args"]["score"] = {"alpha": 0.5, "k": 4}
    main(["search", "--config", str(write(tmp_path, given)), "--out", str(tmp_path / "ranked")])
    found = table(tmp_path / "ranked")
    assert found["best_progress", 1]["accuracy"] == found["best", 1]["accuracy"]
    assert float(found["best_progress", 4]["scored_tokens"]) > 0
    given = settings("BestOfN", None)
    given["search"]["init_args"]["score"] = {"alpha": 0.5}
    with pytest.raises(SystemExit):
        main(["search", "--config", str(write(tmp_path, given)), "--out", str(tmp_path / "none")])
    assert "score reads the values of a verifier" in capsys.readouterr().err


def test_without_a_verifier_answers_are_voted_on(tmp_path: Path) -> None:
    main(["search", "--config", str(write(tmp_path, settings("BestOfN", None))), "--out", str(tmp_path / "vote")])
    assert {s for s, _ in table(tmp_path / "vote")} == {"pass", "majority"}


KILLED = """
import os, signal, sys
from surefoot.reasoning.completions import sharded
from surefoot.cli import main
write, n = sharded.write_shard, 0

def killed(*args):
    global n
    n += 1
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*args)

sharded.write_shard = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_it_goes_on(verifier: dict[str, Any], tmp_path: Path) -> None:
    given = write(tmp_path, settings("BeamSearch", verifier))
    main(["search", "--config", str(given), "--out", str(tmp_path / "whole")])
    ended = run_fresh(KILLED, ["search", "--config", str(given), "--out", str(tmp_path / "killed")])
    assert ended.code == -signal.SIGKILL, ended.errors[-2000:]
    main(["search", "--config", str(given), "--out", str(tmp_path / "killed")])
    for name in ("n-0001", "n-0004"):
        whole, killed = (read_completions(tmp_path / run / name) for run in ("whole", "killed"))
        assert whole.to_list() == killed.to_list()
    assert (tmp_path / "whole/accuracy.csv").read_text() == (tmp_path / "killed/accuracy.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"sampling": {"max_tokens": 17}}, [], "holds completions of other settings"),
        ({}, ["--baseline", "nowhere"], "nowhere holds no finished search"),
        ({}, ["--search.init_args.n_subtrees", "3"], "n 1 is no multiple of n_subtrees 3: choose n among 3, 6, 9, ..."),
        ({}, ["--data", "DigitsDataModule"], "has no problems to solve"),
        ({}, ["--n", "[0]"], "n"),
        ({}, ["--n", "[]"], "n is an empty list: expected one number of candidates or more"),
    ],
)
def test_what_is_refused(
    changes: dict[str, Any],
    flags: list[str],
    message: str,
    verifier: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = settings("BeamSearch", verifier, n=[1])
    main(["search", "--config", str(write(tmp_path, first)), "--out", str(tmp_path / "a")])
    capsys.readouterr()
    out = tmp_path / ("b" if "--search.init_args.n_subtrees" in flags else "a")
    with pytest.raises(SystemExit) as stop:
        main(["search", "--config", str(write(tmp_path, first | changes)), "--out", str(out), *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("surefoot: error:")
    assert message in error


def test_all_widths_are_checked_before_the_first_search(
    verifier: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings("BeamSearch", verifier, n=[4, 6])
    given["search"]["init_args"]["n_subtrees"] = 4
    with pytest.raises(SystemExit):
        main(["search", "--config", str(write(tmp_path, given)), "--out", str(tmp_path / "out")])
    assert "n 6 is no multiple of n_subtrees 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_baseline_of_other_problems_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Others of the same number by their fingerprint; fewer of them by their number, where nothing else is known."""
    given = settings("BestOfN", None, n=[1])
    main(["search", "--config", str(write(tmp_path, given)), "--out", str(tmp_path / "all")])
    other = {
        "class_path": "ArithmeticDataModule",
        "init_args": {"n_test": 7, "n_train": 10, "chains": {"max_steps": 3}},
    }
    for changes, flags in (({"data": other}, []), ({}, ["--limit", "3"])):
        command = ["search", "--config", str(write(tmp_path, given | changes)), "--baseline", str(tmp_path / "all")]
        with pytest.raises(SystemExit) as stop:
            main([*command, *flags, "--out", str(tmp_path / "out")])
        assert stop.value.code == 2
        (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert f"{tmp_path / 'all'} is a search of 7 other problems than these" in error
        assert not (tmp_path / "out").exists()
        (tmp_path / "all/n-0001/generation.json").unlink(missing_ok=True)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_verifier_is_closed_however_a_search_ends(
    ends: str, verifier: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(LearnedValues, "close", lambda self: closed.append(self))
    given = write(tmp_path, settings("BestOfN", verifier))
    command = ["search", "--config", str(given), "--out", str(tmp_path / "out"), "--limit", "2"]
    if ends == "badly":

        def fail(self: LearnedValues, *arguments: object) -> None:
            raise DataError("lost")

        monkeypatch.setattr(LearnedValues, "predict", fail)
        with pytest.raises(SystemExit):
            main(command)
    else:
        main(command)
    assert len(closed) == 1
