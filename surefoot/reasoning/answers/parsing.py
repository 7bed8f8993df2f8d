"""Parsing tidy answers: into collections, relations, matrices, words, based numbers, ratios and expressions."""

import re
from collections.abc import Sequence
from functools import lru_cache

from surefoot.reasoning.answers.brackets import dense, enclosed, split_outside
from surefoot.reasoning.answers.nodes import Based, Collection, Leaf, Matrix, Node, Ratio, Relation, Words
from surefoot.reasoning.answers.words import words_of

__all__ = ("interval_of", "is_name", "names_of", "parse")

_RELATION = {
    "=",
    "<",
    ">",
    r"\le",
    r"\ge",
    r"\neq",
    r"\in",
    r"\notin",
    r"\ni",
    r"\subset",
    r"\subseteq",
    r"\ll",
    r"\gg",
    r"\cong",
    r"\propto",
    r"\rightarrow",
    r"\Rightarrow",
    r"\approx",
    r"\equiv",
    r"\to",
    r"\implies",
    r"\sim",
    r"\mid",
}
_MATRIX = re.compile(r"^\\begin\{([pbvBV]?)(?:small)?matrix\}(.*)\\end\{[pbvBV]?(?:small)?matrix\}$", re.DOTALL)
_ARRAY = re.compile(
    r"^[\[(] ?\\begin\{(?:array\}\{[lcr| ]*|matrix)\}(.*)\\end\{(?:array|matrix)\} ?[\])]$",
    re.DOTALL,
)
_BASED = re.compile(
    r"^\(?([0-9A-Za-z]+)\)?_ ?(?:\{ ?(?:\\text ?\{ ?)?\(?(?:base ?)?\}? ?([0-9a-z]+)\)? ?\}? ?\}|(\d+))$"
)
_SPELLED = re.compile(r"^([0-9A-F]+) ?(?:\\text ?\{ ?)?(?:\(?in )?\(?base[ -](\w+)\)? ?\}?$")
_RATIO = re.compile(
    r"^(\d+(?:\.\d+)?)((?: ?: ?\d+(?:\.\d+)?)+) ?((?:\\text ?\{ ?)?([ap])\.? ?m\.? ?\}?)?$",
    re.IGNORECASE,
)
_WHOLE_TEXT = re.compile(r"^\\text ?\{([^{}]*[\d,][^{}]*)\}$")
_LEADING_TEXT = re.compile(r"^\\text ?\{ ?([^{}]*?) ?\} ?(.+)$", re.DOTALL)
_TRAILING_TEXT = re.compile(r"^(.*[\d)}\]]) ?\\text ?\{ ?[a-zA-Z ]*\}$", re.DOTALL)
_AND = re.compile(r"\s*,?\s*(?:\\text ?\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s*")
_OR = re.compile(r"\s*,?\s*(?:\\text ?\{ *or *\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:lor|vee)(?![a-zA-Z]))\s*")
_LEAD = re.compile(
    r"^(?:\\approx|~|approximately|approx\.?|about|roughly|around|exactly|only|therefore|thus|hence|simply|just|(?:is"
    r" |are )?equal to"
    r"|equals|is|a total of|the (?:final )?answer is|(?:the )?(?:final )?answer:?|option|choice)(?=[\s\\\d(-])\s*:?\s*",
    re.IGNORECASE,
)
_NAME = re.compile(r"^(?=.*[A-Za-z])[A-Za-z\\ {}|'+∠]+$")
_BASE_WORDS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
}
_BASE_WORDS |= {
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
    "sixteen": "16",
    "binary": "2",
    "octal": "8",
}
_EVERYTHING = re.compile(r"^(?:\\mathbb ?\{? ?R ?\}?|(?:\\text\{ ?)?all real numbers(?: ?\})?)$", re.IGNORECASE)


@lru_cache(maxsize=2048)
def parse(text: str, is_reference: bool) -> Node:
    """Parse a tidy answer.

    Args:
        text: A tidy answer.
        is_reference: As in `quantity`.
    """
    text = text.strip()
    if m := _WHOLE_TEXT.match(text):
        text = m[1].strip()
    elif (m := _LEADING_TEXT.match(text)) and _LEAD.match(f"{m[1]} {m[2]}"):
        text = f"{m[1]} {m[2]}"
    for _ in range(3):
        text = _LEAD.sub("", text) or text
    if re.match(r"= ?[^=]+$", text):
        text = text[1:].strip()
    alternatives = _OR.split(text)
    if len(alternatives) > 1:
        parsed = [_item(a, is_reference) for a in alternatives]
        ranges = [interval_of(p) for p in parsed if isinstance(p, Relation)]
        names = {n for p in parsed if isinstance(p, Relation) for n in names_of(p)}
        if len(ranges) == len(parsed) and None not in ranges and len(names) == 1:
            return Collection("union", tuple(r for r in ranges if r is not None))
    joined = _AND.sub(", ", text) if ("and" in text or "or" in text) and _has_math(text) else text
    parts, _ = split_outside(joined, {",", ";"})
    if len(parts) > 1:
        items = [parse(p, is_reference) for p in parts if p]
        assigned = re.match(r"^([A-Za-z](?:_\w+)?) ?(?:=|\\in)(?!.*=)", joined)
        if assigned:  # x = 1, 2
            items[0] = parse(parts[0][assigned.end() :].strip(), is_reference)
        return Collection("list", _spread(items))
    return _item(text, is_reference)


