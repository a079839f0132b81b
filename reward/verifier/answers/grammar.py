r"""Parses LaTeX arithmetic into a tree, as a reader understands ``\frac12``, ``2\frac13``, ``\sin^2 x`` or ``x^10``.

A tree is a tuple: ("num", Fraction) · ("var", name) · ("add", *terms) · ("mul", *factors) · ("neg", x) ·
("inverse", x) · ("pow", base, exponent) · ("factorial", x) · ("degrees", x) · (function name, *arguments).
"""

from fractions import Fraction

from reward.verifier.answers.tokens import FUNCTIONS, Token, Unreadable

MAX_DEPTH = 40
MAX_DIGITS = 400
Tree = tuple

CLOSING = {"(": ")", "[": "]", "{": "}", "⌊": "⌋", "⌈": "⌉"}
BRACKET_FUNCTION = {"⌊": "floor", "⌈": "ceil"}
MANY_ARGUMENTS = {"gcd", "lcm", "max", "min"}
END = Token("end of answer", "")


def number(digits: str) -> Fraction:
    """The exact value of decimal digits, with an exponent or without."""
    mantissa, _, exponent = digits.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 4:
        raise Unreadable("a number too long to compare")
    if "/" in mantissa:  # a repeating decimal
        return Fraction(mantissa)
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


