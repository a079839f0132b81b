r"""Splits an answer into tokens. Spacing, sizes, fonts, colours and delimiters, which do not change it, are dropped.

Words become "text" tokens, whether they were written in ``\text{…}`` or bare. Numbers keep their digits.
"""

import re
import unicodedata
from typing import NamedTuple

from reward.verifier.answers.extract import closing_brace
from reward.verifier.answers.units import UNITS
from reward.verifier.answers.vocabulary import (
    CONSTRUCTS,
    DEGREE_SIGNS,
    FUNCTIONS,
    GREEK,
    IGNORED,
    IGNORED_WITH_ARGUMENT,
    OPERATORS,
    REPLACED,
    SHORT_WORDS,
    SPACES,
    SUPERSCRIPT_RUN,
    SUPERSCRIPTS,
    TEXT_FONTS,
    WRAPPERS,
)

MAX_TOKENS = 1_500
NUMBER_START = re.compile(r"[-+]?\.?[0-9]")
HAS_WORD = re.compile(r"[A-Za-z]{2}|[A-Za-z][.)]")
BOUNDARY = "\0"  # separates letters that came from different macros; the text itself never has it


class Unreadable(ValueError):
    """The text is not an answer that this package can read."""


class Token(NamedTuple):
    kind: str  # num, var, text, name (a function or construct), op, begin, end, unknown
    value: str
    spaced: bool = False  # white space came before it


