"""Finds the kind of an answer. To add a kind: write a class in `shapes`, a reader here, and a line in `compare`."""

import re

from reward.verifier.answers.cutting import enclosed, is_op, merged_thousands, split
from reward.verifier.answers.scalars import read_scalars
from reward.verifier.answers.shapes import (
    Based,
    Chain,
    Clock,
    Collection,
    Difference,
    Intersection,
    Matrix,
    Opaque,
    Ratio,
    Reals,
    Scalar,
    Sequence,
    Shape,
    Union,
    Words,
)
from reward.verifier.answers.tokens import Token, spelled
from reward.verifier.answers.units import MULTIPLIERS
from reward.verifier.answers.vocabulary import words

MAX_ITEMS = 200
RELATIONS = ("=", "<", ">", "≤", "≥", "≠", "≈", "∈")
CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?\s*([ap])\.?\s*m\.?", re.IGNORECASE)
BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?([0-9]+|two|three|four|five|six|seven|eight|nine|ten)\}?")
NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
BASE_WORDS = {name: base for base, name in enumerate(NUMERALS, start=2)}
LEAD_IN = words("the final answer is equals value total result approximately about exactly are =")
NAMING = {("unknown", "angle"), ("unknown", "triangle"), ("unknown", "arc"), ("name", "overline"), ("unknown", "vec")}
APPLIED = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?(?:'+|\^\{?-?\w+\}?)?\(.+\)")  # f(2), f^{-1}(x), P(A∪B)
ALL_BUT = re.compile(r"all real(?:s| numbers)(?: x)?,? (?:except|but|other than)(?: for)?", re.IGNORECASE)
ALL_REALS = {"all real numbers", "all reals", "all real x", "mathbbR", "real numbers", "R"}


def read(tokens: list[Token]) -> Shape:
    """The shape of some tokens; `Opaque` if no reader recognises them."""
    tokens = stripped(tokens)
    spelling = spelled(tokens)
    if not tokens:
        return Opaque("")
    for reader in (
        read_words,
        read_exception,
        read_notation,
        read_list,
        read_relation,
        read_difference,
        read_union,
        read_brackets,
        read_matrix,
    ):
        shape = reader(tokens, spelling)
        if shape is not None:
            return shape
    return read_scalars(tokens, spelling)


def stripped(tokens: list[Token]) -> list[Token]:
    """The tokens without outer braces, a lead-in ("the answer is") and trailing punctuation."""
    while tokens:
        if enclosed(tokens) and is_op(tokens[0], "{"):
            tokens = tokens[1:-1]
        elif is_op(tokens[-1], ".", ",", ";", "\\\\") or is_op(tokens[-1], " "):
            tokens = tokens[:-1]
        elif (
            len(tokens) > 1
            and tokens[0].kind == "text"
            and set(re.findall(r"[\w=]+", tokens[0].value.lower())) <= LEAD_IN
        ) or (len(tokens) > 1 and is_op(tokens[0], "≈", ":", "=")):
            tokens = tokens[1:]
        else:
            break
    return tokens


def read_words(tokens: list[Token], spelling: str) -> Shape | None:
    if spelling in ALL_REALS:
        return Reals()
    if spelling == "∅":
        return Collection(())
    if any(token.kind == "text" for token in tokens) and all(
        token.kind == "text" or is_op(token, "-", "'", ".", "!") for token in tokens
    ):
        if tokens[0].value.lower() in MULTIPLIERS:
            return None
        parts, found = split(tokens, ("and", "or"))
        if found and all(parts):
            return None
        return Words(plain_words(spelling))
    return None


def plain_words(text: str) -> str:
    """The text in lower case, without punctuation or a leading article; parts joined by "and" are sorted."""
    pieces = re.split(r",|\band\b", text.lower())
    plain = (" ".join(re.findall(r"[^\W_]+", piece)) for piece in pieces)
    return " & ".join(sorted(re.sub(r"^(?:an?|the) ", "", piece) for piece in plain))


def read_notation(tokens: list[Token], spelling: str) -> Shape | None:
    """Times of the day, ratios, numbers with a base."""
    clock = CLOCK.fullmatch(spelling)
    if clock and 1 <= int(clock[1]) <= 12 and int(clock[2] or 0) < 60:
        afternoon = clock[3].lower() == "p"
        return Clock((int(clock[1]) % 12 + 12 * afternoon) * 60 + int(clock[2] or 0))
    based = BASED.fullmatch(spelling)
    if based:
        base = BASE_WORDS.get(based[2]) or int(based[2])
        digits = based[1].upper()
        known = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: min(base, 36)]
        if (digits[0].isdigit() or (base > 10 and based[1].isupper())) and (set(digits) <= set(known)):
            return Based(digits.lstrip("0") or "0", base)
    parts, found = split(tokens, (":", "to"))
    if found and not is_op(tokens[0], "⦃"):
        shapes = [read(part) for part in parts]
        if all(isinstance(shape, Scalar) for shape in shapes):
            return Ratio(tuple(shapes), bool(re.fullmatch(r"[0-9]{1,2}:[0-5][0-9]", spelling)))
    return None


