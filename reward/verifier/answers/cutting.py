"""Splits tokens at top-level separators, finds enclosing brackets, and joins numbers written with thousands commas."""

import re

from reward.verifier.answers.tokens import Token

OPENING, CLOSING = "([{⦃⟨⌊⌈", ")]}⦄⟩⌋⌉"


def split(tokens: list[Token], separators: tuple[str, ...]) -> tuple[list[list[Token]], list[str]]:
    """Split at top-level separators (operators, or words such as "and"). Brackets need not match in kind: [1,2)."""
    parts: list[list[Token]] = [[]]
    found = []
    depth = environments = 0
    for token in tokens:
        if token.kind == "op" and token.value in OPENING:
            depth += 1
        elif token.kind == "op" and token.value in CLOSING:
            depth -= 1
        environments += (token.kind == "begin") - (token.kind == "end")
        word = token.value.lower().strip(" ,") if token.kind == "text" else token.value
        if depth == 0 and environments == 0 and token.kind in ("op", "text") and word in separators:
            parts.append([])
            found.append(word)
        else:
            parts[-1].append(token)
    return parts, found


def is_op(token: Token, *values: str) -> bool:
    return token.kind == "op" and token.value in values


def enclosed(tokens: list[Token]) -> bool:
    """Whether the first bracket closes at the very end."""
    if len(tokens) < 2 or tokens[0].kind != "op" or tokens[0].value not in OPENING:
        return False
    depth = 0
    for index, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.value in OPENING) - (token.value in CLOSING)
        if depth == 0:
            return index == len(tokens) - 1
    return False


def merged_thousands(tokens: list[Token]) -> list[Token]:
    """Join ``1,234``, written without spaces, into one number. The tokens must stand outside brackets."""
    merged: list[Token] = []
    depth = 0
    for token in tokens:
        if token.kind == "op":
            depth += (token.value in OPENING) - (token.value in CLOSING)
        if (
            depth == 0
            and token.kind == "num"
            and not token.spaced
            and len(merged) >= 2
            and is_op(merged[-1], ",")
            and not merged[-1].spaced
            and re.fullmatch(r"[0-9]{3}(\.[0-9]+)?", token.value)
            and re.fullmatch(r"[1-9][0-9]{0,2}|[1-9][0-9]{3,}", merged[-2].value)
            and (len(merged[-2].value) <= 3 or merged[-2].kind == "thousands")
        ):
            merged[-2:] = [Token("thousands", merged[-2].value + token.value, merged[-2].spaced)]
        else:
            merged.append(token)
    return [Token("num", *token[1:]) if token.kind == "thousands" else token for token in merged]
