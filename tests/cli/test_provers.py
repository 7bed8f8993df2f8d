"""surefoot provers as users meet it: from labels of one folder of completions to a ranking, and what is refused."""

import csv
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from labelled_completions import stepwise

from surefoot.cli import main
from surefoot.reasoning.completions.sharded import ShardedFolder
from surefoot.reasoning.trajectories import Trajectory

N = 20


def write(folder: Path, trajectories: Sequence[Trajectory], seed: int = 0, **settings: float) -> Path:
    made = list(trajectories)
    sharded = ShardedFolder(folder, "label", {"seed": seed, **settings}, [1], [len(made)])
    sharded.write(lambda _: made, lambda _: None, lambda: None, lambda _: {})
    return folder


def labelled(right: float, wrong: float, n: int = N, problems: int = 6) -> list[Trajectory]:
    """Of each problem two completions, one with a wrong first step; the values after a right and a wrong one."""
    found = []
    for problem in range(problems):
        for first in ("a1\n", "x1\n"):
            t = stepwise(str(problem), [first, "b2\n"])
            value = right if first == "a1\n" else wrong
            found.append(replace(t, values=[right, value, t.values[-1]], value_counts=[n, n, 0]))
    return found


@pytest.fixture
def labels(tmp_path: Path) -> list[Path]:
    """Of the policy, of a prover that tells steps apart better, and of one that does not at all."""
    made = {"policy": (0.6, 0.4), "sharp": (0.9, 0.1), "blind": (0.5, 0.5)}
    return [write(tmp_path / name, labelled(*values), seed) for seed, (name, values) in enumerate(made.items())]


