r"""Equality of expressions that are no plain numbers: read by math-verify's LaTeX parser, compared by value.

Only to be called in a process that is killed at a time limit.
"""

import random
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from surefoot.reasoning.answers.numbers import Number, numbers_equal

__all__ = ("expressions_equal", "is_readable", "proportional")

#: Digits of evaluation, and the relative difference that counts as none.
_DIGITS = 40
_CLOSE = 1e-25
_FUNCTIONS = re.compile(
    r"(?<![\\a-zA-Z])(?:np\.|math\.)?"
    r"(arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi)(?![a-zA-Z])"
)
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
#: "1 2" is not 12; in \log_2 8 there is an index.
_TWO_NUMBERS = re.compile(r"(?<![_^\d.])[\d.]+ \d")
#: What the parser leaves out.
_MODULO = re.compile(r"\\p?mod(?![a-zA-Z])")
_PRIMED = re.compile(r"[a-zA-Z] ?(?:'+|\^ ?\{? ?\\prime)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?) ?\^ ?(?:\{ ?\\circ ?\}|\\circ)")
_TOO_LARGE = re.compile(r"\^\s*[{(]?\s*[+-]?\d{6,}|\^[^+\-*/,=]{0,20}\^[^+\-*/,=]{0,20}\^|\d{5,}\s*\)?\s*!|!\s*\)?\s*!")
_IMAGINARY = re.compile(r"(?<![a-zA-Z\\])i(?![a-zA-Z])|\d ?i(?![a-zA-Z]{2})")
_CAPITAL = re.compile(
    r"(?:\\(?=(?:Delta|Gamma|Theta|Omega|Phi|Sigma|Lambda|Psi|Xi)(?![a-zA-Z])))([A-Z][a-z]+)"
    r"|\\[a-zA-Z]+|\d[eE][+-]?\d+|([A-Z])"
)
_E_NOTATION = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})(?![\w.])")


def _parsed(*texts: str) -> list[object]:
    """Return sympy's expressions, None for a text that is not one; where one has an i, it is the unit in all."""
    from math_verify.grader import should_treat_as_complex

    is_complex = any(should_treat_as_complex(t) or _IMAGINARY.search(t) for t in texts)
    return [_read(t, is_complex) for t in _lower_case(texts)]


def _lower_case(texts: Sequence[str]) -> list[str]:
    """Return the texts with one unused small letter for each capital: the parser takes R and r for one variable."""
    capitals = sorted({m[1] or m[2] for t in texts for m in _CAPITAL.finditer(t) if m[1] or m[2]})
    used = {c for t in texts for c in t} | {"e", "i", "d"}
    free = [c for c in "qzwyuvhkgjpbcanmlsxrtof" if c not in used]
    if len(free) < len(capitals):
        return [""] * len(texts)
    names = dict(zip(capitals, free, strict=False))
    return [_CAPITAL.sub(lambda m: f" {names[m[1] or m[2]]}" if m[1] or m[2] else m[0], t) for t in texts]


