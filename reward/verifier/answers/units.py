"""Units of measurement: which words are the same unit, and how units of one kind convert."""

from dataclasses import dataclass
from fractions import Fraction

from reward.verifier.answers.vocabulary import words

ALIASES = {  # kind: {factor: names}
    "length": {
        "1/1000": "mm millimeter millimetre",
        "1/100": "cm centimeter centimetre",
        "1": "m meter metre",
        "1000": "km kilometer kilometre",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard",
        "201168/125": "mi mile",
    },
    "time": {"1": "s sec second", "60": "min minute", "3600": "h hr hour", "86400": "day", "604800": "week"},
    "mass": {"1/1000": "mg milligram", "1": "g gram", "1000": "kg kilogram"},
    "money": {"1": "cent ¢", "100": "$ dollar usd"},
    "volume": {"1/1000": "ml milliliter millilitre", "1": "l liter litre"},
}
UNITS: dict[str, tuple[str, Fraction]] = {
    name: (kind, Fraction(factor))
    for kind, factors in ALIASES.items()
    for factor, names in factors.items()
    for stem in names.split()
    for name in {stem, stem + "s" if len(stem) > 2 else stem}
}
MULTIPLIERS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
FORBIDDEN = words(
    "not no isn't wrong incorrect never or and to either neither if unless except plus minus times half"
    " is are was be too than less more least most but so because since only"
)
MAX_WORDS = 6


@dataclass(frozen=True)
class Unit:
    """A unit. ``scale`` converts a number to base units of ``kind``; an unknown unit is kept as its singular words."""

    kind: str | None
    scale: Fraction
    words: frozenset[str]


def unit_of(text: str, power: int = 1) -> tuple[Unit, int] | None:
    """The unit that words name, and the factor in them ("million dollars": 10^6); None if they are not a unit."""
    parts = text.lower().replace(".", "").replace("-", " ").split()
    if len(parts) > MAX_WORDS or FORBIDDEN & set(parts):
        return None
    factor = 1
    while parts and parts[0] in MULTIPLIERS:
        factor *= MULTIPLIERS[parts.pop(0)]
    for part in [part for part in parts if part in POWERS]:
        power *= POWERS[part]
        parts.remove(part)
    if not parts and factor == 1:
        return None
    if len(parts) == 1 and parts[0] in UNITS:
        kind, scale = UNITS[parts[0]]
        return Unit(f"{kind}^{power}", scale**power, frozenset()), factor
    fillers = {"of", "the", "a", "an", "in", "total"}
    return Unit(None, Fraction(1), frozenset(part.rstrip("s") for part in parts if part not in fillers)), factor


def agree(answer: Unit, gold: Unit) -> Fraction | None:
    """The factor that converts the answer's number to the gold's unit; None if the units differ in kind."""
    if answer.kind and gold.kind:
        return answer.scale / gold.scale if answer.kind == gold.kind else None
    if answer.kind or gold.kind:
        return None
    same = answer.words <= gold.words or gold.words <= answer.words
    return Fraction(1) if same else None
