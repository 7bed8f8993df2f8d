r"""Rules that find the final answer in a completion; every one takes time linear in the text.

``strict``       what follows the last ``####`` on its line (GSM8K's own format); markdown headings are not answers
``boxed``        the argument of the last ``\boxed{}`` whose braces balance (MATH's own format)
``last_number``  the last number of the text, or the expression that it is part of
``mixed``        the later of the last box and the last ``####``; else what follows the last "answer is"; else the last
number
"""

import re
from collections import deque
from collections.abc import Callable, Mapping

from surefoot.errors import ConfigError

__all__ = ("EXTRACTION_RULES", "MAX_ANSWER_LENGTH", "extract_answer")

#: Longer answers count as unparsable: no reference answer is near it.
MAX_ANSWER_LENGTH = 1000
#: Of a longer text only the end is read, where the answer stands.
_MAX_TEXT_LENGTH = 1_000_000
#: So much around a number is looked at for the expression that it is part of.
_MAX_EXPRESSION = 200

#: A sign counts where it cannot be an operator: the last number of ``5-3`` is 3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+\u2212\u2012-\u2015])?(?:(?:\d{1,3}(?:,\d{3})+|\d+)"
    r"(?: \d+/\d+| ?[\u00bc-\u00be\u2150-\u215e]|(?::\d+)+|(?:\.\d+|\.(?=/\d))?(?:[eE][-+]?\d{1,4}(?!\w))?(?:/\d+)?)"
    r"|[\u00bc-\u00be\u2150-\u215e])"
    r"|(?:(?<![\w.)\]}])[-+\u2212\u2012-\u2015])?\.\d+"
)
#: What before a last number makes it another value, or no value at all: signs, negations, bounds.
_QUALIFIED = re.compile(
    r"(?:[-\u2212]?[\d.,]*\d,? (?:and|or) (?:[a-zA-Z] ?= ?)?|(?:\bnegative|\bminus|\bnot|n't|\bnever|\bcannot(?:"
    r" be)?|\bat least|\bat most|\bup to|\b(?:less|more|greater|fewer|larger"
    r"|smaller) than|\bbetween \S{1,20}"
    r" and|[<>\u2260\u2264\u2265]=?|!=|\\n?(?:neq?|leq?|geq?|leqslant|geqslant|lt|gt)(?: |(?=-|\d|\$)))\s*"
    r"|(?:^|(?<=[=:(\u2248])|(?<=\bis)|(?<=\bare)|(?<=\bbe)|(?<=\bget)|(?<=\bgives)|(?<=\bequals))\s*[-\u2212\u2012-\u2015]\s*"
    r"|(?:\u00b1|\\pm|\+/-|(?<=\w)\*\*|\d\s?%|[\d.,]*\d,)\s*"
    r"|(?<![a-zA-Z])(?:\\?(?:sin|cos|tan|log(?:_\w+)?|ln|exp|sqrt)\s*\(?|[a-zA-Z]\w?\()\s*"
    r"|\b(?:mod(?:ulo)?|choose|times|over|divided by|plus|root of|half of|third of|quarter of|twice|double|triple)\s+"
    r"|(?<![\w.)\]}$])[-\u2212\u2012-\u2015](?=\\?\$))(?:\\?[$\u00a3\u20ac])?$",
    re.IGNORECASE,
)
#: What a pair, interval or set begins with.
_GROUP = re.compile(r"(?:[(\[]|\\?\{)[^()\[\]{}\n]{1,100}[,;]\s*$")
#: What after a last number makes it another value.
_MULTIPLIED = re.compile(
    r"\s*[%\u00b0]|(?:\s+|-)(?:dozen|hundred|thousand|million|billion|trillion|squared|cubed|factorial|or"
    r" (?:more|less|fewer)|and a half|out of \d+"
    r"|halves|thirds|fourths|fifths|percent|cents|mod(?:ulo)? \d+)\b",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:answer (?:is|=):?|final answer:|answer:(?=[*_ \t]*(?:[-+$(\\\u2212]|\d|[A-Za-z]["
    r" \t]*=|[\w'-]+[.*_]*\s*$|[A-J](?:[.)*_]|\s*$))))",
    re.IGNORECASE | re.MULTILINE,
)
#: What follows such a phrase: the rest of its line, and the next one.
_REST = re.compile(r"[*_ \t]*([^\n]*)(?:\n\s*([^\n]+))?")
_BOX = re.compile(r"\\(?:boxed|fbox)[ \t]*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"</?(?:answer|final_answer|result|solution|think|strong|em)>")
_MARK = re.compile(r"#{4}#*([^\n]*)")
#: What a formula stands between; contents without a line break, for ``$``.
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]{1,500})\$\$|(?<![\\$])\$(?P<b>(?:[^$\n\\]|\\.){1,500})\$|\\\((?P<c>.{1,500}?)\\\)|\\\[(?P<d>.{1,500}?)\\\]",
    re.DOTALL,
)
_PROSE = re.compile(
    r"(?<![\\a-zA-Z])(?!sqrt|sin|cos|tan|log|exp|frac|text|mod)[a-zA-Z]{3,}"
    r" +[a-zA-Z]+|(?<![\\a-zA-Z{])[a-z]{4,}(?![a-zA-Z}(])"
)
_ANSWER_LIKE = re.compile(
    r"[*_\s]*(?!\d{1,2}[.)]\s+[A-Za-z*])(?:(?:the )?(?:final )?answer(?:"
    r" is|:)|[-+\u2212~(\[{$.\\|\d\u221a]|[A-Za-z](?:_\w+)?\s*=|[A-E]\s*[.)]?\s*$)",
    re.IGNORECASE,
)
_ANSWER_HEADING = re.compile(r"[*_\s]*(?:the )?(?:final )?answer[*_:.\s]*$", re.IGNORECASE)
#: After a number, these make it part of something else.
_GOES_ON = re.compile(
    r"\s*(?:[+*/^=<>!\u00d7\u00b7\u221a\u03c0\u2264\u2265\u00b1\\({\[_:%\u00b0\u00b2\u00b3]|-\s*[\d\w\\(]|,\s*[-\d(\\]|[a-zA-Z](?![a-zA-Z])"
    r"|(?:pi|sqrt|root|sin|cos|tan|log|ln|exp)(?![a-z])|(?:or|and|to|plus|minus|times|over|divided|squared|cubed|factorial|percent|hundred|thousand|million|billion|trillion"
    r"|dozen|mod|remainder|not|out of)\b)"
)
#: One side of an expression that has more to it than a number.
_RUN = re.compile(r"[\0\w.^*/+\-()\u221a\u03c0\u2212\u00b2\u00b3\u00b9\u2070-\u2079\u00d7\u00b7\\{}!%]+")
_OPERATOR = re.compile(
    r"(?<=\d) (?=sqrt|pi(?![a-z])|\\sqrt|\\pi|[\u221a\u03c0])|(?<=sqrt|.log) (?=\0?\d)|(?<=ln) (?=\0?\d)|"
    r"(?<=[\w)}\u03c0\u00b2\u00b3]) ([-+*/\u2212\u00d7\u00b7]) (?=\0?[\w(\\\u221a])"
)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return a pattern's last match."""
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def _strict(text: str) -> tuple[int, str] | None:
    found = _marked(text)
    return None if found is None else found[:2]


def _marked(text: str) -> tuple[int, str, bool] | None:
    """Return where the answer's ``####`` is, what follows, and whether that looks like an answer.

    The last one that does; else the last of all, which is a heading if more text comes after its line.
    """
    last: tuple[int, str, bool] | None = None
    best: tuple[int, str, bool] | None = None
    for m in _MARK.finditer(text):
        line, position = m[1], m.start()
        if _ANSWER_HEADING.match(line):
            following = re.compile(r"\s*([^\n]+)").match(text, m.end())
            if following and not following[1].startswith("#") and len(following[1]) < _MAX_EXPRESSION:
                best = position, _stated(following[1]), True
            continue
        last = position, _cleaned(line), False
        if _ANSWER_LIKE.match(line):
            phrase = _PHRASE.search(line)
            best = position, _stated(line[phrase.end() :]) if phrase else _cleaned(line), True
    if best is not None and best[1]:
        return best
    return last


def _cleaned(line: str) -> str:
    line = line.strip().strip("*_").strip()
    return line.rstrip(".").strip()


def _boxed(text: str) -> tuple[int, str] | None:
    """Match braces in one pass over the whole text: every open box is closed by its own brace or never."""
    boxes = {m.end() - 1: m.start() for m in _BOX.finditer(text)}
    if not boxes:
        return None
    found: tuple[int, str] | None = None
    open_braces: list[int] = []
    for m in _BRACE.finditer(text, min(boxes)):
        if m.group() == "{":
            open_braces.append(m.start())
        elif m.group() == "}" and open_braces:
            start = open_braces.pop()
            if start in boxes:  # of nested boxes the outermost closes last
                found = boxes[start], text[start + 1 : m.start()].strip()
    return found


def _last_number(text: str) -> tuple[int, str] | None:
    last = _last(_NUMBER, text)
    if last is None:
        return None
    formula = _formula_around(text, last.start())
    if formula is not None:
        return last.start(), formula
    return last.start(), _expression_around(text, last)


def _last_formula(text: str) -> tuple[int, str] | None:
    """Return what the last formula near the text's end holds."""
    last = _last(_FORMULA, text[-4 * _MAX_EXPRESSION :])
    return None if last is None else (last.start(), next(g for g in last.groups() if g is not None).strip())


def _formula_around(text: str, position: int) -> str | None:
    """Return what stands between a formula's delimiters, where the position is inside of it and it is no prose."""
    begin = max(0, position - 4 * _MAX_EXPRESSION)
    line = max(text.rfind("\n", begin, position) + 1, begin)
    for start in (line, begin):
        for m in _FORMULA.finditer(text, start, min(len(text), position + 4 * _MAX_EXPRESSION)):
            content = next(g for g in m.groups() if g is not None)
            if m.start() < position < m.end() and not _PROSE.search(content):
                return content.strip()
    return None


def _expression_around(text: str, number: re.Match[str]) -> str:
    """Return the run of symbols around a number, if it is more than a number with a unit; else the number."""
    begin = max(0, number.start() - _MAX_EXPRESSION)
    before, after = (
        text[begin : number.start()],
        text[number.start() : number.end() + _MAX_EXPRESSION],
    )
    before = re.sub(r"(?<=\d) x $", " * ", before)
    window = _OPERATOR.sub(r"\1", f"{before}\0{after}")  # the mark is where the number begins
    for run in _RUN.finditer(window):
        if "\0" in run.group():
            found = run.group().replace("\0", "").strip("*_").rstrip(".").rpartition("=")[2]
            return found if _is_expression(found) else _qualified(text, number)
    return _qualified(text, number)


def _qualified(text: str, number: re.Match[str]) -> str:
    """Return a number with the sign, negation, bound or multiple that is written beside it."""
    group = _GROUP.search(text[max(0, number.start() - _MAX_EXPRESSION) : number.start()])
    closing = re.compile(r"\s*(?:[)\]]|\\?\})").match(text, number.end())
    if group and closing and not _PROSE.search(group.group()):
        return f"{group.group()}{number.group()}{closing.group()}"
    before = _QUALIFIED.search(text[max(0, number.start() - 40) : number.start()])
    after = _MULTIPLIED.match(text, number.end())
    parts = (m.group() if m else "" for m in (before, number, after))
    return "".join(parts).strip()


def _is_expression(run: str) -> bool:
    if run.count("(") != run.count(")") or run.count("{") != run.count("}"):
        return False
    if re.search(r"[a-zA-Z]{3,}", re.sub(r"\\[a-zA-Z]+|sqrt|sin|cos|tan|log|exp", "", run)):
        return False
    return bool(
        re.search(
            r"[\u221a\u03c0\u00b2\u00b3\u00b9\u2070-\u2079^!]|\\[a-z]|sqrt|ln|log|exp|pi(?![a-z])|\w_\w|\d[+*/\u00d7]\d|\d[a-z](?![a-z])[-+*/^]|[-+*/(][a-z](?![a-z])|(?<![a-zA-Z])[a-z][-+*/^]|\d\*?[xyznkabcti](?![a-z])",
            run,
        )
    )


def _stated(sentence: str) -> str:
    """Return the answer that a sentence states after "the answer is"."""
    sentence = sentence.strip().strip("*_").strip()
    formulas = [
        m for m in _FORMULA.finditer(sentence) if not _PROSE.search(next(g for g in m.groups() if g is not None))
    ]
    if formulas and not sentence[: formulas[0].start()].strip(" *_:~\u2248"):
        contents = [next(g for g in m.groups() if g is not None) for m in formulas]
        kept = [contents[0]]
        for before, after, content in zip(formulas, formulas[1:], contents[1:], strict=False):
            if not re.fullmatch(r"\s*(?:,|,?\s*(?:and|or))\s*", sentence[before.end() : after.start()]):
                if sentence[before.end() : after.start()].strip():
                    break
                kept[-1] += f" {content}"
                continue
            kept.append(content)
        rest = sentence[formulas[0].end() :]
        unit = re.match(r"\s*(?:\\?%|[a-z]+(?: [a-z]+){0,3})(?=[.,;]?\s*$)", rest)
        if len(kept) == 1 and unit and not re.match(r"\s*(?:or|and|not|if)\b", rest):
            return f"{contents[0].strip()} {unit.group().strip()}"
        return ", ".join(content.strip() for content in kept)
    number = re.compile(rf"[$\\~\u2248 ]*({_NUMBER.pattern})").match(sentence)
    if number and not _GOES_ON.match(sentence, number.end()):
        words = re.compile(r"\s+[A-Za-z]+(?: [A-Za-z]+){0,3}(?=[.,;]?\s*$)").match(sentence, number.end())
        return sentence[: words.end()].strip() if words else number[1]
    sentence = re.split(
        r"(?<=[^.])(?<!\b[MDS][rst])(?<!\bMrs)[.;!?](?=\s+[A-Z]|\s*$)|\s+(?:because|since|as|where|which|so)\s",
        sentence,
        maxsplit=1,
    )[0]
    return sentence.strip().rstrip(".*_").strip()


def _phrase(text: str) -> tuple[int, str] | None:
    last = _last(_PHRASE, text)
    if last is None:
        return None
    rest = _REST.match(text, last.end())
    sentence = (rest[1].strip(" \t*_:") or rest[2] or "") if rest else ""
    answer = _stated(sentence)
    is_prose = len(answer.split()) > 6 and _PROSE.search(answer)
    if is_prose and not re.search(r"[\\^]", answer):  # a sentence: its number is the answer
        number = _last_number(answer)
        return None if number is None else (last.start(), number[1])
    return (last.start(), answer) if answer else None


def _mixed(text: str) -> tuple[int, str] | None:
    box, mark = _boxed(text), _marked(text)
    if box is not None:
        return mark[:2] if mark is not None and mark[2] and mark[0] > box[0] else box
    if mark is not None and mark[1] and (mark[2] or not text[mark[0] :].partition("\n")[2].strip()):
        return mark[:2]
    return _phrase(text) or _last_number(text) or _last_formula(text)


EXTRACTION_RULES: Mapping[str, Callable[[str], tuple[int, str] | None]] = {
    "mixed": _mixed,
    "strict": _strict,
    "boxed": _boxed,
    "last_number": _last_number,
}


def extract_answer(text: str, rule: str = "mixed") -> str | None:
    """Return the final answer as written, none if the rule finds none, an empty one, or one that is too long.

    Args:
        text: A completion.
        rule: One of `EXTRACTION_RULES`.

    Raises:
        ConfigError: If there is no such rule.
    """
    if rule not in EXTRACTION_RULES:
        raise ConfigError(f"no extraction rule {rule!r}; there are {', '.join(EXTRACTION_RULES)}.")
    found = EXTRACTION_RULES[rule](_TAG.sub(" ", text[-_MAX_TEXT_LENGTH:]))
    if found is None or not found[1] or len(found[1]) > MAX_ANSWER_LENGTH:
        return None
    return found[1].replace("\0", "")
