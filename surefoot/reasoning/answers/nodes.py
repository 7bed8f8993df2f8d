"""The parts that an answer is parsed into."""

from typing import NamedTuple

from surefoot.reasoning.answers.quantities import Quantity, quantity

__all__ = ("Based", "Collection", "Leaf", "Matrix", "Node", "Ratio", "Relation", "Words")


class Collection(NamedTuple):
    """Items between brackets: ``list`` (none), ``set``, or the two brackets of a tuple or interval."""

    kind: str
    items: tuple["Node", ...]


class Relation(NamedTuple):
    """Sides, and the operators between them."""

    sides: tuple[str, ...]
    operators: tuple[str, ...]


class Matrix(NamedTuple):
    """Rows of entries, or a determinant."""

    rows: tuple[tuple["Node", ...], ...]
    determinant: bool


class Words(NamedTuple):
    """Words without punctuation and case, or the letter of a choice."""

    text: str
    choice: str | None  # letter of a multiple-choice answer


class Based(NamedTuple):
    """Digits of a number in a named base."""

    digits: str
    base: str


class Ratio(NamedTuple):
    """Numbers between colons: a ratio, or a time of day."""

    parts: tuple[str, ...]
    rest: str  # am or pm


class Leaf(NamedTuple):
    """A number, a quantity or an expression."""

    text: str
    is_reference: bool

    @property
    def quantity(self) -> Quantity:
        """The text as a number with its unit, where it is one."""
        return quantity(self.text, self.is_reference)


Node = Collection | Relation | Matrix | Words | Based | Ratio | Leaf
