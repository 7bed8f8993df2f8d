"""Pages lead to what exists: links, anchors, named files and figures."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
PAPERS = sorted(path for path in (ROOT / "docs/papers").iterdir() if path.is_dir())

#: A link or image in Markdown, its target without a title.
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
#: The path of one of the repository's files or folders, in text or in a command.
NAMED = re.compile(
    r"(?<![\w./-])((?:surefoot|lightning_modules|datamodules|callbacks|configs|tests|benchmarks|docs|requirements)/[\w./-]*)"
)


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings get where it is shown."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative_links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each relative link of a page as written, the file it leads to and its anchor."""
    for target in LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield target, (page.parent / path).resolve() if path else page, anchor


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file, or to no heading of it."""
    return [
        target
        for target, path, anchor in relative_links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]


def missing_files(page: Path, root: Path) -> list[str]:
    """Return the repository's files that a page names and that do not exist; a name may leave the suffix out.

    Files that its examples write are left out.
    """
    text = page.read_text()
    written = re.findall(r"^# (\S+\.py)$", text, flags=re.MULTILINE)  # its own examples, which say which file they are
    named = (path.rstrip(".") for path in NAMED.findall(text))
    return [
        path
        for path in named
        if path not in written and not (root / path).exists() and not list(root.glob(f"{path.rstrip('/')}.*"))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    assert not broken_links(page)
    if page.name != "CHANGELOG.md":  # which may name what is gone
        assert not missing_files(page, ROOT)


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# A title, here\n[a](page.md#a-title-here) [b](#other) ![c](c.svg "d") [e](https://example.org)\n'
        "```sh\n[f](f.md)\nsurefoot fit --config configs/gone.yaml\n```\n`tests/test_gone.py`, runs/configs/x\n"
    )
    assert broken_links(page) == ["#other", "c.svg"]
    assert missing_files(page, tmp_path) == ["configs/gone.yaml", "tests/test_gone.py"]


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [ROOT / "docs/README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [path for _, path, _ in relative_links(page) if path.suffix == ".md"]
    assert [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in reached] == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_a_papers_figures_are_those_that_its_page_shows(paper: Path) -> None:
    shown = {path for _, path, _ in relative_links(paper / "README.md") if path.suffix == ".svg"}
    assert shown == {path for path in (paper / "figures").rglob("*") if path.is_file()}
    assert bool(shown) == (paper / "claims.json").is_file(), "where something was measured"


def test_generated_files_are_marked() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "docs/papers", "benchmarks/results"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    answers = subprocess.run(
        ["git", "check-attr", "--stdin", "-z", "linguist-generated"],
        cwd=ROOT,
        input=listed,
        capture_output=True,
        check=True,
    ).stdout.decode()
    fields = answers.split("\0")[:-1]
    marked = {path: value == "set" for path, value in zip(fields[::3], fields[2::3], strict=True)}
    assert marked == {path: not path.endswith("/README.md") for path in listed.decode().split("\0")[:-1]} != {}
