r"""Whether an answer equals a reference: both become collections, relations, matrices, texts and expressions.

What a bare text cannot decide (is 5 in ``5 apples`` a 5?) is a policy, and stands in docs/reasoning.md.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from surefoot.reasoning.answers.notation import Quantity, numbers_equal, quantity, tidy

__all__ = ("answers_equal", "is_unreadable", "plain_verdict")

#: Longer collections are compared in the order they stand in.
_MAX_UNORDERED = 30


class _Collection(NamedTuple):
    """Items between brackets: ``list`` (none), ``set``, or the two brackets of a tuple or interval."""

    kind: str
    items: tuple["_Node", ...]


class _Relation(NamedTuple):
    """Sides, and the operators between them."""

    sides: tuple[str, ...]
    operators: tuple[str, ...]


class _Matrix(NamedTuple):
    rows: tuple[tuple["_Node", ...], ...]
    determinant: bool


class _Words(NamedTuple):
    text: str
    choice: str | None  # letter of a multiple-choice answer


class _Based(NamedTuple):
    digits: str
    base: str


class _Ratio(NamedTuple):
    parts: tuple[str, ...]
    rest: str  # am or pm


class _Leaf(NamedTuple):
    text: str
    is_reference: bool

    @property
    def quantity(self) -> Quantity:
        return _quantity(self.text, self.is_reference)


_Node = _Collection | _Relation | _Matrix | _Words | _Based | _Ratio | _Leaf

_quantity = lru_cache(maxsize=1024)(quantity)

_OPEN = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
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
_CHOICE = re.compile(
    r"^(?:\\text ?\{ ?)?\(? ?([A-Ja-j]) ?(?:\)|(?=[.:]\s)|\} ?|(?=\\text)|$)[).:}]*(?P<rest>|[ \\].*)$"
)
_NAME = re.compile(r"^(?=.*[A-Za-z])[A-Za-z\\ {}|'+∠]+$")
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
            " seventeen"
            " eighteen nineteen twenty",
        )
    )
}
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBER_WORDS |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6}
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


def _depths(text: str) -> Iterator[tuple[str, int, int]]:
    r"""Yield tokens, where they start, and how many brackets are open around them; ``(0, 1]`` counts as closed."""
    depth = 0
    for m in _TOKEN.finditer(text):
        token = m.group()
        if token in (")", "]", "}", r"\}", r"\rangle", r"\end"):
            depth -= 1
        yield token, m.start(), depth
        if token in ("(", "[", "{", r"\{", r"\langle", r"\begin"):
            depth += 1


def _split(text: str, separators: set[str]) -> tuple[list[str], list[str]]:
    """Return the parts between separators outside of all brackets, and the separators."""
    parts, found, start = [], [], 0
    for token, place, depth in _depths(text):
        if token in separators and depth == 0:
            parts.append(text[start:place].strip())
            found.append(token)
            start = place + len(token)
    return [*parts, text[start:].strip()], found


def _enclosed(text: str) -> tuple[str, str, str] | None:
    """Return the brackets around the whole text and what they hold, none where there are none."""
    opening = next((b for b in (r"\{", r"\langle", "(", "[", "{") if text.startswith(b)), None)
    closing = next((b for b in (r"\}", r"\rangle", ")", "]", "}") if text.endswith(b)), None)
    if opening is None or closing is None or len(text) < len(opening) + len(closing):
        return None
    if (opening == r"\{") != (closing == r"\}") or (opening == "{") != (closing == "}"):
        return None
    last = len(text) - len(closing)
    for token, place, depth in _depths(text):
        if (depth == 0 and token == closing and place != last) or depth < 0:
            return None
        if depth == 0 and place > 0 and place < last:
            return None
    return opening, text[len(opening) : last].strip(), closing


@lru_cache(maxsize=2048)
def _parse(text: str, is_reference: bool) -> _Node:
    """Take a tidy answer apart."""
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
        ranges = [_interval(p) for p in parsed if isinstance(p, _Relation)]
        names = {n for p in parsed if isinstance(p, _Relation) for n in _names(p)}
        if len(ranges) == len(parsed) and None not in ranges and len(names) == 1:
            return _Collection("union", tuple(r for r in ranges if r is not None))
    joined = _AND.sub(", ", text) if ("and" in text or "or" in text) and _has_math(text) else text
    parts, _ = _split(joined, {",", ";"})
    if len(parts) > 1:
        items = [_parse(p, is_reference) for p in parts if p]
        assigned = re.match(r"^([A-Za-z](?:_\w+)?) ?(?:=|\\in)(?!.*=)", joined)
        if assigned:  # x = 1, 2
            items[0] = _parse(parts[0][assigned.end() :].strip(), is_reference)
        return _Collection("list", _spread(items))
    return _item(text, is_reference)


def _has_math(text: str) -> bool:
    return bool(re.search(r"[\d\\=$]", text)) or bool(re.fullmatch(r"\S{1,3},? (?:and|or) \S{1,3}", text))


def _spread(items: Sequence[_Node]) -> tuple[_Node, ...]:
    r"""Return items with those of ``1 \pm 2`` one by one."""
    flat: list[_Node] = []
    for item in items:
        flat += item.items if isinstance(item, _Collection) and item.kind == "signs" else [item]
    return tuple(flat)


def _item(text: str, is_reference: bool) -> _Node:
    if _EVERYTHING.match(text):
        text = r"(-\infty,\infty)"
    sides, operators = _split(text, _RELATION)
    if operators:
        if operators == [r"\in"] and _is_name(sides[0]):
            return _parse(sides[1], is_reference)
        return _Relation(tuple(sides), tuple(operators))
    if (m := _TRAILING_TEXT.match(text)) and not isinstance(
        node := _item(m[1], is_reference), _Leaf | _Words | _Relation
    ):
        return node
    parts, joints = _split(text, {r"\cup"})
    if joints:
        return _Collection("union", tuple(_item(p, is_reference) for p in parts))
    if m := _MATRIX.match(text):
        return _matrix(m[2], m[1] in ("v", "V"), is_reference)
    if m := _ARRAY.match(text):
        return _matrix(m[1], False, is_reference)
    if m := _BASED.match(text) or _SPELLED.match(text):
        base = m[2] or m[3] if m.re is _BASED else m[2]
        base = _BASE_WORDS.get(base.lower(), base)
        if base.isdigit() and any(c.isdigit() for c in m[1]):
            return _Based(m[1].upper().lstrip("0") or "0", base)
    if m := _RATIO.match(text):
        return _Ratio((m[1], *re.findall(r"[\d.]+", m[2])), (m[4] or "").lower())
    enclosed = _enclosed(text)
    if enclosed:
        opening, inner, closing = enclosed
        parts, separators = _split(inner, {",", ";"})
        if not inner:
            return _Words(r"\emptyset" if opening == r"\{" else text, None)
        if separators or opening == r"\{" or opening == "[" or closing == "]":
            items = _spread([_item(p, is_reference) for p in parts])
            kind = {r"\{": "set", "{": "set" if separators else "list"}.get(opening, opening + closing)
            return _Collection(kind.replace(r"\langle\rangle", "()").replace(r"\langle", "("), items)
        if not re.fullmatch(r"[A-Za-z]", inner) and opening == "(":
            return _parse(inner, is_reference)
        if opening == "{":
            return _parse(inner, is_reference)
    words = _words(text)
    if words is not None:
        return words
    if r"\pm" in text or r"\mp" in text:
        signs = [text.replace(r"\pm", p).replace(r"\mp", m) for p, m in (("+", "-"), ("-", "+"))]
        signs = [re.sub(r"^\+ ?", "", s.strip()) for s in signs]
        return _Collection("signs", tuple(_Leaf(s, is_reference) for s in signs))
    return _Leaf(text, is_reference)


def _matrix(body: str, determinant: bool, is_reference: bool) -> _Matrix:
    body = re.sub(r"\\\\\s*\[[^\]]*\]", r"\\\\", body)
    rows = [r for r in re.split(r"\\\\|\\cr", body) if r.strip()]
    return _Matrix(
        tuple(tuple(_item(c.strip(), is_reference) for c in r.split("&")) for r in rows),
        determinant,
    )


def _words(text: str) -> _Words | None:
    """Return a text as words, none where it is a formula."""
    if text[:1] in ("-", "+") or len(text) == 1:
        return None
    if re.search(r"\d", text) and not _CHOICE.match(text):
        return None
    letter = None
    if (m := _CHOICE.match(text)) and not re.match(r"^[A-Za-z](?![).:}])[^)]", text):
        rest = m["rest"].strip()
        bracketed = not re.match(r"^[A-Za-z]$", text)
        if not rest or (re.match(r"^.*[).:}] ?\S", text) and not re.match(r"^[*/^+=_-]", rest)):
            letter = m[1].upper() if bracketed else m[1]
    if re.search(r"\d", text) and letter is None:
        return None
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_=<>+*/|{}()]", plain) and letter is None:
        return None
    words = _WORD.findall(plain)
    if letter is None and r"\text" not in text and not any(len(w) > 2 for w in words):
        return None
    shown = re.sub(r"[^a-z0-9 ]+", " ", plain.lower())
    shown = re.sub(r"^(?:the|an|a) ", "", " ".join(shown.split()))
    return _Words(shown, letter)


def _is_name(text: str) -> bool:
    """Return whether a side of an equation names what is asked for: x, f(3), a_5, m+n, area of the triangle."""
    text = re.sub(
        r"_ ?(?:\{[^{}]*\}|\w)|\^ ?\{? ?(?:-1|\\prime|\\circ|\*) ?\}?|\\text ?\{[^{}]*\}|\([^()]*\)",
        "",
        text + " w"[:0],
    )
    return bool(_NAME.match(text.strip() or "w"))


def answers_equal(reference: str, answer: str) -> bool:
    """Return whether an answer equals the reference.

    Args:
        reference: As it stands in the data.
        answer: As extracted.
    """
    gold, found = tidy(reference), tidy(answer)
    if not found or not gold:
        return reference.strip() == answer.strip() != ""
    if _dense(gold) == _dense(found):
        return True
    return _same(_only(_parse(gold, True)), _only(_parse(found, False)))


def _only(node: _Node) -> _Node:
    """Return the item of a set of one; within other sets, a set of one is not its item."""
    if isinstance(node, _Collection) and node.kind == "set" and len(node.items) == 1:
        return node.items[0]
    return node


def plain_verdict(reference: str, answer: str) -> bool | None:
    """Return whether two plain numbers, units aside, are equal; none where either is anything else."""
    values = []
    for text in (reference, answer):
        if len(text) > 60:
            return None
        text = tidy(text)
        if re.search(r"[,;:=<>_()\[\]]|\\(?!frac|times|cdot|\$)|or|and", text):
            return None
        values.append(text)
    gold, found = _quantity(values[0], True), _quantity(values[1], False)
    if gold.number is None or found.number is None:
        return None
    return _quantities_equal(gold, found)


def is_unreadable(answer: str) -> bool:
    """Return whether an answer is neither a number, nor words, nor an expression."""
    from surefoot.reasoning.answers.symbolic import is_readable

    text = tidy(answer)
    if not text:
        return True
    node = _parse(text, False)
    if not isinstance(node, _Leaf):
        return False
    return node.quantity.number is None and not is_readable(node.quantity.text)


def _dense(text: str) -> str:
    return re.sub(r"(?<![a-zA-Z\d]) +| +(?![a-zA-Z\d])|(?<=[a-zA-Z]) +(?=\d)|(?<=\d) +(?=[a-zA-Z])", "", text)


def _same(gold: _Node, found: _Node) -> bool:
    """Return whether what was taken apart is equal."""
    if isinstance(gold, _Relation):
        return _same_relation(gold, found)
    if isinstance(found, _Relation):
        interval = _interval(found) if isinstance(gold, _Collection) else None
        if interval is not None:
            return _same(gold, interval)
        value = _solved(found)
        return value is not None and _same(gold, value)
    if isinstance(gold, _Collection) or isinstance(found, _Collection):
        return _same_collection(gold, found)
    if isinstance(gold, _Matrix) or isinstance(found, _Matrix):
        return _same_matrix(gold, found)
    if isinstance(gold, _Based) or isinstance(found, _Based):
        return _same_based(gold, found)
    if isinstance(gold, _Ratio) or isinstance(found, _Ratio):
        return _same_ratio(gold, found)
    if isinstance(gold, _Words) or isinstance(found, _Words):
        return _same_words(gold, found)
    return _same_leaf(gold, found)


def _same_leaf(gold: _Leaf, found: _Leaf) -> bool:
    from surefoot.reasoning.answers.symbolic import expressions_equal

    a, b = gold.quantity, found.quantity
    if a.number is not None and b.number is not None:
        return _quantities_equal(a, b)
    if a.unit is not None and b.unit is not None and a.unit != b.unit:
        return False
    if a.percent != b.percent and not (a.number or b.number):
        return False
    if _dense(a.text) == _dense(b.text) != "":
        return True
    if expressions_equal(a.text, b.text, a.number, b.number):
        return True
    return b.text != found.text and not a.has_unit and expressions_equal(a.text, found.text, a.number, None)


def _quantities_equal(gold: Quantity, found: Quantity) -> bool:
    """Return whether numbers with units are equal: units where both have one; percent is 1/100 or a unit."""
    a, b = gold.number, found.number
    if a is None or b is None:
        return False
    if gold.unit is not None and found.unit is not None and gold.unit != found.unit:
        if gold.unit.kind != found.unit.kind:
            return False
        return a.value * gold.unit.factor == b.value * found.unit.factor
    if gold.percent == found.percent:
        return numbers_equal(a, b)
    if gold.unit is not None or found.unit is not None:  # 60% is not 60 degrees
        return False
    share, plain = (a, b) if gold.percent else (b, a)
    hundredth = share._replace(value=share.value / 100, decimals=None if share.decimals is None else share.decimals + 2)
    return numbers_equal(hundredth, plain) or (abs(share.value) >= 1 and numbers_equal(share, plain))


def _same_words(gold: _Node, found: _Node) -> bool:
    if isinstance(gold, _Words) and isinstance(found, _Words):
        if gold.choice and found.choice:
            return gold.choice == found.choice
        if gold.choice or found.choice:
            return False
        return gold.text == found.text != ""
    for words, other in ((gold, found), (found, gold)):
        if isinstance(words, _Words) and isinstance(other, _Leaf):
            spelled = _spelled_number(words.text)
            if spelled is not None and other.quantity.number is not None:
                return other.quantity.number.value == spelled
            if words.choice:
                return words.choice == other.text
            return words.text.replace(" ", "") == _dense(other.text).lower() != ""
    return False


def _spelled_number(text: str) -> int | None:
    """Return the number that words spell: twenty one, three hundred and five."""
    total, part, before = 0, 0, 10**9
    words = [w for w in text.split() if w != "and"]
    for word in words:
        if word in _MULTIPLES and part:
            scale = _MULTIPLES[word]
            part, before = part * scale, scale
            if scale > 100:
                total, part = total + part, 0
        elif word in _NUMBER_WORDS and (before >= 100 or (before >= 20 and _NUMBER_WORDS[word] < 10)):
            part, before = part + _NUMBER_WORDS[word], _NUMBER_WORDS[word]
        else:
            return None
    return total + part if words else None


def _same_based(gold: _Node, found: _Node) -> bool:
    if isinstance(gold, _Based) and isinstance(found, _Based):
        return gold == found
    if isinstance(gold, _Based) and isinstance(found, _Leaf):
        return gold.digits == found.text.replace(" ", "").upper().lstrip("0")
    if isinstance(found, _Based) and found.base == "10" and isinstance(gold, _Leaf):
        return gold.text == found.digits
    return False


def _same_ratio(gold: _Node, found: _Node) -> bool:
    if isinstance(gold, _Ratio) and isinstance(found, _Ratio):
        if gold.rest and found.rest and gold.rest != found.rest:
            return False
        first, second = ([Fraction(p) for p in r.parts] for r in (gold, found))
        if first == second:
            return True
        if _is_clock(gold) or _is_clock(found) or len(first) != len(second):
            return False
        return all(a * second[0] == b * first[0] for a, b in zip(first, second, strict=True)) and all(first + second)
    ratio, other = (gold, found) if isinstance(gold, _Ratio) else (found, gold)
    if not isinstance(ratio, _Ratio) or not isinstance(other, _Leaf) or len(ratio.parts) != 2 or _is_clock(ratio):
        return False
    a, b = (Fraction(p) for p in ratio.parts)
    number = other.quantity.number
    return number is not None and number.decimals is None and number.value * b == a


def _is_clock(ratio: _Ratio) -> bool:
    """Return whether a ratio reads as a time of day."""
    parts = ratio.parts
    return bool(ratio.rest) or (len(parts[0]) <= 2 and all(re.fullmatch(r"[0-5]\d", p) for p in parts[1:]))


def _same_matrix(gold: _Node, found: _Node) -> bool:
    if isinstance(gold, _Matrix) and isinstance(found, _Matrix):
        return (
            gold.determinant == found.determinant
            and [len(r) for r in gold.rows] == [len(r) for r in found.rows]
            and all(_same(a, b) for r, s in zip(gold.rows, found.rows, strict=True) for a, b in zip(r, s, strict=True))
        )
    return False


def _same_collection(gold: _Node, found: _Node) -> bool:
    gold, found = _whole(gold), _whole(found)
    if isinstance(gold, _Collection) and isinstance(found, _Matrix):
        return False
    if isinstance(gold, _Matrix) and isinstance(found, _Collection):
        column = all(len(r) == 1 for r in gold.rows) and not gold.determinant and len(gold.rows) > 1
        return column and found.kind == "()" and _in_order([r[0] for r in gold.rows], found.items)
    if not isinstance(gold, _Collection) or not isinstance(found, _Collection):
        return False
    names = {_dense(i.sides[0]) for i in gold.items if isinstance(i, _Relation)}
    if len(names) == len(gold.items) > 1 and not any(isinstance(i, _Relation) for i in found.items):
        return found.kind in ("list", "()") and _in_order(gold.items, found.items)  # x=1, y=2
    if gold.kind == "union" or found.kind == "union":
        return gold.kind == found.kind and _in_any_order(gold.items, found.items)
    if {gold.kind, found.kind} <= {"list", "set"}:
        return _in_any_order(gold.items, found.items)
    if gold.kind == found.kind or {gold.kind, found.kind} == {"list", "()"}:
        return _in_order(gold.items, found.items)
    return {gold.kind, found.kind} == {"list", "[]"} and len(gold.items) > 2 and _in_order(gold.items, found.items)


def _whole(node: _Node) -> _Node:
    return node._replace(kind="list") if isinstance(node, _Collection) and node.kind == "signs" else node


def _in_order(gold: Sequence[_Node], found: Sequence[_Node]) -> bool:
    return len(gold) == len(found) and all(_same(a, b) for a, b in zip(gold, found, strict=True))


def _in_any_order(gold: Sequence[_Node], found: Sequence[_Node]) -> bool:
    if len(gold) != len(found):
        return False
    if len(gold) > _MAX_UNORDERED:
        return _in_order(gold, found)
    left = list(found)
    for item in gold:
        match = next((i for i, other in enumerate(left) if _same(item, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def _solved(relation: _Relation) -> _Node | None:
    """Return the value that an answer's equations end in, none where they do not hold or name nothing."""
    if set(relation.operators) - {"=", r"\approx"}:
        return None
    *before, last = relation.sides
    if not last or not all(before):
        return None
    value = _parse(last, False)
    named = _enclosed(before[0])
    if named and (names := _split(named[1], {","})[0]) != sorted(names):
        return None  # (y, x) = (1, 2)
    if not _is_name(before[0]):
        before.insert(0, "")
    for side in before[1:]:
        if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)):
            if not _same(_parse(side, False), value):
                return None
        elif before[0] == "":
            return None
    return value


