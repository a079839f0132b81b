"""Compares an answer with a gold answer in layers, cheapest first. A layer that cannot decide passes on to the next.

spelling → choice letter → words → calculus (sums, integrals, …: sympy) → shapes (numbers, lists, intervals, …).
No layer guesses: an answer that none of them recognises as the gold is not correct.
"""

import re
from functools import lru_cache

from reward.verifier.answers.algebra import OutOfTime, same_expression, warm_up
from reward.verifier.answers.compare import equivalent
from reward.verifier.answers.evaluate import Undefined
from reward.verifier.answers.grammar import MAX_DEPTH
from reward.verifier.answers.reading import plain_words, read, stripped
from reward.verifier.answers.shapes import Opaque, Shape, Words
from reward.verifier.answers.tokens import Token, Unreadable, spelled, tokenize

LEAD_IN = r"(?:the\s*)?(?:final\s*|correct\s*)?(?:option|choice|answer)?\s*(?:is|:)?\s*"
BARE_LETTER = re.compile(LEAD_IN + r"[(\[]?\s*([A-J])\s*[)\]]?\.?", re.IGNORECASE)
LETTER_AND_TEXT = re.compile(LEAD_IN + r"(?:[(\[]\s*([A-J])\s*[)\]][.:]?|([A-J])\s*[.):])\s*(.+)", re.DOTALL)
CALCULUS = re.compile(r"\\(?:sum|prod|i{1,3}nt|oint|lim|det)(?![a-zA-Z])")
OTHER_LETTER = re.compile(r"\s*(?:and|or|,|;|&|/)|.*\(\s*[A-J]\s*\)|[A-J]$", re.DOTALL)


__all__ = ["judge", "warm_up"]


def option(spelling: str) -> tuple[str, str] | None:
    """The letter and the text of a multiple-choice answer: "(B) 7" → ("B", "7"); None for anything else."""
    bare = BARE_LETTER.fullmatch(spelling)
    if bare and bare[1].isupper():
        return bare[1], ""
    lettered = LETTER_AND_TEXT.fullmatch(spelling)
    if lettered is None or OTHER_LETTER.match(lettered[3]):
        return None
    return lettered[1] or lettered[2], lettered[3].strip()


@lru_cache(maxsize=16_384)
def readable(text: str) -> tuple[tuple[Token, ...], Shape] | None:
    """Tokens and shape of an answer or gold; None if the text cannot be read."""
    try:
        tokens = stripped(tokenize(text))
        if nesting(tokens) > MAX_DEPTH:
            return None
        return tuple(tokens), read(tokens)
    except (Unreadable, RecursionError):
        return None


def nesting(tokens: list[Token]) -> int:
    """How deep brackets are nested."""
    depth = deepest = 0
    for token in tokens:
        if token.kind == "op":
            depth += (token.value in "([{⦃⟨⌊⌈") - (token.value in ")]}⦄⟩⌋⌉")
            deepest = max(deepest, depth)
    return deepest


def calculus(text: str) -> bool:
    """Whether an answer has a sum, product, integral, limit or determinant, which `grammar` does not parse."""
    return CALCULUS.search(text) is not None


def same_choice(answer: str, gold: str) -> bool | None:
    """Multiple choice: the letters decide, and texts beside them must agree. None if it is not multiple choice."""
    wanted = option(gold)
    if wanted is None:
        return None
    given = option(answer)
    if given is None:
        return False if not wanted[1] else None
    return given[0] == wanted[0] and (not given[1] or not wanted[1] or given[1] == wanted[1])


def judge(answer: str, gold: str) -> str:
    """ "correct", "incorrect", "unparseable" or "timeout": an answer's status against a gold answer."""
    if answer.strip() == gold.strip():
        return "correct"
    gold_read, answer_read = readable(gold), readable(answer)
    if answer_read is None or not answer_read[0]:
        return "unparseable"
    if gold_read is None:
        return "incorrect"
    answer_spelling, gold_spelling = spelled(list(answer_read[0])), spelled(list(gold_read[0]))
    if answer_spelling == gold_spelling and type(answer_read[1]) is type(gold_read[1]):  # 1,234 is not 1, 234
        return "correct"
    choice = same_choice(answer_spelling, gold_spelling)
    if choice is not None:
        return "correct" if choice else "incorrect"
    if isinstance(gold_read[1], Words):
        return "correct" if plain_words(answer_spelling) == gold_read[1].text else "incorrect"
    if calculus(answer) or calculus(gold):
        try:
            same = same_expression(answer, gold)
        except OutOfTime:
            return "timeout"
        return "unparseable" if same is None else "correct" if same else "incorrect"
    if isinstance(answer_read[1], Opaque):
        return "unparseable"
    try:
        return "correct" if equivalent(answer_read[1], gold_read[1]) else "incorrect"
    except Undefined:
        return "incorrect"
    except Unreadable:
        return "unparseable"
