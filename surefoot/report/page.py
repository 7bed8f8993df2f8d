"""One HTML page without anything outside it."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ("Section", "page", "picture")

_STYLE = """
body{font:16px/1.5 sans-serif;max-width:66em;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em;overflow-wrap:anywhere} h2{font-size:1.2em;margin-top:2em}
.wide{overflow-x:auto;margin:1em 0}
table{border-collapse:collapse;font-size:.9em}
td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ccc;vertical-align:top}
th{border-bottom:2px solid #888}
td,th{max-width:26em;overflow-wrap:break-word} th{max-width:14em}
td:first-child{min-width:13em}
td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
th.number{text-align:right}
tr:hover td{background:#f4f4f4}
svg{max-width:100%;height:auto}
summary{cursor:pointer;color:#0072B2}
""".replace("\n", "")


class Section(NamedTuple):
    """A heading, a table and perhaps a figure above it."""

    title: str
    table: tuple[Sequence[str], Sequence[Sequence[str]]]
    figure: str = ""
    folded: bool = False


def picture(svg: Path) -> str:
    """Return the drawing of an SVG file, its ids prefixed by the file's name: two drawings on one page share none."""
    text = svg.read_text()
    text = text[text.index("<svg") :]
    stem = svg.stem
    return (
        text.replace(' id="', f' id="{stem}-').replace('href="#', f'href="#{stem}-').replace("url(#", f"url(#{stem}-")
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _breakable(cell: str) -> str:
    """Return a cell's text, which may break after the dots and slashes of a long name, not inside its words."""
    escaped = html.escape(cell)
    return escaped if _is_number(cell) else re.sub(r"(?<=[A-Za-z\d\])])([._/=,:]+)(?=[A-Za-z])", r"\1<wbr>", escaped)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; columns of numbers are aligned on the right."""
    numeric = [bool(rows) and all(_is_number(row[i]) or not row[i] for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str], tag: str) -> str:
        classes = [' class="number"' if n else "" for n in numeric]
        return (
            "<tr>"
            + "".join(f"<{tag}{c}>{_breakable(cell)}</{tag}>" for c, cell in zip(classes, cells, strict=True))
            + "</tr>"
        )

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(header, "th")}{body}</table></div>'


def page(title: str, about: str, sections: Sequence[Section]) -> str:
    """Return a page.

    Args:
        title: Its heading.
        about: A paragraph below it.
        sections: Figures and tables in order; a folded one opens with a click.
    """
    parts = []
    for section in sections:
        body = section.figure + _table(*section.table)
        heading = f"<h2>{html.escape(section.title)}</h2>" if section.title else ""
        if section.folded:
            n_rows = len(section.table[1])
            body = f"<details><summary>show {n_rows} rows</summary>{body}</details>"
        parts.append(f"<section>{heading}{body}</section>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width"><title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>{''.join(parts)}</body></html>\n"
    )
