"""Rubric forms: deltas by hand, what cannot be read, files of rubrics."""

import json
import math

import pytest

from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.judges.load import load_judge
from rlhf_prm.judges.rubrics import GradesForm, RubricForm, RubricItem, read_rubrics, rubric_items
from tests.judges.scripted_judge import Scripted

ITEMS = [
    RubricItem("SUGGEST", "sets up an equation"),
    RubricItem("SUGGEST", "checks the root"),
    RubricItem("PITFALL", "divides by zero"),
    RubricItem("BONUS", "uses symmetry"),
]
STEPS = ["one", "two", "three"]


def answer(*satisfied, items=4):
    """(item, step) of the satisfied ones."""
    steps = dict(satisfied)
    return json.dumps([{"id": n, "satisfied": n in steps, "step": steps.get(n, -1)} for n in range(1, items + 1)])


def deltas(text):
    """The deltas behind the scores: 2.8 p − 1."""
    return [2.8 * score - 1 for score in RubricForm({"p": ITEMS}).scores("p", STEPS, text)]


def same(got, wanted):
    assert got == pytest.approx(wanted, nan_ok=True, abs=1e-9)


def test_deltas_by_hand():
    """Two suggestions share .8, the one pitfall is −1, the one bonus 1; a step at which nothing is met has none."""
    same(deltas(answer((1, 1))), [0.4, math.nan, math.nan])
    same(deltas(answer((1, 1), (2, 1), (3, 3))), [0.8, math.nan, -1.0])
    same(deltas(answer((1, 2), (3, 2), (4, 2))), [math.nan, 0.4, math.nan])
    same(deltas(answer((4, 1), (2, 0))), [1.4, 0.4, 0.4])  # step 0: the whole solution
    same(deltas(answer((1, -1), (2, 9))), [math.nan] * 3)  # at no step, at one that is not there
    same(deltas(answer()), [math.nan] * 3)


def test_scores_span_0_to_1():
    all_bad = RubricForm({"p": ITEMS}).scores("p", ["one"], answer((3, 1)))
    all_good = RubricForm({"p": ITEMS}).scores("p", ["one"], answer((1, 1), (2, 1), (4, 1)))
    assert (all_bad, all_good) == ([0.0], [1.0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would rather not.",
        "Alle Punkte sind erfüllt.",
        answer((1, 1))[:-20],
        answer((1, 1), items=3),
        answer((1, 1), items=5),
        json.dumps([{"id": n, "satisfied": "yes", "step": 1} for n in range(1, 5)]),
        json.dumps([{"id": n, "satisfied": True, "step": 1.5} for n in range(1, 5)]),
        json.dumps({"id": 1}),
        "<think>" + answer(),
    ],
    ids=["empty", "refusal", "language", "cut", "missing", "more", "no bool", "no step", "object", "thoughts"],
)
def test_what_cannot_be_read(text):
    with pytest.raises(UnparseableAnswer):
        RubricForm({"p": ITEMS}).scores("p", STEPS, text)


def test_talk_around_the_json_is_allowed():
    same(deltas(f"<think>[1]</think>Here you are:\n```json\n{answer((1, 1))}\n```"), [0.4, math.nan, math.nan])


def test_the_question_names_the_items_and_leaves_texts_alone():
    ((message),) = RubricForm({"{steps}": ITEMS}).messages("{steps}", ["{items}", "two"])
    text = message["content"]
    assert "3. <PITFALL> divides by zero" in text and "Step 1: {items}\n\nStep 2: two" in text
    assert text.count("{steps}") == 1 and '[{"id": 1' in text


def test_grades_by_hand():
    form = GradesForm(["a", "b"])
    assert form.scores("p", STEPS, 'So: {"1": 1, "2": 0.5}') == [0.75] * 3
    for bad in ('{"1": 1}', '{"1": 1, "2": 0.7}', '{"1": true, "2": 1}', "good", '{"1": 1, "2": 0.5'):
        with pytest.raises(UnparseableAnswer):
            form.scores("p", STEPS, bad)
    with pytest.raises(ValueError, match="criteria: got"):
        GradesForm([])


def test_files_of_rubrics(tmp_path):
    rows = [
        {"problem": "p", "rubric": "<SUGGEST> try x\n<PITFALL> a < b\n<ANSWER> 7"},
        {"rubric": [{"kind": "BONUS", "text": "short"}]},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_rubrics(tmp_path / "r.jsonl")
    assert found["p"] == [RubricItem("SUGGEST", "try x"), RubricItem("PITFALL", "a < b")]
    form = RubricForm(found)
    assert form.items(" p ") == found["p"] and form.items("another") == found[""]
    with pytest.raises(ValueError, match="rubric: none for the problem 'q'"):
        RubricForm({"p": ITEMS}).items("q")
    with pytest.raises(ValueError, match="rubric: got 'HINT'"):
        rubric_items("<HINT> look")
    with pytest.raises(ValueError, match=r"rubric: got \[\]"):
        rubric_items([])
    (tmp_path / "bad.jsonl").write_text('{"problem": "p", "rubric": 3}\n')
    with pytest.raises(ValueError, match=r"bad.jsonl:1: rubric: got 3"):
        read_rubrics(tmp_path / "bad.jsonl")


def test_a_rubric_judge_scores_and_keeps_no_rows(tmp_path):
    script = Scripted(lambda text: [answer((1, 1), items=1), answer((1, 2), items=1)])
    judge = load_judge("m", generator=script, form="rubric", rubric="<SUGGEST> try x", votes=2)
    (row,) = judge.score(["p"], [STEPS])
    same([2.8 * score - 1 for score in row], [0.8, 0.8, math.nan])
    assert not judge.reader.verdicts and judge.rows is None