def ranked(out: Path) -> list[dict[str, str]]:
    with (out / "provers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_provers_are_ranked(labels: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values .9 and .1: the variance .32, less the mean of .09 / 19 twice; the covariance with .6 and .4 is .08."""
    out = tmp_path / "ranking"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(["provers", *map(str, labels), "--k", "1", "2", "--out", str(out)])
    rows = ranked(out)
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [(row["prover"], row["k"]) for row in rows[:2]] == [(str(labels[1]), "1"), (str(labels[1]), "2")]
    first = rows[0]
    assert float(first["distinguishability"]) == pytest.approx(0.32 - 0.09 / 19)
    assert float(first["alignment"]) == pytest.approx(0.08)
    assert float(first["improvement"]) == pytest.approx(0.4 - 0.09 / 19)
    assert float(first["improvement_low"]) == pytest.approx(float(first["improvement_high"])), "problems are alike"
    assert [float(first[f"behind{end}"]) for end in ("", "_low", "_high")] == [0, 0, 0]
    assert float(rows[-1]["behind"]) == pytest.approx(float(first["improvement"]) - float(rows[-1]["improvement"]))
    assert [first[name] for name in ("problems", "states", "steps")] == ["6", "6", "12"]
    blind = next(row for row in rows if (row["prover"], row["k"]) == (str(labels[2]), "1"))
    assert float(blind["alignment"]) == 0
    assert float(blind["distinguishability"]) == pytest.approx(-0.25 / 19), "as noisy as its values, and no more"
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| 1 | {labels[1]} | 1 | 0.3153 [0.3153, 0.3153] | 0.0800 [0.0800, 0.0800] |" in table


def test_the_policy_is_the_first_or_the_one_that_is_named(labels: list[Path], tmp_path: Path) -> None:
    """The best of up to ten attempts is known from twenty: 1, 2, 4 and 8 by default. A prover is named once."""
    policy, sharp, _ = labels
    main(["provers", str(policy), str(policy), "--out", str(tmp_path / "alone")])
    alone = ranked(tmp_path / "alone")
    assert sorted(int(row["k"]) for row in alone) == [1, 2, 4, 8]
    itself = next(row for row in alone if row["k"] == "1")
    assert float(itself["alignment"]) == pytest.approx(0.02 - 0.24 / 19), "values .6 and .4, of the same attempts"
    assert float(itself["distinguishability"]) == pytest.approx(0.02 - 0.24 / 19)
    main(["provers", str(sharp), "--policy", str(policy), "--k", "1", "--out", str(tmp_path / "named")])
    (only,) = ranked(tmp_path / "named")
    assert (only["prover"], float(only["alignment"])) == (str(sharp), pytest.approx(0.08))


def test_the_same_seed_is_warned_of(labels: list[Path], tmp_path: Path) -> None:
    again = write(tmp_path / "again", labelled(0.7, 0.2))
    with pytest.warns(UserWarning, match="were labelled with the same seed, 0: provers that are alike then err alike"):
        main(["provers", str(labels[0]), str(again), "--out", str(tmp_path / "out")])


def test_what_cannot_be_ranked_ends_in_one_line(
    labels: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = labels[0]
    own = labelled(0.6, 0.4)
    mixed = [replace(t, prover=f'{{"model": "{i % 2}"}}') for i, t in enumerate(own)]
    cases = {
        "fewer": (labelled(0.6, 0.4, problems=5), "fewer are of other completions than the policy's"),
        "uncounted": ([replace(t, value_counts=()) for t in own], "does not say how many attempts"),
        "single": (labelled(1.0, 0.0, n=1), "single has values of n = 1: the noise of the best of 1"),
        "another": (
            [replace(t, policy='{"model": "a"}', prover='{"model": "b"}') for t in own],
            "another holds no values of the policy that sampled the completions: those are of a prover with another",
        ),
        "mixed": (mixed, "mixed has labels of several provers, of another model"),
        "unlabelled": ([replace(t, values=()) for t in own], "unlabelled has 0 values for 3 prefixes"),
    }
    for name, (trajectories, message) in cases.items():
        first = [] if name == "another" else [str(policy)]
        _refused(capsys, [*first, str(write(tmp_path / name, trajectories, 9))], tmp_path, message)
    alike = write(tmp_path / "alike", own[::2])
    _refused(capsys, [str(alike)], tmp_path, "no two completions take different steps from the same state")
    _refused(capsys, [str(policy), "--k", "16"], tmp_path, "the noise of the best of 16 is known from n = 32")
    _refused(capsys, [str(policy), "--k", "0"], tmp_path, "0")
    _refused(capsys, [str(tmp_path / "nowhere")], tmp_path, "nowhere does not exist")
    _refused(capsys, [], tmp_path, "labels")


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.5])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("k", [[], ["--k", "1"]])
def test_values_that_are_no_probabilities_are_named(
    labels: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, position: int, k: list[str]
) -> None:
    """Wherever they stand, whatever is asked for, in the policy's labels as in a candidate's."""
    wrong = labelled(0.6, 0.4)
    wrong[2].values = [value if i == position else v for i, v in enumerate(wrong[2].values)]
    folder = write(tmp_path / "wrong", wrong, 9)
    message = f"{folder}, row 3, a completion of problem 1, has the values ["
    _refused(capsys, [str(labels[0]), str(folder), *k], tmp_path, message)
    _refused(capsys, [str(labels[0]), "--policy", str(folder), *k], tmp_path, message)


def test_values_that_are_no_shares_are_named(
    labels: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, n in (("few", 7), ("less", -1)):
        wrong = labelled(0.6, 0.4)
        wrong[2].value_counts = [n, n, 0]
        message = f"row 3, a completion of problem 1, has the value 0.6 of {n} attempts, which is no share of so many"
        _refused(capsys, [str(labels[0]), str(write(tmp_path / name, wrong, 9))], tmp_path, message)


@pytest.mark.parametrize("setting", ["half_width", "first_pit"])
def test_labels_that_were_stopped_early_are_refused_where_counts_are_alike_too(
    labels: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    folder = write(tmp_path / "stopped", labelled(0.6, 0.4), 9, **{setting: 0.25})
    _refused(capsys, [str(labels[0]), str(folder)], tmp_path, f"{folder} was labelled with {setting} 0.25: attempts")
    _refused(capsys, [str(labels[0]), "--policy", str(folder)], tmp_path, "label it without half_width and first_pit")


def _refused(capsys: pytest.CaptureFixture[str], arguments: list[str], tmp_path: Path, message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["provers", *arguments, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
