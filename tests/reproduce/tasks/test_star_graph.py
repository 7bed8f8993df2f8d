"""Star graphs: their one path to the goal, what is graded, and the datamodule that reads them."""

from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Fit
from tiny_reasoning import tiny_reasoning

from datamodules import JSONLDataModule
from surefoot.reasoning.answers import Grader
from surefoot.reasoning.language_models.digit_tokenizer import digit_tokenizer
from surefoot.reasoning.sequences import split_spans
from surefoot.reproduce.tasks.star_graph import SEPARATOR, StarGraphs, grade_path, write_problems


def read(question: str) -> tuple[dict[int, list[int]], int, int]:
    """Return where edges lead from each node, the start and the goal."""
    edges, ends = question.split("?")
    start, goal = map(int, ends.split(","))
    following: dict[int, list[int]] = {}
    for edge in edges.split(";"):
        a, b = map(int, edge.split(","))
        following.setdefault(a, []).append(b)
    return following, start, goal


@pytest.mark.parametrize("graphs", [StarGraphs(), StarGraphs(5, 4, 20), StarGraphs(3, 3, 7)])
def test_the_answer_is_the_one_path_from_the_start_to_the_goal(graphs: StarGraphs) -> None:
    n_nodes = graphs.degree * (graphs.length - 1) + 1
    assert n_nodes <= graphs.n_labels
    for problem in graphs.problems(3, 50):
        following, start, goal = read(problem.question)
        nodes = {*following, *(b for own in following.values() for b in own)}
        assert len(nodes) == n_nodes
        assert nodes <= set(range(1, graphs.n_labels + 1))
        assert len(following.pop(start)) == graphs.degree
        assert all(len(own) == 1 for own in following.values())
        path = [int(node) for node in problem.answer.strip("()").split(",")]
        assert len(path) == graphs.length - 1
        assert path[-1] == goal
        assert all(following[a] == [b] for a, b in pairwise(path))


def test_graphs_are_those_of_their_seed_and_of_no_other() -> None:
    graphs = StarGraphs()
    assert graphs.problems(0, 20)[:10] == graphs.problems(0, 10)
    assert not {p.question for p in graphs.problems(0, 200)} & {p.question for p in graphs.problems(1, 200)}


def test_neither_the_place_of_an_edge_nor_its_label_gives_the_first_node_away() -> None:
    """Of two first nodes the right one stands first, and is the smaller number, in half of the graphs."""
    first, smaller, n = 0, 0, 2000
    for problem in StarGraphs().problems(0, n):
        following, start, _ = read(problem.question)
        right = int(problem.answer[1:].split(",")[0])
        first += following[start][0] == right
        smaller += min(following[start]) == right
    assert first / n == pytest.approx(0.5, abs=0.04)
    assert smaller / n == pytest.approx(0.5, abs=0.04)


def test_each_step_is_a_node() -> None:
    tokenizer = digit_tokenizer()
    solution = "#### (12,5,33)"
    ids = tokenizer.encode(solution, add_special_tokens=False)
    assert tokenizer.unk_token_id not in [*ids, *tokenizer.encode(StarGraphs().problem(0, 0).question)]
    assert split_spans(ids, tokenizer.decode, SEPARATOR)[1] == ["#### (12,", "5,", "33)"]


def test_first_node_and_full_path_are_graded_apart() -> None:
    problem = StarGraphs(2, 4).problem(0, 0)._replace(answer="(12,5,33)", solution="#### (12,5,33)")
    expected = {
        "#### (12,5,33)": (True, True),
        "#### (12,5,33)\n": (True, True),
        "#### (12,33,5)": (True, False),
        "#### (5,12,33)": (False, False),
        "#### (12,5": (True, False),
        "#### (1": (False, False),
        "#### (33)": (False, False),
        "#### 33": (False, False),
        "33": (False, False),
        "": (False, False),
    }
    assert {solution: grade_path(solution, problem) for solution in expected} == expected
    grades = Grader(n_workers=1)([*expected], [problem.answer] * len(expected))
    full = [full_path for _, full_path in expected.values()]
    assert [grade.correct for grade in grades] == full, "training grades answers as the study does"


def test_the_problems_of_a_file_are_those_that_were_written(tmp_path: Path) -> None:
    graphs = StarGraphs(3, 4)
    write_problems(graphs.problems(0, 8), tmp_path / "train.jsonl")
    write_problems(graphs.problems(1, 4), tmp_path / "test.jsonl")
    data = JSONLDataModule(train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl", n_val=0)
    assert data.problems("train") == graphs.problems(0, 8)
    assert data.problems("test") == graphs.problems(1, 4)


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_trained_and_graded_on_a_file(fit: Fit, tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "val")}
    for seed, path in enumerate(files.values()):
        write_problems(StarGraphs(2, 3).problems(seed, 8), Path(path))
    config = tiny_reasoning("SFT")
    config["trainer"]["max_epochs"] = 1
    config["data"] = {"class_path": "JSONLDataModule", "init_args": {**files, "batch_size": 4, "contamination": "off"}}
    columns = (fit(config) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss", "val/accuracy"} <= {*columns}


@pytest.mark.parametrize("numbers", [(1, 5, 50), (2, 2, 50), (5, 5, 20)])
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"got {numbers[0]}, {numbers[1]} and {numbers[2]}"):
        StarGraphs(*numbers)
