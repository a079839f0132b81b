"""The form with a verdict on every step: answers as models write them, and what cannot be read."""

import pytest

from rlhf_prm.judges.forms import FORMS, UnparseableAnswer

FORM = FORMS["verdicts"]
STEPS = ["one", "two", "three"]


@pytest.mark.parametrize(
    ("answer", "wanted", "first_error"),
    [
        ("<verdicts>\n1: correct\n2: correct\n3: correct\n</verdicts>", [1, 1, 1], -1),
        ("Step 2 divides by 0.\n\n<verdicts>\n1: correct\n2: incorrect\n3: correct\n</verdicts>\nDone.", [1, 0, 1], 1),
        ("<think>1: incorrect</think><verdicts>\n1. Correct.\n2) INCORRECT\n\n3: correct\n</verdicts>", [1, 0, 1], 1),
        ("<verdicts>\nParagraph 1: **correct**\nparagraph 2: incorrect\n3: incorrect.\n</verdicts>", [1, 0, 0], 1),
    ],
)
def test_what_is_read(answer, wanted, first_error):
    assert FORM.scores("p", STEPS, answer) == wanted
    assert FORM.parse(answer, 3) == first_error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "an empty answer"),
        ("I am sorry, but I cannot judge this solution.", "not exactly one <verdicts>"),
        ("<verdicts>\n1: correct\n2: correct", "not exactly one <verdicts>"),
        ("<urteile>\n1: richtig\n2: richtig\n3: falsch\n</urteile>", "not exactly one <verdicts>"),
        ("<verdicts>\n1: richtig\n2: correct\n3: correct\n</verdicts>", "verdict '1: richtig'"),
        ("<verdicts>\n1: correct\n2: correct\n</verdicts>", r"verdicts on paragraphs \[1, 2\], expected 1 to 3"),
        ("<verdicts>\n1: correct\n3: correct\n2: correct\n</verdicts>", r"\[1, 3, 2\]"),
        ("<verdicts>\n0: correct\n1: correct\n2: correct\n</verdicts>", r"\[0, 1, 2\]"),
        ("<verdicts>\n1: correct, mostly\n2: correct\n3: correct\n</verdicts>", "verdict '1: correct, mostly'"),
        ("<verdicts>1: correct</verdicts><verdicts>1: correct</verdicts>", "not exactly one <verdicts>"),
        ("<think>\n<verdicts>\n1: correct", "ends inside <think>"),
    ],
    ids=["empty", "refusal", "cut", "tags", "language", "short", "order", "from 0", "hedged", "twice", "thoughts"],
)
def test_what_is_not_read(answer, reason):
    with pytest.raises(UnparseableAnswer, match=reason):
        FORM.scores("p", STEPS, answer)
