# ruff: noqa: RUF001 -- signs that look alike are what this file is about
r"""One way of writing for what models write in many: unicode, LaTeX's variants, delimiters, separators of thousands.

Everything here is linear in the text, or bounded by its length, and evaluates nothing: it may run in the training
process.
"""

import re
import unicodedata

__all__ = ("tidy",)

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
