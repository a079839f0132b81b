"""The kinds of answers: a number with a unit, a list, an interval, a ratio, a time, words, …"""

from dataclasses import dataclass

from reward.verifier.answers.grammar import Tree
from reward.verifier.answers.units import Unit


@dataclass(frozen=True)
class Scalar:
    tree: Tree
    unit: Unit | None = None  # None: a bare number
    mark: str | None = None  # "%" or "°"


@dataclass(frozen=True)
class Infinity:
    sign: int


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Clock:
    minutes: int  # since midnight


@dataclass(frozen=True)
class Based:
    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    parts: tuple
    like_time: bool  # 2:30 may also be a time, and then 1:15 is not the same


@dataclass(frozen=True)
class Sequence:
    """An ordered answer with its brackets: a point, a vector or an interval."""

    opening: str
    items: tuple
    closing: str


@dataclass(frozen=True)
class Collection:
    """An unordered list or set of answers. ``joiner`` is "and", "or" or ","."""

    items: tuple
    joiner: str = ","


@dataclass(frozen=True)
class Union:
    parts: tuple


@dataclass(frozen=True)
class Intersection:
    parts: tuple


@dataclass(frozen=True)
class Difference:
    """All of ``base`` but ``removed``."""

    base: "Shape"
    removed: "Shape"


@dataclass(frozen=True)
class Reals:
    pass


@dataclass(frozen=True)
class Matrix:
    determinant: bool
    rows: tuple


@dataclass(frozen=True)
class Chain:
    """Members joined by relations: ``x = 3``, ``1 ≤ x < 2``, ``2^{10} = 1024``."""

    members: tuple
    relations: tuple
    names: tuple  # per member: its spelling if it is only a name, else None


@dataclass(frozen=True)
class Opaque:
    """Text of no known kind, which can be compared by spelling only."""

    text: str


Shape = (
    Scalar
    | Infinity
    | Words
    | Clock
    | Based
    | Ratio
    | Sequence
    | Collection
    | Union
    | Intersection
    | Difference
    | Reals
    | Matrix
    | Chain
    | Opaque
)
