import csv
from pathlib import Path

import pytest
from conftest import Fit, tiny

from surefoot.cli import main
from surefoot.report.figures import PALETTE, dot_plot, interval_curves
from surefoot.report.page import Section, page
from surefoot.report.runs import flatten, read_metrics
from surefoot.report.tables import latex_table, markdown_table
from surefoot.statistics import (
    mean_interval,
    paired_proportion_difference,
    proportion_interval,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_two_methods_over_two_seeds(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, list[float]] = {}
    for method in ("ERM", "CVaRDRO"):
        for seed in (0, 1):
            config = tiny(method) | {"seed_everything": seed}
            config["data"]["init_args"]["seed"] = seed
            run = fit(config, name=f"{method}-{seed}")
            with (run / "selection.csv").open() as file:
                rows = {r["rule"]: r for r in csv.DictReader(file)}
            values.setdefault(method, []).append(float(rows["val_worst_group"]["test/worst_group_accuracy"]))
    capsys.readouterr()
    main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
    table = capsys.readouterr().out
    for method, found in values.items():
        estimate = proportion_interval(found)
        assert (
            f"| {method} on DigitsDataModule | {estimate.mean:.3f} | ({estimate.low:.3f}, {estimate.high:.3f}) | 2 |"
            in table
        )
    difference = paired_proportion_difference(values["CVaRDRO"], values["ERM"])
    assert f"{difference.mean:+.3f}" in table or f"{-difference.mean:+.3f}" in table
    for name in (
        "runs.csv",
        "table.md",
        "table.tex",
        "report.html",
        "comparison.svg",
        "groups.svg",
    ):
        assert (tmp_path / "report" / name).stat().st_size > 0
    page = (tmp_path / "report/report.html").read_text().replace("<wbr>", "")  # where a line may break
    assert "<svg" in page
    assert "http://www.w3.org" in page.replace("https", "http")
    assert 'src="' not in page, "one self-contained page"
    with (tmp_path / "report/runs.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 4, "the latest links are not read twice"
    assert records[0]["model.class_path"]


def test_parts_of_an_interrupted_run_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n3,0.1\n")
    (tmp_path / "metrics.0.csv").write_text("step,loss\n1,0.3\n")
    (tmp_path / "metrics.1.csv").write_text("step,loss,accuracy\n2,0.2,\n2,,0.9\n")
    assert read_metrics(tmp_path)["loss"] == [0.3, 0.2, 0.1]
    assert read_metrics(tmp_path)["accuracy"] == [0.9]


@pytest.mark.parametrize("cut_off", ["2,0.", "2,1e-", "2", "2,0.25"])
def test_a_row_that_a_kill_has_cut_off_does_not_count(tmp_path: Path, cut_off: str) -> None:
    (tmp_path / "metrics.0.csv").write_text(f"step,loss\r\n1,0.3\r\n{cut_off}")
    (tmp_path / "metrics.csv").write_text("step,loss\r\n2,0.251\r\n")
    assert read_metrics(tmp_path) == {"step": [1, 2], "loss": [0.3, 0.251]}


def test_tables_by_hand() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert markdown_table(["a|b"], []) == "| a\\|b |\n| --- |"
    assert "a\\_b & 5\\% \\\\" in latex_table(["a_b", "5%"], [])
    assert "\\{x=1\\} \\& \\#2 \\textbackslash{}" in latex_table(["{x=1} & #2 \\"], [])
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_figures_are_repeatable_and_told_apart_without_colour(tmp_path: Path) -> None:
    points = [(0.1, mean_interval([0.1, 0.2])), (1.0, mean_interval([0.5, 0.6]))]
    arguments = ({"a": points, "b": points}, ("x", "y"))
    first = interval_curves(*arguments, tmp_path / "one", log_x=True, horizontals={"c": points[0][1]})
    second = interval_curves(*arguments, tmp_path / "two", log_x=True, horizontals={"c": points[0][1]})
    assert first.read_text() == second.read_text()
    assert ">c</text>" in first.read_text(), "text is text, not a drawing of each letter"
    assert dot_plot({"s": {"row": points[0][1]}}, "x", tmp_path / "dots") == tmp_path / "dots.svg"
    assert {p.suffix for p in tmp_path.iterdir()} == {".svg"}, "one format"
    assert len(set(PALETTE)) == len(PALETTE)


def test_long_names_break_between_their_words(tmp_path: Path) -> None:
    rows = [["model.init_args.adversary_optimizer", "runs/erm_digits/0"], ["0.125", "a & b"]]
    text = page("t", "", [Section("", (["setting", "value"], rows))])
    assert "<td>model.<wbr>init_<wbr>args.<wbr>adversary_<wbr>optimizer</td>" in text
    assert "<td>runs/<wbr>erm_<wbr>digits/0</td>" in text
    assert "<td>0.125</td><td>a &amp; b</td>" in text
    assert "td,th{max-width:26em;overflow-wrap:break-word}" in text