@lru_cache(maxsize=512)
def _read(text: str, is_complex: bool) -> object:
    """Return an expression with its derivatives and unknown functions as variables."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex
    from sympy import Basic, Derivative, Symbol
    from sympy.core.function import AppliedUndef

    if _TOO_LARGE.search(text) or _TWO_NUMBERS.search(text) or _MODULO.search(text):
        return None
    text = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = _E_NOTATION.sub(r"(\1 \\cdot 10^{\2})", text)
    text = _FUNCTIONS.sub(lambda m: "\\" + _ALIASES.get(m[1], m[1]) + " ", text)
    text = _braced(text, "^").replace("^ ", "^")
    text = _braced(text, r"\sqrt ")
    config = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="none",
        equations=False,
    )
    text = normalize_latex(text, config)
    try:
        found = latex2sympy(text, is_real=not is_complex, convert_degrees=False, normalization_config=None)
    except (RecursionError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 -- the parser raises whatever it likes; none says that nothing was read
        return None
    if not isinstance(found, Basic):
        return found
    if is_complex:
        from sympy import I

        found = found.xreplace({s: I for s in found.free_symbols if str(s) == "i"})
    return found.replace(lambda e: isinstance(e, Derivative | AppliedUndef), lambda e: Symbol(str(e), real=True))


def _braced(text: str, before: str) -> str:
    """Return the text with the parentheses after an operator as braces: sqrt(x) and 2^(x)."""
    position = text.find(before + "(")
    while position >= 0:
        start, depth = position + len(before), 0
        for end in range(start, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                text = text[:start] + "{" + text[start + 1 : end] + "}" + text[end + 1 :]
                break
        position = text.find(before + "(", position + 1)
    return text


def is_readable(text: str) -> bool:
    """Return whether the text is an expression."""
    return _parsed(text)[0] is not None


def expressions_equal(first: str, second: str, a: Number | None, b: Number | None) -> bool:
    """Return whether two expressions have one value, for all values of their variables.

    Args:
        first: An expression.
        second: Another.
        a: The first's value, where it is a plain number.
        b: The second's.
    """
    from sympy import Basic, Expr

    if sorted(_PRIMED.findall(first)) != sorted(_PRIMED.findall(second)):  # f'(x) is not f(x)
        return False
    x, y = _parsed(first, second)
    if not isinstance(x, Basic) or not isinstance(y, Basic):
        return False
    if not isinstance(x, Expr) or not isinstance(y, Expr):
        return bool(x == y)
    x, y = _exact(x, a), _exact(y, b)
    if x == y:
        return True
    if not x.free_symbols and not y.free_symbols:
        return _constants_equal(x, y, a, b)
    return _difference_vanishes(x, y)


def _exact(expression: Any, number: Number | None) -> Any:
    """Return the expression with decimals as fractions."""
    from sympy import Float, Rational, UnevaluatedExpr

    if number is not None:
        return Rational(number.value.numerator, number.value.denominator)
    floats = {f: Rational(str(f)) for f in expression.atoms(Float)}
    expression = expression.xreplace(floats) if floats else expression
    return expression.replace(lambda e: isinstance(e, UnevaluatedExpr), lambda e: e.args[0])


def _constants_equal(x: Any, y: Any, a: Number | None, b: Number | None) -> bool:
    p, q = _value(x), _value(y)
    if p is None or q is None:
        return bool((x - y).simplify() == 0)
    if _close(p, q):
        return _cancels(x - y, max(abs(p), abs(q)))
    for decimal, value in ((a, q), (b, p)):
        if decimal is not None and decimal.decimals is not None and value.is_real:
            return numbers_equal(decimal, Number(Fraction(str(value))))
    return False


def _cancels(difference: Any, size: Any) -> bool:
    """Return whether such a difference of constants is zero to twice as many digits as they were compared by.

    2^{200}+1 is near 2^{200}, and another number.
    """
    difference = difference.doit()
    if difference.is_Rational:
        return bool(difference == 0)
    value = difference.evalf(_DIGITS, maxn=400)
    return bool(abs(value) <= size * 10 ** -(4 * _DIGITS))


def _value(expression: Any) -> Any:
    """Return a constant's value, none where it has no finite one."""
    value = expression.evalf(_DIGITS, maxn=200)
    if not value.is_number or not value.is_finite:
        return None
    parts = value.as_real_imag()
    return value if all(p.is_Float or p.is_Rational for p in parts) else None


def _close(p: Any, q: Any) -> bool:
    """Return whether values differ by rounding only, relative to the larger; 0 equals what is 0 to all digits."""
    size = max(abs(p), abs(q))
    return bool(abs(p - q) <= _CLOSE * size) or bool(size < 10.0 ** -(2 * _DIGITS))


def _points(symbols: Any) -> list[dict[object, object]]:
    """Return values for variables: reproducible, of both signs, no special ones."""
    from sympy import Rational

    draw = random.Random(7)
    ordered = sorted(symbols, key=str)
    signs = [1, 1, -1, 0, 0, 0]
    points = []
    for sign in signs:
        values = [(sign or draw.choice((-1, 1))) * Rational(draw.randint(10_000, 40_000), 14_983) for _ in ordered]
        points.append(dict(zip(ordered, values, strict=True)))
    return points


def _difference_vanishes(x: Any, y: Any) -> bool:
    """Return whether expressions agree wherever they have a value; if nowhere, whether sympy says so."""
    n_compared = 0
    for point in _points(x.free_symbols | y.free_symbols):
        p, q = _value(x.subs(point)), _value(y.subs(point))
        if p is None and q is None:
            continue
        if p is None or q is None or not _close(p, q):
            return False
        if n_compared < 2 and not _cancels((x - y).subs(point), max(abs(p), abs(q))):
            return False
        n_compared += 1
    if n_compared >= 2:
        return True
    from sympy import simplify

    return bool(simplify(x - y) == 0)


def proportional(first: tuple[str, str], second: tuple[str, str]) -> int:
    """Return the sign of the factor between two differences of sides, 0 where they are not proportional.

    Args:
        first: Left and right side of an equation or inequality.
        second: Those of another.
    """
    from sympy import Expr

    sides = _parsed(*first, *second)
    if not all(isinstance(s, Expr) for s in sides):
        return 0
    a, b, c, d = (_exact(s, None) for s in sides)
    x, y = a - b, c - d
    if x.free_symbols != y.free_symbols or not x.free_symbols:
        return 0
    ratios = []
    for point in _points(x.free_symbols):
        p, q = _value(x.subs(point)), _value(y.subs(point))
        if p is None and q is None:
            continue
        if p is None or q is None or p == 0 or q == 0:
            return 0
        ratios.append(p / q)
    if len(ratios) < 2 or not ratios[0].is_real or not all(_close(r, ratios[0]) for r in ratios):
        return 0
    return 1 if ratios[0] > 0 else -1