def _interval(relation: _Relation) -> _Collection | None:
    r"""Return the interval of ``a < x \le b``, ``x < b`` and the like."""
    flip = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
    sides, operators = list(relation.sides), list(relation.operators)
    if set(operators) - set(flip):
        return None
    if len(sides) == 2:
        if not _is_name(sides[0]):
            sides, operators = sides[::-1], [flip[operators[0]]]
        if not _is_name(sides[0]) or _is_name(sides[1]):
            return None
        low, high = ("-\\infty", sides[1]) if operators[0] in ("<", r"\le") else (sides[1], "\\infty")
        closed = operators[0] in (r"\le", r"\ge")
        brackets = ("(", "]" if closed else ")") if low == "-\\infty" else ("[" if closed else "(", ")")
    elif len(sides) == 3 and _is_name(sides[1]):
        if operators[0] in (">", r"\ge"):
            sides, operators = sides[::-1], [flip[o] for o in operators[::-1]]
        if set(operators) - {"<", r"\le"}:
            return None
        low, high = sides[0], sides[2]
        brackets = "[" if operators[0] == r"\le" else "(", "]" if operators[1] == r"\le" else ")"
    else:
        return None
    return _Collection(brackets[0] + brackets[1], (_parse(low, True), _parse(high, True)))


