"""Word problems in varied English with two or three calculations: how they are drawn, read back, and kept apart.

    Nora bought 6 tins of 8 buttons each. 5 visitors take 3 buttons each. How many buttons does Nora have now?

and a solution has a sentence per calculation, a blank line between two of them, and the answer in a box:

    First, that makes 6*8=48 buttons.

    In total 5*3=15 buttons are gone.

    So 48-15=33 buttons remain.

    The answer is \\boxed{33}.

Problems to train on and held-out problems never have the same wording: a wording is a problem without its names, things
and numbers, and its hash decides on which side it is, whatever the seed.
"""

import hashlib
import random
import re
from dataclasses import dataclass, field
from functools import cache

from rlhf_prm.wordproblems.sentences import ANSWER, MOVES, NAMES, OBJECTS, QUESTIONS, STARTS, TIMES, Event

LARGEST = 99  # result of a calculation
HELD_OUT_SHARE = 0.25  # of the wordings
CALCULATIONS = (2, 3)  # of a problem, fewest and most
MOVES_PER_PROBLEM = 2


@dataclass(frozen=True)
class Calculation:
    """``left operation right``, of whole numbers."""

    left: int
    operation: str
    right: int

    @property
    def result(self) -> int | None:
        """The result; None for a division with a remainder."""
        if self.operation == "/":
            return self.left // self.right if self.right and self.left % self.right == 0 else None
        return {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[self.operation](self.left, self.right)

    @property
    def key(self) -> tuple[int, str, int]:
        """Equal for ``3*4`` and ``4*3``."""
        if self.operation in "+*" and self.right < self.left:
            return self.right, self.operation, self.left
        return self.left, self.operation, self.right

    def __str__(self) -> str:
        return f"{self.left}{self.operation}{self.right}={self.result}"


@dataclass(frozen=True)
class WordProblem:
    """The text of a problem, and its calculations in order.

    Args:
        uses: for the left and the right number of each calculation, the index of the one whose result it is; None
            if the text states it.
        gold_steps: the steps of a right solution, the answer last; empty for a problem read back from its text.
    """

    text: str
    plan: tuple[Calculation, ...]
    uses: tuple[tuple[int | None, int | None], ...]
    gold_steps: tuple[str, ...] = field(default=(), compare=False)

    @property
    def solution(self) -> str:
        """The gold answer."""
        return str(self.plan[-1].result)

    @property
    def wording(self) -> str:
        """The text without names, things and numbers."""
        return wording(self.text)

    @classmethod
    def parse(cls, text: str) -> "WordProblem":
        """The problem of a text.

        Raises:
            ValueError: the text is not one of these word problems.
        """
        return _parsed(text.strip())


@cache
def _parsed(text: str) -> WordProblem:
    *told, question = re.split(r"(?<=[.?]) ", text)
    plan = _Plan()
    for number, sentence in enumerate(told):
        found = _read(sentence, "start" if number == 0 else "move")
        if found is None:
            raise ValueError(
                f"got the problem {text!r}, expected a word problem; {sentence!r} is none of its sentences"
            )
        plan.add(*found)
    if not plan.calculations or not question.endswith("?"):
        raise ValueError(f"got the problem {text!r}, expected a word problem of several sentences and a question")
    return WordProblem(text, tuple(plan.calculations), tuple(plan.uses))


class _Plan:
    """The calculations of the events so far; ``value`` is how many things there are, None before the first event."""

    def __init__(self) -> None:
        self.calculations: list[Calculation] = []
        self.uses: list[tuple[int | None, int | None]] = []
        self.value: int | None = None
        self._source: int | None = None  # the calculation whose result the value is

    def add(self, event: Event, a: int, b: int | None) -> None:
        """Add an event with its numbers. No event may follow a division with a remainder."""
        numbers = {"a": a, "b": b, "value": self.value}
        sources = {"a": None, "b": None, "value": self._source}
        for line in event.lines:
            self.calculations.append(Calculation(numbers[line.left], line.operation, numbers[line.right]))
            self.uses.append((sources[line.left], sources[line.right]))
            numbers["product"], sources["product"] = self.calculations[-1].result, len(self.calculations) - 1
        self.value, self._source = (numbers["product"], sources["product"]) if event.lines else (a, None)


@cache
def _patterns(kind: str) -> tuple[tuple[re.Pattern[str], Event], ...]:
    """A regular expression for every sentence of a kind of event."""
    events = STARTS if kind == "start" else MOVES
    return tuple((_pattern(sentence), event) for event in events.values() for sentence in event.told)


def _pattern(sentence: str) -> re.Pattern[str]:
    fits = {
        **dict.fromkeys("wo", "[A-Z][a-z]+"),
        **dict.fromkeys(("things", "boxes"), "[a-z]+"),
        **dict.fromkeys("ab", r"\d+"),
        "times": "|".join(TIMES.values()),
    }
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{fits[name]})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(sentence)))


