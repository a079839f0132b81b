"""One rule for columns: what is named, else the first usual name that is there."""

import math

import pytest

from rlhf_prm.columns import column_of, gold_of, problem_of, steps_of, value_of
from rlhf_prm.steps import StepSplitter


def test_the_named_column_or_the_first_usual_one():
    row = {"prompt": "by prompt", "question": "by question", "query": "by query", "problem": None}
    assert problem_of(row) == "by prompt"  # problem is null
    assert problem_of(row | {"problem": "by problem"}) == "by problem"
    assert problem_of(row, "query") == "by query"
    assert value_of(row, "nothing", ("prompt",)) is None  # a named column is the one, whatever else there is
    assert column_of(["a", "b"], None, ("x", "b"), "thing") == "b"


def test_messages_are_read_by_their_last_user():
    turns = [{"role": "user", "content": "first"}, {"role": "user", "content": "2 + 2?"}, {"role": "assistant"}]
    assert problem_of({"prompt": turns}) == "2 + 2?"


@pytest.mark.parametrize(
    ("value", "gold"), [("7", "7"), (7, "7"), (72.0, "72"), (0.5, "0.5"), (math.nan, None), (None, None), (" ", None)]
)
def test_gold_answers_as_text(value, gold):
    assert gold_of({"answer": value}) == gold


def test_the_steps_of_one_solution():
    cut = StepSplitter()
    assert steps_of({"steps": ["a\n\nb", "c"], "completions": ["d"]}, cut) == ["a\n\nb", "c"]
    assert steps_of({"completions": ["a", "b"], "response": "c"}, cut) == ["a", "b"]
    assert steps_of({"completions": ["a\n\nb", "c"], "labels": [True, False]}, cut) == ["a\n\nb", "c"]
    assert steps_of({"steps": None, "response": "a\n\nb"}, cut) == ["a", "b"]
    assert steps_of({"completion": " "}, cut) == []
    assert steps_of({"solution": "a"}, cut, ("response", "solution")) == ["a"]
    with pytest.raises(ValueError, match="completions: 1 of 2 texts have several steps, to begin with 'a"):
        steps_of({"completions": ["a\n\nb", "c"]}, cut)
    with pytest.raises(ValueError, match="no steps: the row has solution; expected one of steps, completions"):
        steps_of({"solution": "a"}, cut)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problem_of({"problem": 7}), "no problem: got 7, expected a text in the column problem or prompt"),
        (lambda: problem_of({"problem": " ", "x": 1}, "problem"), "got ' ', expected a text in the column 'problem'"),
        (lambda: problem_of({"prompt": [{"role": "system", "content": "s"}]}), "no problem: got nothing"),
        (lambda: gold_of({"answer": ["1", "2"]}), "gold answer: got .'1', '2'., expected a text or a number"),
        (lambda: column_of(["a"], "b", ("a",), "thing"), "no column 'b' for the thing; there are a"),
        (lambda: column_of([], None, ("a", "b"), "thing"), "no column a or b for the thing; there are none"),
    ],
)
def test_what_is_not_there_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
