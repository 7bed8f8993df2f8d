"""Exact numbers of tidy texts, and when two of them are equal; linear in the text, and nothing is evaluated."""

import re
from fractions import Fraction
from typing import NamedTuple

__all__ = ("Number", "numbers_equal", "plain_number")

_UNSIGNED = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(rf"(?P<mantissa>[+-]*{_UNSIGNED})(?:[eE](?P<exponent>[+-]?\d{{1,4}}))?$")
_POWER = re.compile(
    rf"(?:(?P<mantissa>[+-]*{_UNSIGNED})(?:\\times|\\cdot|\*|[xX]))?(?P<sign>[+-]?)10\^"
    r"(?:\{(?P<braced>[+-]?\d{1,4})\}|\((?P<round>[+-]?\d{1,4})\)|(?P<bare>[+-]?\d{1,4}))$"
)
_QUOTIENT = re.compile(
    rf"(?P<sign>[+-]*)(?:\\frac\{{(?P<a>[+-]?{_UNSIGNED})\}}\{{(?P<b>[+-]?{_UNSIGNED})\}}"
    rf"|\(?(?P<c>[+-]?{_UNSIGNED})\)?/\(?(?P<d>[+-]?{_UNSIGNED})\)?)$"
)
_MIXED = re.compile(r"(?P<sign>[+-]?)(?P<whole>\d+)(?: ?\\frac\{(?P<a>\d+)\}\{(?P<b>\d+)\}| (?P<c>\d+)/(?P<d>\d+))$")
_REPEATING = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d*)\.(?P<fixed>\d*)(?:\\(?:overline|bar|dot) ?\{ ?(?P<repeated>\d+) ?\}|\\(?:bar|dot)"
    r" (?P<one>\d))$"
)
#: A decimal stands for what it is rounded from if it has so many digits, and so many of them after the point.
_ROUNDED_DIGITS = 6
#: Relative difference that double precision leaves.
_NOISE = Fraction(1, 10**12)


class Number(NamedTuple):
    """An exact value, and how many digits after the point were written; none for whole numbers and fractions."""

    value: Fraction
    decimals: int | None = None
    digits: int = 0  # significant ones


def plain_number(text: str) -> Number | None:
    r"""Return the exact value of a tidy number: whole, decimal, e-notation, power of ten, fraction, mixed number."""
    if len(text) > 400 or not text or text[-1:].isalpha():
        return None
    mixed = _MIXED.match(text)
    if mixed:
        above, below = int(mixed["a"] or mixed["c"]), int(mixed["b"] or mixed["d"])
        if 0 < above < below:
            value = int(mixed["whole"]) + Fraction(above, below)
            return Number(-value if mixed["sign"] == "-" else value)
    if m := _REPEATING.match(text):
        repeated = m["repeated"] or m["one"]
        value = Fraction(int(repeated), 10 ** len(repeated) - 1) + int(m["whole"] + m["fixed"] or "0")
        return Number((-1) ** (m["sign"] == "-") * value / 10 ** len(m["fixed"]))
    if re.search(r"\d \d", text):
        return None
    text = text.replace(" ", "")
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1]
    if m := _PLAIN.match(text):
        return _decimal(m["mantissa"], int(m["exponent"] or 0), m["exponent"] is not None)
    if m := _POWER.match(text):
        number = _decimal(m["mantissa"] or "1", int(m["braced"] or m["round"] or m["bare"]), True)
        return number._replace(value=-number.value) if m["sign"] == "-" else number
    if m := _QUOTIENT.match(text):
        a, b = (_decimal(m[x] or m[y], 0, False).value for x, y in (("a", "c"), ("b", "d")))
        if b:
            return Number(a / b * (-1) ** m["sign"].count("-"))
    return None


def _decimal(mantissa: str, exponent: int, scientific: bool) -> Number:
    sign = (-1) ** mantissa.count("-")
    whole, _, rest = mantissa.lstrip("+-").partition(".")
    value = sign * Fraction(int(whole + rest or "0")) * Fraction(10) ** (exponent - len(rest))
    digits = len((whole + rest).lstrip("0"))
    return Number(value, len(rest) - exponent if rest.strip("0") else None, digits)


def numbers_equal(first: Number, second: Number) -> bool:
    """Return whether numbers are equal.

    Exactly; or one is a decimal that is the other, rounded to at least six digits, all of them after the point; or they
    differ by no more than double precision does, where one is a decimal.
    """
    a, b = first.value, second.value
    if a == b:
        return True
    if first.decimals is None and second.decimals is None:
        return False
    whole = a.denominator == b.denominator == 1
    if not whole and abs(a - b) <= _NOISE * max(abs(a), abs(b)):
        return True
    return any(
        n.decimals is not None
        and min(n.decimals, n.digits) >= _ROUNDED_DIGITS
        and 2 * abs(a - b) <= Fraction(1, 10) ** n.decimals
        for n in (first, second)
    )
