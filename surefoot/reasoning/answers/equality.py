r"""Whether an answer equals a reference: both are parsed, and their parts compared.

What a bare text cannot decide (is 5 in ``5 apples`` a 5?) is a policy, and stands in docs/reasoning.md.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from surefoot.reasoning.answers.brackets import dense, enclosed, split_outside
from surefoot.reasoning.answers.nodes import Based, Collection, Leaf, Matrix, Node, Ratio, Relation, Words
from surefoot.reasoning.answers.notation import tidy
from surefoot.reasoning.answers.parsing import interval_of, is_name, names_of, parse
from surefoot.reasoning.answers.quantities import quantities_equal, quantity
from surefoot.reasoning.answers.words import spelled_number

__all__ = ("answers_equal", "is_unreadable", "plain_verdict")

#: Longer collections are compared in the order they stand in.
_MAX_UNORDERED = 30


def answers_equal(reference: str, answer: str) -> bool:
    """Return whether an answer equals the reference.

    Args:
        reference: As it stands in the data.
        answer: As extracted.
    """
    gold, found = tidy(reference), tidy(answer)
    if not found or not gold:
        return reference.strip() == answer.strip() != ""
    if dense(gold) == dense(found):
        return True
    return _same(_only(parse(gold, True)), _only(parse(found, False)))


def _only(node: Node) -> Node:
    """Return the item of a set of one; within other sets, a set of one is not its item."""
    if isinstance(node, Collection) and node.kind == "set" and len(node.items) == 1:
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
    gold, found = quantity(values[0], True), quantity(values[1], False)
    if gold.number is None or found.number is None:
        return None
    return quantities_equal(gold, found)


def is_unreadable(answer: str) -> bool:
    """Return whether an answer is neither a number, nor words, nor an expression."""
    from surefoot.reasoning.answers.symbolic import is_readable

    text = tidy(answer)
    if not text:
        return True
    node = parse(text, False)
    if not isinstance(node, Leaf):
        return False
    return node.quantity.number is None and not is_readable(node.quantity.text)


def _same(gold: Node, found: Node) -> bool:
    """Return whether parsed answers are equal."""
    if isinstance(gold, Relation):
        return _same_relation(gold, found)
    if isinstance(found, Relation):
        interval = interval_of(found) if isinstance(gold, Collection) else None
        if interval is not None:
            return _same(gold, interval)
        value = _solved(found)
        return value is not None and _same(gold, value)
    if isinstance(gold, Collection) or isinstance(found, Collection):
        return _same_collection(gold, found)
    if isinstance(gold, Matrix) or isinstance(found, Matrix):
        return _same_matrix(gold, found)
    if isinstance(gold, Based) or isinstance(found, Based):
        return _same_based(gold, found)
    if isinstance(gold, Ratio) or isinstance(found, Ratio):
        return _same_ratio(gold, found)
    if isinstance(gold, Words) or isinstance(found, Words):
        return _same_words(gold, found)
    return _same_leaf(gold, found)


def _same_leaf(gold: Leaf, found: Leaf) -> bool:
    from surefoot.reasoning.answers.symbolic import expressions_equal

    a, b = gold.quantity, found.quantity
    if a.number is not None and b.number is not None:
        return quantities_equal(a, b)
    if a.unit is not None and b.unit is not None and a.unit != b.unit:
        return False
    if a.percent != b.percent and not (a.number or b.number):
        return False
    if dense(a.text) == dense(b.text) != "":
        return True
    if expressions_equal(a.text, b.text, a.number, b.number):
        return True
    return b.text != found.text and not a.has_unit and expressions_equal(a.text, found.text, a.number, None)


def _same_words(gold: Node, found: Node) -> bool:
    if isinstance(gold, Words) and isinstance(found, Words):
        if gold.choice and found.choice:
            return gold.choice == found.choice
        if gold.choice or found.choice:
            return False
        return gold.text == found.text != ""
    for words, other in ((gold, found), (found, gold)):
        if isinstance(words, Words) and isinstance(other, Leaf):
            spelled = spelled_number(words.text)
            if spelled is not None and other.quantity.number is not None:
                return other.quantity.number.value == spelled
            if words.choice:
                return words.choice == other.text
            return words.text.replace(" ", "") == dense(other.text).lower() != ""
    return False


def _same_based(gold: Node, found: Node) -> bool:
    if isinstance(gold, Based) and isinstance(found, Based):
        return gold == found
    if isinstance(gold, Based) and isinstance(found, Leaf):
        return gold.digits == found.text.replace(" ", "").upper().lstrip("0")
    if isinstance(found, Based) and found.base == "10" and isinstance(gold, Leaf):
        return gold.text == found.digits
    return False


def _same_ratio(gold: Node, found: Node) -> bool:
    if isinstance(gold, Ratio) and isinstance(found, Ratio):
        if gold.rest and found.rest and gold.rest != found.rest:
            return False
        first, second = ([Fraction(p) for p in r.parts] for r in (gold, found))
        if first == second:
            return True
        if _is_clock(gold) or _is_clock(found) or len(first) != len(second):
            return False
        return all(a * second[0] == b * first[0] for a, b in zip(first, second, strict=True)) and all(first + second)
    ratio, other = (gold, found) if isinstance(gold, Ratio) else (found, gold)
    if not isinstance(ratio, Ratio) or not isinstance(other, Leaf) or len(ratio.parts) != 2 or _is_clock(ratio):
        return False
    a, b = (Fraction(p) for p in ratio.parts)
    number = other.quantity.number
    return number is not None and number.decimals is None and number.value * b == a


def _is_clock(ratio: Ratio) -> bool:
    """Return whether a ratio reads as a time of day."""
    parts = ratio.parts
    return bool(ratio.rest) or (len(parts[0]) <= 2 and all(re.fullmatch(r"[0-5]\d", p) for p in parts[1:]))


def _same_matrix(gold: Node, found: Node) -> bool:
    if isinstance(gold, Matrix) and isinstance(found, Matrix):
        return (
            gold.determinant == found.determinant
            and [len(r) for r in gold.rows] == [len(r) for r in found.rows]
            and all(_same(a, b) for r, s in zip(gold.rows, found.rows, strict=True) for a, b in zip(r, s, strict=True))
        )
    return False


def _same_collection(gold: Node, found: Node) -> bool:
    gold, found = _whole(gold), _whole(found)
    if isinstance(gold, Collection) and isinstance(found, Matrix):
        return False
    if isinstance(gold, Matrix) and isinstance(found, Collection):
        column = all(len(r) == 1 for r in gold.rows) and not gold.determinant and len(gold.rows) > 1
        return column and found.kind == "()" and _in_order([r[0] for r in gold.rows], found.items)
    if not isinstance(gold, Collection) or not isinstance(found, Collection):
        return False
    names = {dense(i.sides[0]) for i in gold.items if isinstance(i, Relation)}
    if len(names) == len(gold.items) > 1 and not any(isinstance(i, Relation) for i in found.items):
        return found.kind in ("list", "()") and _in_order(gold.items, found.items)  # x=1, y=2
    if gold.kind == "union" or found.kind == "union":
        return gold.kind == found.kind and _in_any_order(gold.items, found.items)
    if {gold.kind, found.kind} <= {"list", "set"}:
        return _in_any_order(gold.items, found.items)
    if gold.kind == found.kind or {gold.kind, found.kind} == {"list", "()"}:
        return _in_order(gold.items, found.items)
    return {gold.kind, found.kind} == {"list", "[]"} and len(gold.items) > 2 and _in_order(gold.items, found.items)


def _whole(node: Node) -> Node:
    return node._replace(kind="list") if isinstance(node, Collection) and node.kind == "signs" else node


def _in_order(gold: Sequence[Node], found: Sequence[Node]) -> bool:
    return len(gold) == len(found) and all(_same(a, b) for a, b in zip(gold, found, strict=True))


def _in_any_order(gold: Sequence[Node], found: Sequence[Node]) -> bool:
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


def _solved(relation: Relation) -> Node | None:
    """Return the value that an answer's equations end in, none where they do not hold or name nothing."""
    if set(relation.operators) - {"=", r"\approx"}:
        return None
    *before, last = relation.sides
    if not last or not all(before):
        return None
    value = parse(last, False)
    named = enclosed(before[0])
    if named and (names := split_outside(named[1], {","})[0]) != sorted(names):
        return None  # (y, x) = (1, 2)
    if not is_name(before[0]):
        before.insert(0, "")
    for side in before[1:]:
        if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)):
            if not _same(parse(side, False), value):
                return None
        elif before[0] == "":
            return None
    return value


