"""Numbers with the units that are written around them; linear in the text, and nothing is evaluated."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from surefoot.reasoning.answers.numbers import Number, numbers_equal, plain_number
from surefoot.reasoning.answers.units import Unit, compound_unit

__all__ = ("Quantity", "quantities_equal", "quantity")


def _units() -> dict[str, Unit]:
    table = {
        "length": "mm millimeter millimetre:1/1000 cm centimeter centimetre:1/100 m meter metre:1 km kilometer"
        " kilometre:1000"
        " in inch inche:127/5000 ft foot feet:381/1250 yd yard:1143/1250 mi mile:201168/125",
        "mass": "mg milligram:1/1000 g gram:1 kg kilogram kilo:1000 lb pound:45359237/100000 oz ounce:45359237/1600000",
        "time": "s sec second:1 min minute:60 h hr hour:3600 day:86400 week:604800",
        "volume": "ml milliliter millilitre:1/1000 l L liter litre:1",
        "money": r"cent \cent:1/100 dollar buck usd \$:1",
        "euro": r"euro \euro:1",
        "angle": "degree deg:1",
        "radian": "rad radian:1",
        "length time^-1": "mph:1397/3125 kmh kmph kph:5/18",
        "celsius": "C Celsius:1",
        "fahrenheit": "F Fahrenheit:1",
    }
    units = {}
    for kind, members in table.items():
        for group in re.findall(r"[^:]+:[\d/]+", members):
            names, factor = group.split(":")
            for name in names.split():
                units[name] = Unit(kind, Fraction(factor))
    return units


_UNITS = _units()
_CURRENCIES = {
    r"\$": _UNITS["dollar"],
    "USD": _UNITS["dollar"],
    r"\euro": _UNITS["euro"],
    r"\pounds": Unit("pound", Fraction(1)),
    "₹": Unit("rupee", Fraction(1)),
    "¥": Unit("yen", Fraction(1)),
}
_MULTIPLIERS = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
#: Words that make what follows a number more than a unit.
_NO_UNITS = frozenset(_MULTIPLIERS) | frozenset(
    re.findall(
        r"\S+",
        "plus minus times over divided multiplied squared cubed factorial or and to not no than mod modulo remainder"
        " choose root"
        " power point half halves third thirds fourth fourths fifth fifths quarter tenth tenths hundredth hundredths"
        " thousandths"
        " percent if unless but except negative is isn't are was equals equal between wrong incorrect false base sqrt"
        " sin cos tan"
        " log ln pi through until versus vs nor without never mistake maybe instead pm am by"
        " incorrect invalid impossible rejected excluded fails fail failed double triple twice approx approximately"
        " about ish some more less fewer least most",
    )
)
_TEXT_UNIT = re.compile(r"\s*(?:/\s*)?\\text\s*\{\s*([^{}\d]*?)\s*\}\s*(?:\^\s*\{?\s*(-?\d)\s*\}?)?$")
_DEGREES = re.compile(r"\s*\^\s*\\circ\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF]))?$")
#: A number and, in text or after a space, symbols of units.
_MEASURED = re.compile(
    r"(?P<number>[^a-zA-Z]*?(?:\\(?:times|cdot) ?10 ?\^ ?(?:\{ ?[+-]?\d+ ?\}|[+-]?\d+)|[\d)]|\\frac ?\{\d+\}"
    r" ?\{\d+\}|\d[eE][+-]?\d+))"
    r"(?P<unit> ?(?:(?P<text>\\text ?\{|\\frac ?\{ ?\\text|\\mu ?\\text|\\Omega)|(?<= )[a-zA-Z\u00c5\u03a9\\]).*)$"
)
_OF_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_WORDS = re.compile(
    r"(?<=[\d})%!])(\s*-?)\(?([A-Za-z][A-Za-z '/.-]*)\)?\s*(?:\^\s*\{?(\d)\}?)?$|(?<=\\pi)(\s+)([A-Za-z][A-Za-z ]*)$"
)
_MONEY = re.compile(r"^(-?)\s*(?:(?:US ?|USD ?)?(\\\$|\\pounds|\\euro|₹|¥)|(USD) ?(?=\d))\s*(-?)")
_MONEY_AFTER = re.compile(r"(?<=\d) ?(\\\$|\\pounds|\\euro|₹|¥)$")
_PRIMES = re.compile(r"(?<=[\d}]) ?('{1,2}|\")$")


class Quantity(NamedTuple):
    """A value with what is written around it."""

    text: str  # without unit
    number: Number | None
    percent: bool
    unit: Unit | None  # none without one, or for words such as apples
    has_unit: bool


@lru_cache(maxsize=1024)
def quantity(text: str, is_reference: bool = False) -> Quantity:
    """Return a tidy answer as a value and its unit.

    Args:
        text: A tidy answer.
        is_reference: A reference's bare letters are variables; an answer's may be units, after a space.
    """
    unit: Unit | None = None
    has_unit = False
    if m := _MONEY.match(text):
        if m[1] and m[4]:
            return Quantity(text, None, False, None, False)
        text, has_unit = m[1] + m[4] + text[m.end() :], True
        unit = _CURRENCIES[m[2] or m[3]]
    elif m := _MONEY_AFTER.search(text):
        text, unit, has_unit = text[: m.start()], _CURRENCIES[m[1]], True
    elif m := _PRIMES.search(text):
        kind = "feet or minutes" if m[1] == "'" else "inches or seconds"
        text, unit, has_unit = text[: m.start()], Unit(kind, Fraction(1)), True
    if (m := _MEASURED.match(text)) and (m["text"] or not is_reference):
        measured = compound_unit(m["unit"])
        if measured is not None and (number := plain_number(m["number"].strip())) is not None:
            return Quantity(m["number"].strip(), number, False, measured, True)
    text, unit, named, factor = _without_units(text, unit, is_reference)
    has_unit |= named
    text = text.strip()
    percent = text.endswith("%")
    if percent:
        text = text[:-1].strip()
    number = plain_number(text)
    if number is not None and factor != 1:
        number = Number(number.value * factor)
    return Quantity(text, number, percent, unit, has_unit)


def _without_units(text: str, money: Unit | None, is_reference: bool) -> tuple[str, Unit | None, bool, int]:
    """Return a text without the units at its end, their unit, whether there were any, and what they multiply it by."""
    unit, has_unit = money, False
    factor = 1
    for _ in range(3):
        if _OF_ANGLE.search(text):
            break
        if m := _DEGREES.search(text):
            name = m[1] or m[2]
            text, unit, has_unit = text[: m.start()], _UNITS[name or "degree"], True
        elif (m := _TEXT_UNIT.search(text)) and text[: m.start()].strip():
            words = m[1].split()
            if not _are_unit(words, True):
                break
            text, has_unit = text[: m.start()], True
            unit, factor = _named(words, m[2], unit), factor * _multiple(words)
        elif m := _WORDS.search(text):
            words = (m[2] or m[5]).strip(" .'").split()
            spaced = bool((m[1] or m[4] or "").strip() == "" and (m[1] or m[4]))
            if not _are_unit(words, spaced and not is_reference):
                break
            text, has_unit = text[: m.start()], True
            unit, factor = _named(words, m[3], unit), factor * _multiple(words)
        else:
            break
    return text, unit, has_unit, factor


def _are_unit(words: list[str], letters: bool) -> bool:
    """Return whether words after a number name what is counted or measured."""
    if not words or len(words) > 8:
        return False
    rest = words[1:] if words[0].lower() in _MULTIPLIERS else words
    for word in rest:
        word = word.strip("()[]")
        if not word:
            continue
        known = word in _UNITS or word.rstrip("s.") in _UNITS or word.lower() in ("sq", "cu", "a", "an")
        if word.lower().strip(".'") in _NO_UNITS or word.lower().endswith("n't"):
            return False
        if len(word) == 1 and not (letters and known):
            return False
        if not known and (len(word) < 3 or not set(word.lower()) & set("aeiou")) and len(words) == 1:
            return False
    return True


def _multiple(words: list[str]) -> int:
    return _MULTIPLIERS.get(words[0].lower(), 1)


def _named(words: list[str], power: str | None, money: Unit | None) -> Unit | None:
    """Return the unit that words name; none for things that are counted."""
    exponent = int(power or 1)
    kept = []
    for word in words:
        if word.lower() in ("square", "sq", "sq."):
            exponent = 2
        elif word.lower() in ("cubic", "cu", "cu."):
            exponent = 3
        elif word.lower() not in _MULTIPLIERS:
            kept.append(word)
    if len(kept) != 1:
        return money
    name = kept[0].rstrip(".")
    unit = next((_UNITS[n] for n in (name, name.lower(), name.lower().rstrip("s")) if n in _UNITS), None)
    if unit is None:
        return money
    return Unit(f"{unit.kind}^{exponent}" if exponent != 1 else unit.kind, unit.factor**exponent)


def quantities_equal(gold: Quantity, found: Quantity) -> bool:
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
