r"""Units of measurement and their products: ``km/h``, ``\mathrm{kg}\cdot\mathrm{m}``, ``\frac{\text{m}}{\text{s}}``."""

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

__all__ = ("Unit", "compound_unit")


class Unit(NamedTuple):
    """A unit of a known kind, as a multiple of the kind's own."""

    kind: str
    factor: Fraction


_PREFIXES = {"p": -12, "n": -9, "u": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12}
#: Symbols that take prefixes: dimensions with exponents, and the factor; mass in grams.
_SYMBOLS = {
    "m": "length",
    "g": "mass",
    "s": "time",
    "A": "current",
    "K": "temperature",
    "mol": "amount",
    "L": "volume",
    "N": "length mass time^-2 1000",
    "J": "length^2 mass time^-2 1000",
    "W": "length^2 mass time^-3 1000",
    "Pa": "length^-1 mass time^-2 1000",
    "Hz": "time^-1",
    "C": "current time",
    "V": "length^2 mass time^-3 current^-1 1000",
    "ohm": "length^2 mass time^-3 current^-2 1000",
    "F": "length^-2 mass^-1 time^4 current^2 1/1000",
    "T": "mass time^-2 current^-1 1000",
    "eV": "electronvolt",
    "cal": "calorie",
    "pc": "parsec",
    "M": "amount volume^-1",
}
#: Those that take none.
_OTHERS = {
    "min": "time 60",
    "h": "time 3600",
    "hr": "time 3600",
    "day": "time 86400",
    "yr": "year",
    "in": "length 127/5000",
    "ft": "length 381/1250",
    "yd": "length 1143/1250",
    "mi": "length 201168/125",
    "lb": "mass 45359237/100000",
    "atm": "atmosphere",
    "bar": "length^-1 mass time^-2 100000000",
    "erg": "length^2 mass time^-2 1/10000",
    "dyn": "length mass time^-2 1/100",
    "AU": "astronomical",
    "ly": "lightyear",
    "rad": "radian",
    "sr": "steradian",
    "Msun": "solar mass",
    "angstrom": "length 1/10000000000",
}
_NAMES = (
    (re.compile(r"M_ ?\{? ?\\(?:odot|sun|bigodot) ?\}?"), "Msun"),
    (re.compile(r"\\Omega|\u03a9|\u2126"), "ohm"),
    (re.compile(r"\\(?:AA|r ?A)(?![a-zA-Z])|\\mathring ?\{A\}|\u00c5|\u212b"), "angstrom"),
    (re.compile(r"\\mu ?|\u00b5|\u03bc"), "u"),
)
_FACTOR = re.compile(r"([a-zA-Z]+)(?: ?\^ ?\{? ?(-?\d) ?\}?)?")


def _symbol(text: str) -> tuple[Counter[str], Fraction] | None:
    """Return the dimensions and the factor of one symbol."""
    power = 0
    row = _OTHERS.get(text) or _SYMBOLS.get(text)
    if row is None and text[1:] in _SYMBOLS and text[0] in _PREFIXES:
        row, power = _SYMBOLS[text[1:]], _PREFIXES[text[0]]
    if row is None:
        return None
    found: Counter[str] = Counter()
    factor = Fraction(10) ** power
    for word in row.split():
        name, _, exponent = word.partition("^")
        if name[0].isdigit():
            factor *= Fraction(name)
        else:
            found[name] += int(exponent or 1)
    return found, factor


def compound_unit(text: str) -> Unit | None:
    """Return the unit that symbols multiply to; none where one of them is not known.

    Args:
        text: A tidy text after a number.
    """
    for pattern, name in _NAMES:
        text = pattern.sub(name, text)
    text = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"\1 / ( \2 )", text)
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])|[*\u00b7]", " ", text).replace("^-", "^ -")
    dimensions: Counter[str] = Counter()
    factor = Fraction(1)
    sign, position = 1, 0
    for m in _FACTOR.finditer(text):
        between = text[position : m.start()].replace(" ", "")
        if between not in ("", "/", "/(", "("):
            return None
        if "/" in between:
            sign = -1
        elif sign < 0 and "(" not in text:  # m/s kg is kg m/s
            sign = 1
        found = _symbol(m[1])
        if found is None:
            return None
        exponent = sign * int(m[2] or 1)
        for name, n in found[0].items():
            dimensions[name] += n * exponent
        factor *= found[1] ** exponent
        position = m.end()
    if position == 0 or text[position:].strip(" )"):
        return None
    kind = " ".join(name if n == 1 else f"{name}^{n}" for name, n in sorted(dimensions.items()) if n)
    return Unit(kind, factor)