def _same_relation(gold: Relation, found: Node) -> bool:
    from surefoot.reasoning.answers.symbolic import proportional

    if not isinstance(found, Relation):
        if set(gold.operators) == {"="} and is_name(gold.sides[0]):
            return _same(parse(gold.sides[-1], True), found)
        interval = interval_of(gold) if isinstance(found, Collection) else None
        return interval is not None and _same(interval, found)
    if gold.operators == found.operators and [dense(s) for s in gold.sides] == [dense(s) for s in found.sides]:
        return True
    equal = {"="}
    if set(gold.operators) == set(found.operators) == equal:
        if is_name(gold.sides[0]) and dense(gold.sides[0]) == dense(found.sides[0]):
            return _same(parse(gold.sides[-1], True), parse(found.sides[-1], False))
        if len(gold.sides) == len(found.sides) == 2:
            return proportional(gold.sides[:2], found.sides[:2]) != 0
        return False
    first, second = interval_of(gold), interval_of(found)
    if first is not None and second is not None and names_of(gold) == names_of(found):
        return _same(first, second)
    if len(gold.sides) != 2 or len(found.sides) != 2:
        return False
    flip = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\neq": r"\neq"}
    if gold.operators[0] not in flip or found.operators[0] not in flip:
        return False
    sign = proportional(gold.sides[:2], found.sides[:2])
    wanted = found.operators[0] if sign > 0 else flip[found.operators[0]]
    return sign != 0 and gold.operators[0] == wanted
