"""The cheapest comparisons, made in the trainer's process: plain numbers, and answers spelled like the gold."""

import re
from fractions import Fraction
from functools import lru_cache

PLAIN = re.compile(r"([+-]?)([0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,20})(\.[0-9]{1,60})?\.?", re.ASCII)
PLAIN_FRACTION = re.compile(r"([+-]?)\\[dtc]?frac\{([0-9]{1,60})\}\{([0-9]{1,60})\}", re.ASCII)


@lru_cache(maxsize=65_536)
def plain_number(text: str) -> Fraction | None:
    """The value of an integer, a decimal or a ``\\frac`` of integers; None for anything else."""
    text = text.strip()
    number = PLAIN.fullmatch(text)
    if number:
        return Fraction(number[1] + number[2].replace(",", "") + (number[3] or ""))
    fraction = PLAIN_FRACTION.fullmatch(text)
    if fraction and int(fraction[3]):
        return Fraction(int(fraction[1] + fraction[2]), int(fraction[3]))
    return None


def quick_status(answer: str, gold: str) -> str | None:
    """The status that `judge` gives, if it is clear from the spelling or from plain numbers; else None."""
    if answer.strip() == gold.strip():
        return "correct"
    given, wanted = plain_number(answer), plain_number(gold)
    if given is None or wanted is None:
        return None
    return "correct" if given == wanted else "incorrect"