def _read(sentence: str, kind: str) -> tuple[Event, int, int | None] | None:
    """The event of a sentence, and its numbers."""
    for pattern, event in _patterns(kind):
        if match := pattern.fullmatch(sentence):
            found = match.groupdict()
            if "times" in found:
                return event, next(n for n, words in TIMES.items() if words == found["times"]), None
            return event, int(found["a"]), int(found["b"]) if "b" in found else None
    return None


_NAMED = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
_COUNTED = re.compile(rf"\b(?:{'|'.join(word for pair in OBJECTS for word in pair)})\b")
_NUMBER = re.compile(rf"\d+|\b(?:{'|'.join(TIMES.values())})\b")


def wording(text: str) -> str:
    """A problem without its names, things and numbers."""
    return _NUMBER.sub("#", _COUNTED.sub("things", _NAMED.sub("Name", text)))


def is_held_out(problem: WordProblem) -> bool:
    """Whether a problem's wording is a held-out one."""
    digest = hashlib.sha256(problem.wording.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def draw_problem(rng: random.Random) -> WordProblem:
    """A random problem whose calculations differ from each other and stay below 100."""
    while True:
        problem = _drawn(rng)
        keys = {calculation.key for calculation in problem.plan}
        results = [calculation.result for calculation in problem.plan]
        if (
            CALCULATIONS[0] <= len(problem.plan) <= CALCULATIONS[1]
            and len(keys) == len(problem.plan)
            and all(result is not None and 0 < result <= LARGEST for result in results)
        ):
            return problem


def _drawn(rng: random.Random) -> WordProblem:
    w, o = rng.sample(NAMES, 2)
    things, boxes = rng.choice(OBJECTS)
    words = {"w": w, "o": o, "things": things, "boxes": boxes}
    events = [rng.choice(list(STARTS.values()))]
    while len(events) <= MOVES_PER_PROBLEM and not events[-1].questions:
        events.append(rng.choice(list(MOVES.values())))
    plan, told, steps = _Plan(), [], []
    for event in events:
        a, b = _numbers(event, plan.value, rng)
        told.append(rng.choice(event.told).format(**words, a=a, b=b, times=TIMES.get(a)))
        done = len(plan.calculations)
        plan.add(event, a, b)
        for line, calculation in zip(event.lines, plan.calculations[done:], strict=True):
            steps.append(rng.choice(line.said).format(**words, e=calculation))
        if plan.value is None or plan.value <= 0:  # no sensible event can follow: draw again
            break
    told.append(rng.choice(events[-1].questions or QUESTIONS).format(**words))
    steps.append(ANSWER.format(answer=plan.value))
    return WordProblem(" ".join(told), tuple(plan.calculations), tuple(plan.uses), tuple(steps))


def _numbers(event: Event, value: int | None, rng: random.Random) -> tuple[int, int | None]:
    """Numbers for an event, most of which make a problem that is kept."""
    if event is MOVES["times"]:
        return rng.choice(list(TIMES)), None
    if event is MOVES["share"]:
        parts = [n for n in range(2, 10) if value % n == 0 and value // n > 1]
        return rng.choice(parts or [2]), None
    if any("{b}" in sentence for sentence in event.told):
        return rng.randint(2, 9), rng.randint(2, 9)
    return (rng.randint(8, 45) if value is None else rng.randint(2, 35)), None


def draw_splits(seed: int, sizes: dict[str, int]) -> dict[str, list[WordProblem]]:
    """Disjoint lists of distinct problems, one per name in ``sizes``; those of ``eval`` have held-out wordings.

    Every list has its own random stream and leaves out the problems of the lists before it, so that a list does not
    change when one after it grows.
    """
    seen: set[str] = set()
    splits: dict[str, list[WordProblem]] = {}
    for name, size in sizes.items():
        rng = random.Random(f"word problems {name} {seed}")
        splits[name] = []
        while len(splits[name]) < size:
            problem = draw_problem(rng)
            if is_held_out(problem) == (name == "eval") and problem.text not in seen:
                seen.add(problem.text)
                splits[name].append(problem)
    return splits
