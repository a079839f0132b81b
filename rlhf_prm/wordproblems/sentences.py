"""The sentences of the word problems: who owns what, and the wordings of events that add, remove or share things.

In a sentence, ``{w}`` and ``{o}`` are two people, ``{things}`` what is counted, ``{boxes}`` what it lies in, ``{a}``
and ``{b}`` numbers, ``{times}`` a factor in words. In a sentence of the solution ``{e}`` is the calculation.
"""

from dataclasses import dataclass

NAMES = (
    *("Ada", "Amir", "Bella", "Carlos", "Chloe", "David", "Elena", "Finn", "Grace", "Hana", "Igor", "Julia", "Kofi"),
    *("Lucy", "Marta", "Nora", "Oscar", "Priya", "Rosa", "Samuel", "Tara", "Umar", "Vera", "Yusuf"),
)
OBJECTS = (
    *(("apples", "baskets"), ("beads", "strings"), ("biscuits", "jars"), ("books", "shelves"), ("buttons", "tins")),
    *(("candles", "crates"), ("cards", "packs"), ("coins", "purses"), ("eggs", "cartons"), ("flowers", "vases")),
    *(("marbles", "bags"), ("pencils", "boxes"), ("shells", "buckets"), ("stamps", "albums"), ("stickers", "sheets")),
)
TIMES = {2: "twice", 3: "three times"}


@dataclass(frozen=True)
class Line:
    """A calculation and ways to say what it gives.

    ``left`` and ``right`` are names of numbers: a, b, "value" (how many there are so far), "product" (the line before).
    """

    left: str
    operation: str
    right: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """An event: its wordings, and the calculations it needs.

    ``questions`` replace the usual ones when it is the last event; such an event is always the last.
    """

    told: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    questions: tuple[str, ...] = ()


_NEW = (
    "With the new ones {w} has {e} {things}.",
    "After that there are {e} {things}.",
    "Adding these gives {e} {things}.",
    "The number grows to {e}.",
)
_LEFT = (
    "After that {e} {things} are left.",
    "So {w} still has {e} {things}.",
    "That leaves {e} {things}.",
    "Only {e} of them remain.",
)

STARTS = {
    "count": Event(
        (
            "{w} has {a} {things}.",
            "{w} begins the week with {a} {things}.",
            "There are {a} {things} in {w}'s room.",
            "On the table in front of {w} lie {a} {things}.",
            "{w} counts {a} {things} in the morning.",
        )
    ),
    "boxes": Event(
        (
            "{w} has {a} {boxes} with {b} {things} in each.",
            "{w} fills {a} {boxes}, each with {b} {things}.",
            "Each of {w}'s {a} {boxes} holds {b} {things}.",
            "{w} bought {a} {boxes} of {b} {things} each.",
            "In {w}'s cupboard there are {a} {boxes}, and every one contains {b} {things}.",
        ),
        (
            Line(
                "a",
                "*",
                "b",
                (
                    "The {boxes} hold {e} {things}.",
                    "{w} has {e} {things} in the {boxes}.",
                    "First, that makes {e} {things}.",
                    "In all the {boxes} there are {e} {things}.",
                ),
            ),
        ),
    ),
}

MOVES = {
    "gain": Event(
        (
            "{o} gives {w} {a} more {things}.",
            "Then {w} finds {a} {things}.",
            "Later {w} gets {a} {things} as a present.",
            "{w} wins another {a} {things} at the fair.",
            "After lunch {w} adds {a} {things}.",
        ),
        (Line("value", "+", "a", _NEW),),
    ),
    "lose": Event(
        (
            "{w} gives {a} {things} to {o}.",
            "Then {w} loses {a} of them.",
            "{a} of the {things} are broken and thrown away.",
            "{o} takes {a} {things} away.",
            "{w} sells {a} {things}.",
        ),
        (Line("value", "-", "a", _LEFT),),
    ),
    "gain_boxes": Event(
        (
            "{o} brings {a} {boxes} with {b} {things} in each.",
            "Then {w} buys {a} {boxes} of {b} {things} each.",
            "For {a} days {w} makes {b} new {things} every day.",
            "{a} friends come and bring {w} {b} {things} each.",
        ),
        (
            Line("a", "*", "b", ("The new {things} are {e} in number.", "That adds {e} {things}.")),
            Line("value", "+", "product", ("Together with those before there are {e} {things}.", "Now {w} has {e}.")),
        ),
    ),
    "lose_each": Event(
        (
            "{w} gives {b} {things} to each of {a} friends.",
            "For {a} days {w} uses up {b} {things} a day.",
            "{a} visitors take {b} {things} each.",
            "{w} packs {a} presents with {b} {things} in each and sends them away.",
        ),
        (
            Line("a", "*", "b", ("In total {e} {things} are gone.", "That is {e} {things} less.")),
            Line("value", "-", "product", ("So {e} {things} remain.", "Then {w} has {e} {things}.")),
        ),
    ),
    "times": Event(
        (
            "{o} has {times} as many {things} as {w} has then.",
            "A month later there are {times} as many {things}.",
        ),
        (Line("value", "*", "a", ("The larger number is {e} {things}.", "Multiplying gives {e} {things}.")),),
        ("How many {things} is that?", "How many {things} are meant in the end?", "What is the number of {things}?"),
    ),
    "share": Event(
        (
            "The {things} are then shared equally among {a} children.",
            "{w} puts all the {things} in equal parts on {a} tables.",
            "In the end {w} divides the {things} evenly into {a} piles.",
        ),
        (Line("value", "/", "a", ("Each part has {e} {things}.", "One share is {e} {things}.")),),
        ("How many {things} are in each part?", "How many {things} make one share?", "How large is each part?"),
    ),
}

QUESTIONS = (
    "How many {things} does {w} have now?",
    "How many {things} are there in the end?",
    "How many {things} does {w} have after that?",
    "What is the number of {things} at the end?",
)
ANSWER = "The answer is \\boxed{{{answer}}}."