def _has_math(text: str) -> bool:
    return bool(re.search(r"[\d\\=$]", text)) or bool(re.fullmatch(r"\S{1,3},? (?:and|or) \S{1,3}", text))


def _spread(items: Sequence[Node]) -> tuple[Node, ...]:
    r"""Return items with those of ``1 \pm 2`` one by one."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Collection) and item.kind == "signs" else [item]
    return tuple(flat)


def _item(text: str, is_reference: bool) -> Node:
    if _EVERYTHING.match(text):
        text = r"(-\infty,\infty)"
    sides, operators = split_outside(text, _RELATION)
    if operators:
        if operators == [r"\in"] and is_name(sides[0]):
            return parse(sides[1], is_reference)
        return Relation(tuple(sides), tuple(operators))
    if (m := _TRAILING_TEXT.match(text)) and not isinstance(node := _item(m[1], is_reference), Leaf | Words | Relation):
        return node
    parts, joints = split_outside(text, {r"\cup"})
    if joints:
        return Collection("union", tuple(_item(p, is_reference) for p in parts))
    if m := _MATRIX.match(text):
        return _matrix(m[2], m[1] in ("v", "V"), is_reference)
    if m := _ARRAY.match(text):
        return _matrix(m[1], False, is_reference)
    if m := _BASED.match(text) or _SPELLED.match(text):
        base = m[2] or m[3] if m.re is _BASED else m[2]
        base = _BASE_WORDS.get(base.lower(), base)
        if base.isdigit() and any(c.isdigit() for c in m[1]):
            return Based(m[1].upper().lstrip("0") or "0", base)
    if m := _RATIO.match(text):
        return Ratio((m[1], *re.findall(r"[\d.]+", m[2])), (m[4] or "").lower())
    whole = _bracketed(text, is_reference) or words_of(text)
    if whole is not None:
        return whole
    if r"\pm" in text or r"\mp" in text:
        signs = [text.replace(r"\pm", p).replace(r"\mp", m) for p, m in (("+", "-"), ("-", "+"))]
        signs = [re.sub(r"^\+ ?", "", s.strip()) for s in signs]
        return Collection("signs", tuple(Leaf(s, is_reference) for s in signs))
    return Leaf(text, is_reference)


def _bracketed(text: str, is_reference: bool) -> Node | None:
    """Return what stands between brackets around the whole text; none where one letter does, or none are."""
    if (brackets := enclosed(text)) is None:
        return None
    opening, inner, closing = brackets
    parts, separators = split_outside(inner, {",", ";"})
    if not inner:
        return Words(r"\emptyset" if opening == r"\{" else text, None)
    if separators or opening == r"\{" or opening == "[" or closing == "]":
        items = _spread([_item(p, is_reference) for p in parts])
        kind = {r"\{": "set", "{": "set" if separators else "list"}.get(opening, opening + closing)
        return Collection(kind.replace(r"\langle\rangle", "()").replace(r"\langle", "("), items)
    if opening == "{" or (opening == "(" and not re.fullmatch(r"[A-Za-z]", inner)):
        return parse(inner, is_reference)
    return None


def _matrix(body: str, determinant: bool, is_reference: bool) -> Matrix:
    body = re.sub(r"\\\\\s*\[[^\]]*\]", r"\\\\", body)
    rows = [r for r in re.split(r"\\\\|\\cr", body) if r.strip()]
    return Matrix(
        tuple(tuple(_item(c.strip(), is_reference) for c in r.split("&")) for r in rows),
        determinant,
    )


def is_name(text: str) -> bool:
    """Return whether a side of an equation names what is asked for: x, f(3), a_5, m+n, area of the triangle."""
    text = re.sub(
        r"_ ?(?:\{[^{}]*\}|\w)|\^ ?\{? ?(?:-1|\\prime|\\circ|\*) ?\}?|\\text ?\{[^{}]*\}|\([^()]*\)",
        "",
        text + " w"[:0],
    )
    return bool(_NAME.match(text.strip() or "w"))


def names_of(relation: Relation) -> set[str]:
    """Return the sides of a relation that name what is asked for."""
    return {dense(s) for s in relation.sides if is_name(s)}


def interval_of(relation: Relation) -> Collection | None:
    r"""Return the interval of ``a < x \le b``, ``x < b`` and the like."""
    flip = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
    sides, operators = list(relation.sides), list(relation.operators)
    if set(operators) - set(flip):
        return None
    if len(sides) == 2:
        if not is_name(sides[0]):
            sides, operators = sides[::-1], [flip[operators[0]]]
        if not is_name(sides[0]) or is_name(sides[1]):
            return None
        low, high = ("-\\infty", sides[1]) if operators[0] in ("<", r"\le") else (sides[1], "\\infty")
        closed = operators[0] in (r"\le", r"\ge")
        brackets = ("(", "]" if closed else ")") if low == "-\\infty" else ("[" if closed else "(", ")")
    elif len(sides) == 3 and is_name(sides[1]):
        if operators[0] in (">", r"\ge"):
            sides, operators = sides[::-1], [flip[o] for o in operators[::-1]]
        if set(operators) - {"<", r"\le"}:
            return None
        low, high = sides[0], sides[2]
        brackets = "[" if operators[0] == r"\le" else "(", "]" if operators[1] == r"\le" else ")"
    else:
        return None
    return Collection(brackets[0] + brackets[1], (parse(low, True), parse(high, True)))