class Parser:
    """A recursive-descent parser; every method consumes the tokens of what it returns."""

    def __init__(self, tokens: list[Token]):
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.bars = 0

    def tree(self) -> Tree:
        """The tree of all tokens.

        Raises:
            Unreadable: they are not arithmetic, or nested too deep.
        """
        result = self.stacked()
        if self.next is not END:
            raise Unreadable(f"{self.next.value!r} after a complete expression")
        return result

    @property
    def next(self) -> Token:
        return self.tokens[self.position] if self.position < len(self.tokens) else END

    def ahead(self, offset: int) -> Token:
        return self.tokens[self.position + offset] if self.position + offset < len(self.tokens) else END

    def take(self) -> Token:
        token = self.next
        self.position += 1
        return token

    def at(self, *values: str) -> bool:
        return self.next.kind == "op" and self.next.value in values

    def expect(self, value: str) -> None:
        if not self.at(value):
            raise Unreadable(f"got {self.next.value!r}, expected {value!r}")
        self.take()

    def stacked(self) -> Tree:
        r"""A sum, or two of them as ``a \over b`` or ``n \choose k``."""
        top = self.sum()
        if not self.at("over", "choose"):
            return top
        kind, bottom = self.take().value, self.sum()
        return ("binom", top, bottom) if kind == "choose" else ("mul", top, ("inverse", bottom))

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH}")
        terms = [self.signed()]
        while self.at("+", "-"):
            terms.append(self.signed())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed(self) -> Tree:
        negative = False
        while self.at("+", "-"):
            negative ^= self.take().value == "-"
        product = self.product()
        return ("neg", product) if negative else product

    def product(self) -> Tree:
        factors = [self.factor()]
        while True:
            if self.at("*", "/"):
                divide = self.take().value == "/"
                negative = False
                while self.at("+", "-"):
                    negative ^= self.take().value == "-"
                factor = self.factor()
                factor = ("neg", factor) if negative else factor
                factors.append(("inverse", factor) if divide else factor)
            elif self.starts_factor():
                factors.append(self.factor())
            else:
                return factors[0] if len(factors) == 1 else ("mul", *factors)

    def starts_factor(self) -> bool:
        """Whether the next token multiplies what comes before it; a bare number never does."""
        if self.next.kind in ("var", "name"):
            return True
        return self.at("(", "[", "{", "⌊", "⌈") or (self.at("|") and self.bars == 0)

    def factor(self) -> Tree:
        return self.postfix(self.mixed_number() or self.primary())

    def mixed_number(self) -> Tree | None:
        r"""A whole number followed by a proper fraction of whole numbers, ``2\frac13`` or ``2 1/3``: their sum."""
        if self.next.kind != "num" or not self.next.value.isdigit():
            return None
        start = self.position
        whole = number(self.take().value)
        if self.next == Token("name", "frac", self.next.spaced):
            self.take()
            top, bottom = self.plain_argument(), self.plain_argument()
        elif self.next.kind == "num" and self.next.spaced and self.ahead(1) == Token("op", "/", self.ahead(1).spaced):
            above, _, below = self.take(), self.take(), self.take()
            top, bottom = (t.value if t.kind == "num" and t.value.isdigit() else None for t in (above, below))
        else:
            top = bottom = None
        if top is None or bottom is None:
            self.position = start
            return None
        if not int(top) < int(bottom):
            raise Unreadable("a whole number before an improper fraction can be a sum or a product")
        return ("num", whole + Fraction(int(top), int(bottom)))

    def plain_argument(self) -> str | None:
        """A macro's argument if it is only digits, else None (the caller then resets the position)."""
        if self.next.kind == "num" and self.next.value.isdigit():
            return self.first_digit()
        if self.at("{") and self.ahead(1).kind == "num" and self.ahead(2) == Token("op", "}", self.ahead(2).spaced):
            self.take()
            digits = self.take().value
            self.take()
            return digits if digits.isdigit() else None
        return None

    def first_digit(self) -> str:
        """One digit, which is what TeX takes as an unbraced argument; the other digits stay."""
        token = self.take()
        if len(token.value) > 1:
            self.position -= 1
            self.tokens[self.position] = Token("num", token.value[1:])
        return token.value[0]

    def argument(self) -> Tree:
        """A macro's argument: a group, or one token as in ``\\frac12``."""
        if self.at("{"):
            return self.group()
        if self.next.kind == "num":
            return ("num", number(self.first_digit()))
        if self.next.kind == "name" and self.next.value in ("frac", "sqrt", "binom"):
            return self.primary()
        if self.next.kind == "var":
            return self.variable()
        raise Unreadable(f"got {self.next.value!r} as an argument")

    def group(self) -> Tree:
        opening = self.take().value
        bars, self.bars = self.bars, 0
        inner = self.stacked() if opening == "{" else self.sum()
        self.expect(CLOSING[opening])
        self.bars = bars
        return inner

    def postfix(self, base: Tree) -> Tree:
        while True:
            if self.at("^"):
                self.take()
                base = ("pow", base, self.exponent())
                if self.at("^"):
                    raise Unreadable("two exponents")
            elif self.at("!"):
                self.take()
                if self.at("!"):
                    raise Unreadable("double factorial or factorial of a factorial")
                base = ("factorial", base)
            elif self.at("°"):
                self.take()
                base = ("degrees", base)
            elif self.at("%"):
                self.take()
                base = ("mul", base, ("num", Fraction(1, 100)))
            else:
                return base

    def exponent(self) -> Tree:
        negative = False
        while self.at("+", "-"):
            negative ^= self.take().value == "-"
        if self.next.kind == "num":  # x^10: nobody means x¹·0
            power = ("num", number(self.take().value))
        elif self.at("("):
            power = self.group()
        else:
            power = self.argument()
        return ("neg", power) if negative else power

    def primary(self) -> Tree:
        token = self.next
        if token.kind == "num":
            return ("num", number(self.take().value))
        if token.kind == "var":
            return self.variable()
        if token.kind == "name":
            return self.construct(self.take().value)
        if self.at("⌊", "⌈"):
            return (BRACKET_FUNCTION[token.value], self.group())
        if self.at("(", "[", "{"):
            return self.group()
        if self.at("|"):
            self.take()
            self.bars += 1
            inner = self.sum()
            self.bars -= 1
            self.expect("|")
            return ("abs", inner)
        raise Unreadable(f"got {token.value or token.kind!r}, expected a number or an expression")

    def variable(self) -> Tree:
        name = self.take().value
        if self.at("_"):
            self.take()
            name += f"_{self.subscript()}"
        while self.at("'"):
            name += self.take().value
        return ("var", name)

    def subscript(self) -> str:
        if not self.at("{"):
            return self.take().value
        parts = []
        self.take()
        while not self.at("}"):
            if self.next is END or self.at("{"):
                raise Unreadable("a subscript that is not a plain name")
            parts.append(self.take().value)
        self.take()
        return " ".join(parts)

    def construct(self, name: str) -> Tree:
        if name == "frac":
            top = self.argument()
            return ("mul", top, ("inverse", self.argument()))
        if name == "binom":
            top = self.argument()
            return ("binom", top, self.argument())
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        raise Unreadable(f"{name} is not arithmetic")

    def root(self) -> Tree:
        degree = ("num", Fraction(2))
        if self.at("["):
            degree = self.group()
        if self.next.kind == "num":  # \sqrt12: nobody means √1·2
            return ("root", ("num", number(self.take().value)), degree)
        return ("root", self.group() if self.at("(") else self.argument(), degree)

    def function(self, name: str) -> Tree:
        power = base = None
        while self.at("^", "_"):
            if self.take().value == "^":
                power = self.exponent()
            else:
                base = self.subscript_base()
        arguments = self.arguments() if name in MANY_ARGUMENTS else [self.operand()]
        if base is not None and name != "log":
            raise Unreadable(f"a subscript of {name}")
        if power == ("neg", ("num", Fraction(1))):
            if name not in ("sin", "cos", "tan"):
                raise Unreadable(f"{name} to the power -1")
            return (f"arc{name}", *arguments)
        value = (name, *arguments, *([] if base is None else [base]))
        return value if power is None else ("pow", value, power)

    def subscript_base(self) -> Tree:
        r"""The base of a logarithm: a digit in ``\log_28``, the whole number in ``\log_10 100``."""
        after = self.ahead(1)
        if self.next.kind == "num" and (after.kind in ("num", "var", "name") or after.value in ("(", "{", "[")):
            return ("num", number(self.take().value))
        return self.argument()

    def operand(self) -> Tree:
        """A function's argument: a group, or the factors up to the next sign, operator or function."""
        if self.at("(", "[", "{"):
            return self.group()
        factors = [self.factor()]
        while self.starts_factor() and self.next.value not in FUNCTIONS:
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else ("mul", *factors)

    def arguments(self) -> list[Tree]:
        self.expect("(")
        found = [self.sum()]
        while self.at(","):
            self.take()
            found.append(self.sum())
        self.expect(")")
        return found


def parse(tokens: list[Token]) -> Tree:
    """The tree of an arithmetic expression.

    Raises:
        Unreadable: the tokens are not an arithmetic expression.
    """
    try:
        return Parser(tokens).tree()
    except (ZeroDivisionError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def variables(tree: Tree) -> set[str]:
    """Names of the free variables: all but e, i and π."""
    if tree[0] == "var":
        return set() if tree[1] in ("e", "i", "pi") else {tree[1]}
    if tree[0] == "num":
        return set()
    return set().union(*(variables(child) for child in tree[1:]))