def read_list(tokens: list[Token], spelling: str) -> Shape | None:
    tokens = merged_thousands(tokens)
    parts, found = split(tokens, (",", ";", "and", "or"))
    if not found:
        return None
    parts = [part for part in parts if part]
    if len(parts) > MAX_ITEMS or not parts:
        return Opaque(spelling)
    joiner = next((word for word in found if word in ("and", "or")), ",")
    return collected(tuple(read(part) for part in parts), joiner)


def collected(items: tuple, joiner: str) -> Shape:
    """A list of answers; ``x = 1, x = 2`` becomes the list of the values of x."""
    flat: list[Shape] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Collection) else [item])
    first = items[0]
    if isinstance(first, Chain) and first.relations == ("=",) and first.names[0]:
        others = [item for item in items[1:] if isinstance(item, Chain)]
        if all(item.relations == ("=",) and item.names[0] == first.names[0] for item in others):
            flat = [item.members[1] if isinstance(item, Chain) else item for item in items]
            flat = [part for item in flat for part in (item.items if isinstance(item, Collection) else [item])]
    return Collection(tuple(flat), joiner) if len(flat) > 1 else flat[0]


def read_relation(tokens: list[Token], spelling: str) -> Shape | None:
    parts, found = split(tokens, RELATIONS)
    if not found:
        return None
    if not all(parts) or len(parts) > MAX_ITEMS:
        return Opaque(spelling)
    if found == ["∈"]:
        return read(parts[1])
    named = (
        enclosed(parts[0])
        and is_op(parts[0][0], "(")
        and all(t.kind == "var" or is_op(t, ",", "(", ")") for t in parts[0])
    )
    if found == ["="] and named and len(parts[0]) > 3:  # (x, y) = (1, 2)
        return read(parts[1])
    members = tuple(read(part) for part in parts)
    chain = Chain(
        members, tuple(found), tuple(name_of(part, member) for part, member in zip(parts, members, strict=True))
    )
    if found == ["="] and chain.names[0] and isinstance(members[1], Collection):  # x = ±2
        return members[1]
    return chain


def name_of(tokens: list[Token], member: Shape) -> str | None:
    """The spelling of a member that only names a quantity: a symbol, ``f(x)``, ``P(A)``, ``\\angle ABC``, words."""
    tokens = stripped(tokens)
    spelling = spelled(tokens)
    if isinstance(member, Words) or any(token[:2] in NAMING for token in tokens):
        return spelling
    if isinstance(member, Scalar) and member.tree[0] == "var" and member.tree[1] not in ("e", "i", "pi"):
        return spelling
    return spelling if APPLIED.fullmatch(spelling) else None


