# ruff: noqa: RUF001 -- signs that look alike are what this file is about
r"""One way of writing for what models write in many: unicode, LaTeX's variants, separators, units; and exact numbers.

Everything here is linear in the text, or bounded by its length, and evaluates nothing: it may run in the training
process.
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from surefoot.reasoning.answers.units import Unit, compound_unit

__all__ = ("Quantity", "numbers_equal", "plain_number", "quantity", "tidy")

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = {
    "\u2212": "-",
    "\ufe63": "-",
    "\uff0d": "-",
    "\u2010": "-",
    "\u2011": "-",
    "×": r"\times ",
    "✕": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "π": r"\pi ",
    "𝜋": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\neq ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "√": r"\sqrt ",
    "∛": r"\sqrt[3]",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "′": "'",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "″": "''",
    "∉": r"\notin ",
    "∣": "|",
    "α": r"\alpha ",
    "β": r"\beta ",
    "γ": r"\gamma ",
    "θ": r"\theta ",
    "λ": r"\lambda ",
    "μ": r"\mu ",
    "ω": r"\omega ",
    "φ": r"\phi ",
    "ρ": r"\rho ",
    "σ": r"\sigma ",
    "τ": r"\tau ",
    "Δ": r"\Delta ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "£": r"\pounds ",
    "€": r"\euro ",
}
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\0]")
#: A dash is a minus sign where no operand stands before it; between operands it may be a range.
_DASH = re.compile(r"(?:^|(?<=[\s(\[{=,;:+*/^<>$]))[\u2012-\u2015](?=\s?[\d.\\a-zA-Z(])")

_WRAPPERS = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathstrut|phantom\{\})(?![a-zA-Z])"
    r"|\\(?:left|right)(?=[.])\."
    r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it)(?![a-zA-Z])|\\(?:underline|textcolor ?\{ ?\w+"
    r" ?\}|color ?\{ ?\w+ ?\})(?=\s*\{)"
    r"|\\color ?\{ ?\w+ ?\}"
)
_FONT = re.compile(
    r"\\(?:mathrm|mathit|mathbf|mathsf|mathtt|textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|operatorname\*?)"
    r"(?=\s*\{)"
)
_SPACES = re.compile(r"(\\\\)|\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|(?<!~)~(?!~)|\s+")
_RELATIONS = (
    (re.compile(r"\\(?:leqslant|leq|le)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:geqslant|geq|ge)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq|ne)(?![a-zA-Z])|\\not\s*=|!="), r"\\neq "),
    (re.compile(r"\\not\s*\\in(?![a-zA-Z])"), r"\\notin "),
    (re.compile(r"\\not\s*(?:[<>]|\\[a-zA-Z]+)"), r"\\neq "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\(?:approx|simeq|thickapprox)(?![a-zA-Z])"), r"\\approx "),
)
_SMALL = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\(?:varnothing)(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|\\degree(?![a-zA-Z])"), r"^\\circ "),
    (
        re.compile(r"\\%|(?<=[\d}]) ?(?:\\text ?\{ ?)?(?:percent|per cent|pct)(?![a-z])(?: ?\})?"),
        "%",
    ),
    (re.compile(r"\\text\s*\{\s*\}"), ""),
    (re.compile(r"(?<=\d) ?\\text ?\{ ?[eE] ?\} ?\{? ?([+-]?\d{1,4}) ?\}?(?!\d)"), r"e\1"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s+(?=[\d{\[(a-zA-Z\\])"), r"\\sqrt "),
    (re.compile(r"\\sqrt ?(\d+|[a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile(r"\*\*(?=[\s\d(+-])"), "^"),
)
#: Groups of three digits, separated by a comma, a thin space or a space.
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\\!\s?|\{,\}|\\,)\d{3})+(?!\d)")
_BARE_THOUSANDS = re.compile(r"(?<![\d.,\w^_{])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!\d|,\d|\.\d*,\d)")
_DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("**", "**"),
    ("*", "*"),
    ("_", "_"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
)
_NEGATIVE = re.compile(r"^(?:negative|minus) (?=[\d.$\\])", re.IGNORECASE)


def tidy(text: str) -> str:
    r"""Return an answer in one way of writing: ASCII and LaTeX, no delimiters, no fonts, no separators of thousands.

    Dollar signs before a number stay, as ``\$``: they are a unit.
    """
    text = _unicode(text)
    text = re.sub(r"\\(?:text|mathord|mathrm|mathpunct) ?\{,\}", "{,}", text)
    text = _THOUSANDS.sub(lambda m: re.sub(r"\D", "", m.group()), text.strip())
    text = text.replace("{,}", ",").replace(r"\!", "").replace(r"\$", "\1")
    text = _undelimited(text)
    text = re.sub(r"\$\s*(?=-?[\d.])", "\1", text) if text.count("$") == 1 else text
    text = text.replace("$", " ").replace("\1", r"\$")
    text = _WRAPPERS.sub("", text)
    text = _FONT.sub(r"\\text", text)
    for pattern, replacement in (*_RELATIONS, *_SMALL):
        text = pattern.sub(replacement, text)
    text = re.sub("  +", " ", _SPACES.sub(lambda m: m[1] or " ", text)).strip()
    text = re.sub(r"^([+-]?\d+) and a half(?![a-z])", r"\1.5", text)
    if text[:1] not in ("(", "[") and not text.startswith(r"\{"):
        text = _BARE_THOUSANDS.sub(lambda m: re.sub(r"[ ,]", "", m.group()), text)
    elif ", " in text:  # in (1,000, 2,000) the separators show; in (1,200) they do not
        text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]\d)", lambda m: m.group().replace(",", ""), text)
    text = re.sub(r"(?: ?\\\\)+$", "", text.strip()).rstrip(".;,:?").strip()
    text = _NEGATIVE.sub("-", text)
    text = re.sub(r"^(\d+)(?:st|nd|rd|th)$", r"\1", text)
    return re.sub(r"\\text\s*\{([^{}]*?)[.;,:?]+\s*\}$", r"\\text{\1}", text)


def _unicode(text: str) -> str:
    text = _DASH.sub("-", _INVISIBLE.sub("", text))
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = re.sub("[¼½¾⅐-⅞]", _vulgar, text)
    text = _SYMBOL.sub(lambda m: _SYMBOLS[m.group()], text)
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _vulgar(match: re.Match[str]) -> str:
    above, below = unicodedata.normalize("NFKC", match.group()).split("\u2044")
    return rf"\frac{{{above}}}{{{below}}}"


def _undelimited(text: str) -> str:
    """Return the text without delimiters of formulas, bold type and boxes around the whole of it."""
    for _ in range(8):
        before, text = text, text.strip().rstrip(".;,:?").strip()
        for left, right in _DELIMITERS:
            n = len(left)
            inner = text[n : len(text) - len(right)]
            if len(text) > 2 * n and text.startswith(left) and text.endswith(right) and left not in inner:
                text = inner.strip()
                break
        box = re.match(r"\\f?box(?:ed)?\s*\{", text)
        if box and text.endswith("}") and _closing(text, box.end() - 1) == len(text) - 1:
            text = text[box.end() : -1].strip()
        if text == before:
            break
    return text


def _closing(text: str, start: int) -> int:
    """Return where the brace opened at ``start`` closes, -1 if never."""
    depth = 0
    for m in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(m.group(), 0)
        if depth == 0:
            return m.start()
    return -1


class Number(NamedTuple):
    """An exact value, and how many digits after the point were written; none for whole numbers and fractions."""

    value: Fraction
    decimals: int | None = None
    digits: int = 0  # significant ones


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


class Quantity(NamedTuple):
    """A value with what is written around it."""

    text: str  # without unit
    number: Number | None
    percent: bool
    unit: Unit | None  # none without one, or for words such as apples
    has_unit: bool


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
    text = text.strip()
    percent = text.endswith("%")
    if percent:
        text = text[:-1].strip()
    number = plain_number(text)
    if number is not None and factor != 1:
        number = Number(number.value * factor)
    return Quantity(text, number, percent, unit, has_unit)


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


#: A decimal stands for what it is rounded from if it has so many digits, and so many of them after the point.
_ROUNDED_DIGITS = 6
#: Relative difference that double precision leaves.
_NOISE = Fraction(1, 10**12)


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
