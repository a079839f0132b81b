"""The two parts of a reasoning model's completion: thinking and answer."""

from collections.abc import Sequence
from dataclasses import dataclass

PARTS = ("all", "thinking", "answer")


@dataclass(frozen=True)
class Thinking:
    """How a completion is divided: everything up to the first ``end`` is thinking, the rest is the answer.

    A completion without ``end`` is all thinking if it has ``begin``, or if the prompt ends in it
    (``opened``); it was then cut off, and has no answer. Otherwise it is all answer.

    Args:
        begin, end: the tags.
        opened: the prompt ends with ``begin``, as chat templates of reasoning models mostly write it.

    Raises:
        ValueError: an empty tag, or one for both.
    """

    begin: str = "<think>"
    end: str = "</think>"
    opened: bool = False

    def __post_init__(self) -> None:
        if not self.begin or not self.end or self.begin == self.end:
            raise ValueError(f"think tags: got {self.begin!r} and {self.end!r}, expected two different texts")

    def answer_from(self, text: str) -> int:
        """The character at which the answer begins; the text's length if there is none."""
        at = text.find(self.end)
        if at >= 0:
            return at + len(self.end)
        return len(text) if self.opened or self.begin in text else 0

    def part(self, text: str, which: str) -> str:
        """The text of one of ``PARTS``; "thinking" and "answer" come without the tags."""
        if which == "all":
            return text
        at = self.answer_from(text)
        return self.without_tags(text[at:] if which == "answer" else text[:at]).strip()

    def is_answer(self, steps: Sequence[str]) -> list[bool]:
        """For each step of a completion that was cut between the parts, whether it belongs to the answer."""
        last = next((k for k, step in enumerate(steps) if self.end in step), None)
        if last is None:
            thinks = self.opened or any(self.begin in step for step in steps)
            return [not thinks] * len(steps)
        return [k > last for k in range(len(steps))]

    def reads(self, steps: Sequence[str], which: str) -> list[bool]:
        """For each step, whether it belongs to the part ``which``."""
        answers = self.is_answer(steps)
        return [which == "all" or answer == (which == "answer") for answer in answers]

    def without_tags(self, text: str) -> str:
        return text.replace(self.begin, "").replace(self.end, "")


def check_part(which: str, name: str) -> None:
    """Raises a ValueError where ``which`` is not of ``PARTS``; ``name`` is the setting's."""
    if which not in PARTS:
        raise ValueError(f"{name}: got {which!r}, expected one of {', '.join(PARTS)}")
