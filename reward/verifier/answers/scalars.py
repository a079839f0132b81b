"""Reads one number or expression: its sign ±, currency, unit, percent or degree sign."""

from fractions import Fraction

from reward.verifier.answers.cutting import is_op, merged_thousands
from reward.verifier.answers.grammar import parse
from reward.verifier.answers.shapes import Collection, Infinity, Opaque, Scalar, Shape
from reward.verifier.answers.tokens import Token, Unreadable
from reward.verifier.answers.units import UNITS, Unit, unit_of

MAX_SIGNS = 3
DOLLARS = Unit(UNITS["$"][0] + "^1", UNITS["$"][1], frozenset())


def read_scalars(tokens: list[Token], spelling: str) -> Shape:
    """One scalar, or the several that ± stands for."""
    signs = [index for index, token in enumerate(tokens) if is_op(token, "±", "∓")]
    try:
        if not signs:
            return read_scalar(merged_thousands(tokens), spelling)
        if len(signs) > MAX_SIGNS:
            return Opaque(spelling)
        found = []
        for upper in ("+", "-"):
            variant = list(tokens)
            for index in signs:
                lower = {"+": "-", "-": "+"}[upper]
                variant[index] = Token("op", upper if tokens[index].value == "±" else lower, tokens[index].spaced)
            found.append(read_scalar(variant, spelling))
        return Collection(tuple(found)) if len(signs) == 1 else Opaque(spelling)
    except Unreadable:
        return Opaque(spelling)


def read_scalar(tokens: list[Token], spelling: str) -> Shape:
    if spelling.lstrip("+-") in ("∞", "infinity", "inf"):
        return Infinity(-1 if spelling.startswith("-") else 1)
    edges = {0, 1, len(tokens) - 1}
    currency = [index for index in edges if index < len(tokens) and is_op(tokens[index], "$")]
    if len(currency) == 1:
        tokens = [token for index, token in enumerate(tokens) if index != currency[0]]
    if len(tokens) > 1 and all(token.kind == "num" for token in tokens):
        tokens = spaced_thousands(tokens)
    tokens, unit, factor = without_unit(tokens)
    if currency and unit is None:
        unit = DOLLARS
    mark = None
    if len(tokens) > 1 and is_op(tokens[-1], "%"):
        mark, tokens = "%", tokens[:-1]
    tree = parse(tokens)
    sign = tree[:1] if tree[0] == "neg" else ()
    if (tree[1] if sign else tree)[0] == "degrees":  # of the whole expression, not of an angle inside a sine
        mark, tree = "°", (*sign, tree[1][1]) if sign else tree[1]
    if factor != 1:
        tree = ("mul", tree, ("num", Fraction(factor)))
    return Scalar(tree, unit, mark)


def spaced_thousands(tokens: list[Token]) -> list[Token]:
    """``1 234 567`` as one number; other neighbouring numbers stay apart."""
    grouped = all(len(t.value) == 3 and t.spaced and t.value.isdigit() for t in tokens[1:])
    if not grouped or not (len(tokens[0].value) <= 3 and tokens[0].value.isdigit()):
        return tokens
    return [Token("num", "".join(token.value for token in tokens))]


def without_unit(tokens: list[Token]) -> tuple[list[Token], Unit | None, int]:
    """Split a number from its trailing words: ``24 cm^2`` → 24, unit, 1; ``2 million dollars`` → 2, unit, 10^6."""
    for index, token in enumerate(tokens):
        if token.kind == "text" and index > 0:
            words, power = unit_words(tokens[index:])
            found = unit_of(words, power) if words is not None else None
            if found is None:
                raise Unreadable(f"{token.value!r} inside a number")
            unit, factor = found
            if unit.kind is None and unit.words <= {"degree", "deg"}:
                return [*tokens[:index], *([Token("op", "°")] if unit.words else [])], None, factor
            if unit.kind is None and unit.words <= {"percent", "per", "cent"}:
                return [*tokens[:index], Token("op", "%")], None, factor
            return tokens[:index], unit, factor
    return tokens, None, 1


def unit_words(tokens: list[Token]) -> tuple[str | None, int]:
    """The words of a unit and its power (``cm`` ``^`` ``2``); None if there is more than words."""
    words, power = [], 1
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token.kind == "text" or (token.kind == "var" and token.value in UNITS):
            words.append(token.value)
        elif is_op(token, "/"):
            words.append("per")
        elif is_op(token, "^") and rest:
            digits = [t.value for t in rest if t.kind == "num"]
            if len(digits) != 1 or not digits[0].isdigit() or len(rest) not in (1, 3):
                return None, 1
            return " ".join(words), int(digits[0])
        elif not is_op(token, ".", "(", ")", "-"):
            return None, 1
    return " ".join(words), power