def read_exception(tokens: list[Token], spelling: str) -> Shape | None:
    """Reads "all real numbers except 1 and 2"."""
    if tokens[0].kind != "text" or not ALL_BUT.fullmatch(tokens[0].value.strip()):
        return None
    removed = read(tokens[1:])
    removed = removed if isinstance(removed, Collection) else Collection((removed,))
    return Difference(Reals(), removed) if all(isinstance(item, Scalar) for item in removed.items) else Opaque(spelling)


def read_difference(tokens: list[Token], spelling: str) -> Shape | None:
    """Reads ``\\mathbb{R} \\setminus \\{0\\}``, also with a minus sign, and intersections of sets."""
    for sign in ("∖", "-", "∩"):
        parts, found = split(tokens, (sign,))
        if not found or not all(parts) or len(parts) > MAX_ITEMS:
            continue
        if sign == "-" and not (is_op(parts[-1][0], "⦃") and enclosed(parts[-1])):
            continue
        shapes = [read(part) for part in parts]
        if not all(isinstance(shape, Reals | Sequence | Union | Collection | Difference) for shape in shapes):
            return None
        if sign == "∩":
            return Intersection(tuple(shapes))
        return Difference(*shapes) if len(shapes) == 2 else None
    return None


def read_union(tokens: list[Token], spelling: str) -> Shape | None:
    parts, found = split(tokens, ("∪",))
    if not found:
        parts, found = split([Token("op", "∪") if t[:2] == ("var", "U") else t for t in tokens], ("∪",))
        if not all(part and is_op(part[0], "(", "[", "⦃") for part in parts):
            return None
    if not found:
        return None
    if not all(parts) or len(parts) > MAX_ITEMS:
        return Opaque(spelling)
    shapes = [read(part) for part in parts]
    lists = [shape for shape in shapes if isinstance(shape, Collection)]
    if len(lists) == len(shapes):
        return Collection(tuple(item for shape in lists for item in shape.items))
    return Union(tuple(shapes))


def read_brackets(tokens: list[Token], spelling: str) -> Shape | None:
    if not enclosed(tokens) or not is_op(tokens[0], "(", "[", "⦃", "⟨") or tokens[-1].value not in ")]⦄⟩":
        return None
    opening, inside, closing = tokens[0].value, tokens[1:-1], tokens[-1].value
    if not inside:
        return Collection(()) if opening == "⦃" else Opaque(spelling)
    parts, found = split(inside, (",", ";"))
    if opening == "⦃":
        condition, bar = split(inside, ("|", ":"))
        if bar and len(condition) == 2:  # {x | x > 3}
            return read(condition[1])
        if len(parts) > MAX_ITEMS or not all(parts):
            return Opaque(spelling)
        items = tuple(read(part) for part in parts)
        return Collection(tuple(i for item in items for i in (item.items if isinstance(item, Collection) else [item])))
    if found:
        if len(parts) > MAX_ITEMS or not all(parts):
            return Opaque(spelling)
        return Sequence(opening, tuple(read(part) for part in parts), closing)
    grouping = (opening, closing) == ("(", ")") or inside[0].kind == "begin"  # [ around an array makes a matrix
    return read(inside) if grouping else Opaque(spelling)


def read_matrix(tokens: list[Token], spelling: str) -> Shape | None:
    if tokens[0].kind != "begin" or tokens[-1].kind != "end" or any(t.kind == "begin" for t in tokens[1:]):
        return None
    if not tokens[0].value.endswith(("matrix", "array")):
        return Opaque(spelling)
    rows, _ = split(tokens[1:-1], ("\\\\",))
    rows = [row for row in rows if row]
    cells = [split(row, ("&",))[0] for row in rows]
    if sum(len(row) for row in cells) > MAX_ITEMS or not all(cell for row in cells for cell in row):
        return Opaque(spelling)
    return Matrix(tokens[0].value.lower() == "vmatrix", tuple(tuple(read(cell) for cell in row) for row in cells))
