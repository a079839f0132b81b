"""Groups a problem's answers that are equal, however they are written, for majority votes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reward.verifier import Verifier
from rlhf_prm.evaluation.samples import SampledProblem


@dataclass
class _Classes:
    """The answers of one problem while they are grouped: ``of`` maps an answer to the text of its class."""

    left: list[str]
    of: dict[str, str] = field(default_factory=dict)


def with_equal_answers(samples: Sequence[SampledProblem], verifier: Verifier) -> list[SampledProblem]:
    """The samples, where all answers that the verifier considers equal have the text of the first one.

    Right answers are equal to the gold answer, and so to each other. The first wrong one represents all that the
    verifier accepts with it as the gold answer, then the first of the rest does, and so on; each round is one call for
    all problems. An answer that cannot be read as a gold answer is equal to its own spelling only.
    """
    classes = [_start(sample) for sample in samples]
    while going := [one for one in classes if one.left]:
        firsts = [one.left.pop(0) for one in going]
        pairs = [(text, first) for one, first in zip(going, firsts, strict=True) for text in one.left]
        given = [f"\\boxed{{{text}}}" for text, _ in pairs]
        verdicts = iter(verifier.verify(given, [first for _, first in pairs]) if pairs else ())
        for one, first in zip(going, firsts, strict=True):
            same = [text for text in one.left if (next(verdicts).reward or 0.0) > 0.5]
            one.of |= dict.fromkeys([first, *same], first)
            one.left = [text for text in one.left if text not in one.of]
    return [
        replace(sample, answers=[None if answer is None else one.of[answer] for answer in sample.answers])
        for sample, one in zip(samples, classes, strict=True)
    ]


def _start(sample: SampledProblem) -> _Classes:
    """The right answers are one class; a text that was once right and once wrong stays with the right ones."""
    answered = [(text, right) for text, right in zip(sample.answers, sample.correct, strict=True) if text is not None]
    right = list(dict.fromkeys(text for text, correct in answered if correct))
    wrong = [text for text in dict.fromkeys(text for text, _ in answered) if text not in right]
    return _Classes(wrong, dict.fromkeys(right, right[0]) if right else {})