PATTERN = re.compile(
    r"""(?P<space>\s+)
    |(?P<grouped>[0-9]{1,3}(?:(?:\{,\}(?:\\!)?|,\\[!,]|\\[,:;])[0-9]{3})+(?![0-9])(?:\.[0-9]+)?)
    |(?P<repeating>[0-9]*\.[0-9]*\\(?:overline|bar|dot)\s*(?:\{[0-9]+\}|[0-9]))
    |(?P<scientific>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)[eE][+-]?[0-9]+(?![\w.^]))
    |(?P<num>[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+)
    |(?P<macro>\\(?:[a-zA-Z]+\*?|.))
    |(?P<letters>[A-Za-z]+)
    |(?P<symbol>.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
TRANSLATION = str.maketrans(REPLACED)


def to_latex(text: str) -> str:
    """Mathematical Unicode as LaTeX.

    Raises:
        Unreadable: the text has control or direction characters, which make it look different from what it is.
    """
    if text.isascii():
        plain = text
    else:
        plain = SUPERSCRIPT_RUN.sub(lambda run: "^{" + "".join(SUPERSCRIPTS[c] for c in run.group()) + "}", text)
        plain = unicodedata.normalize("NFKC", plain.translate(TRANSLATION)).translate(TRANSLATION)
    for character in plain:
        if unicodedata.category(character)[0] == "C" and character not in "\t\n\r":
            raise Unreadable(f"control character {character!r}")
    return plain


def is_word(letters: str) -> bool:
    """Whether a run of letters is a word and not a product of variables."""
    if (letters in UNITS and len(letters) > 1) or letters.lower() in SHORT_WORDS:
        return True
    if letters.isupper():
        return len(letters) > 4
    capitalised = letters[0].isupper() and letters[1:].islower() and len(letters) > 1
    return len(letters) > 3 or capitalised or (len(letters) > 1 and any(c in "eiou" for c in letters[1:]))


def repeating_decimal(text: str) -> str:
    r"""``0.1\overline{6}`` as a quotient of whole numbers, "15/90"."""
    found = re.fullmatch(r"([0-9]*)\.([0-9]*)\\[a-z]+\s*\{?([0-9]+)\}?", text)
    assert found is not None  # the scanner's own pattern has matched this text
    whole, fixed, cycle = found.groups()
    top = int(whole + fixed + cycle) - int("0" + whole + fixed)
    return f"{top}/{(10 ** len(cycle) - 1) * 10 ** len(fixed)}"


class _Scanner:
    def __init__(self, text: str):
        self.text = text
        self.position = 0
        self.spaced = False
        self.tokens: list[Token] = []

    def add(self, kind: str, value: str) -> None:
        self.tokens.append(Token(kind, value, self.spaced))
        self.spaced = False
        if len(self.tokens) > MAX_TOKENS:
            raise Unreadable(f"more than {MAX_TOKENS} tokens")

    def argument(self) -> str | None:
        """The braced argument that comes next, or None if none does."""
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        if not self.text.startswith("{", self.position):
            return None
        end = closing_brace(self.text, self.position, len(self.text))
        if end < 0:
            raise Unreadable("unclosed brace")
        content = self.text[self.position + 1 : end]
        self.position = end + 1
        return content

    def next_letter(self) -> str:
        r"""The letter that comes next, as in ``\mathbb R``; "" if none does."""
        letter = self.text[self.position : self.position + 1]
        if not letter.isalpha():
            return ""
        self.position += 1
        return letter

    def splice(self, content: str) -> None:
        """Scan ``content`` in place."""
        self.text = f"{BOUNDARY}{content}{BOUNDARY}{self.text[self.position :]}"
        self.position = 0

    def scan(self) -> list[Token]:
        while self.position < len(self.text):
            match = PATTERN.match(self.text, self.position)
            assert match is not None  # the pattern's last branch takes any character
            self.position = match.end()
            value = match.group()
            if match.lastgroup == "space":
                self.spaced = True
            elif match.lastgroup in ("grouped", "scientific", "num"):
                self.add("num", re.sub(r"[{},\\!:;]", "", value))
            elif match.lastgroup == "repeating":
                self.add("num", repeating_decimal(value))
            elif match.lastgroup == "macro":
                self.macro(value[1:])
            elif match.lastgroup == "letters":
                self.letters(value)
            else:
                self.symbol(value)
        return self.tokens

    def macro(self, name: str) -> None:
        if name in SPACES:
            self.spaced = True
        elif name in IGNORED:
            if name in ("left", "right") and self.text.startswith(".", self.position):
                self.position += 1
        elif name in IGNORED_WITH_ARGUMENT:
            self.argument()
        elif name in WRAPPERS:
            self.wrapped(name, self.argument())
        elif name in OPERATORS:
            self.add("op", OPERATORS[name])
        elif name in FUNCTIONS or name in CONSTRUCTS:
            self.add("name", CONSTRUCTS.get(name, name))
        elif name in ("pi", *GREEK):
            self.add("var", name)
        elif name in ("begin", "end"):
            environment = self.argument() or ""
            if environment == "array":
                self.argument()
            self.add(name, environment)
        elif name == "mathbb":
            self.add("var", f"mathbb{self.argument() or self.next_letter()}")
        else:
            self.add("unknown", name)

    def wrapped(self, name: str, content: str | None) -> None:
        if content is None:
            return
        words = " ".join(content.split())
        if name in TEXT_FONTS and self.tokens and all(part in UNITS for part in words.split("/")):
            self.add("text", words)
        elif "\\" in content or "$" in content or NUMBER_START.match(words) or not HAS_WORD.search(words):
            self.splice(content)
        elif words in FUNCTIONS:
            self.add("name", words)
        else:
            self.spaced = self.spaced or content[0].isspace()
            self.add("text", words)

    def letters(self, run: str) -> None:
        if run in FUNCTIONS or run == "sqrt":
            self.add("name", run)
        elif run == "pi":
            self.add("var", "pi")
        elif is_word(run):
            self.add("text", run)
        else:
            for letter in run:
                self.add("var", letter)

    def symbol(self, value: str) -> None:
        if value in ("$", BOUNDARY):
            return
        if value == "~":
            self.spaced = True
        elif value.isalpha():
            self.add("text", value)
        else:
            self.add("op", value)


def _merged(tokens: list[Token]) -> list[Token]:
    """The tokens with neighbouring words joined into one text, and ``^\\circ`` as a degree sign."""
    merged: list[Token] = []
    for token in tokens:
        if token.kind == "text" and merged and merged[-1].kind == "text":
            merged[-1] = Token("text", f"{merged[-1].value} {token.value}", merged[-1].spaced)
            continue
        merged.append(token)
        for sign in DEGREE_SIGNS:
            if tuple(t.value for t in merged[-len(sign) :]) == sign:
                merged[-len(sign) :] = [Token("op", "°")]
    return merged


def tokenize(text: str) -> list[Token]:
    """The tokens of an answer, in order, without trailing punctuation.

    Raises:
        Unreadable: the text is too long, or has characters that cannot belong to an answer.
    """
    tokens = _merged(_Scanner(to_latex(text)).scan())
    while tokens and tokens[-1].value in (".", ",", ";", ":", "\\\\"):
        tokens.pop()
    return tokens


def spelled(tokens: list[Token]) -> str:
    """The tokens as plain text, for comparing spellings. Spaces are kept only between letters or digits."""
    text = ""
    for token in tokens:
        apart = text and text[-1].isalnum() and token.value[:1].isalnum()
        text += (" " if apart and (token.spaced or token.kind == "text") else "") + token.value
    return text