def _same_relation(gold: _Relation, found: _Node) -> bool:
    from surefoot.reasoning.answers.symbolic import proportional

    if not isinstance(found, _Relation):
        if set(gold.operators) == {"="} and _is_name(gold.sides[0]):
            return _same(_parse(gold.sides[-1], True), found)
        interval = _interval(gold) if isinstance(found, _Collection) else None
        return interval is not None and _same(interval, found)
    if gold.operators == found.operators and [_dense(s) for s in gold.sides] == [_dense(s) for s in found.sides]:
        return True
    equal = {"="}
    if set(gold.operators) == set(found.operators) == equal:
        if _is_name(gold.sides[0]) and _dense(gold.sides[0]) == _dense(found.sides[0]):
            return _same(_parse(gold.sides[-1], True), _parse(found.sides[-1], False))
        if len(gold.sides) == len(found.sides) == 2:
            return proportional(gold.sides[:2], found.sides[:2]) != 0
        return False
    first, second = _interval(gold), _interval(found)
    if first is not None and second is not None and _names(gold) == _names(found):
        return _same(first, second)
    if len(gold.sides) != 2 or len(found.sides) != 2:
        return False
    flip = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\neq": r"\neq"}
    if gold.operators[0] not in flip or found.operators[0] not in flip:
        return False
    sign = proportional(gold.sides[:2], found.sides[:2])
    wanted = found.operators[0] if sign > 0 else flip[found.operators[0]]
    return sign != 0 and gold.operators[0] == wanted


def _names(relation: _Relation) -> set[str]:
    return {_dense(s) for s in relation.sides if _is_name(s)}
