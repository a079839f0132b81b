"""The whole MR-Score: an examiner and a grader whose every answer is known."""

import json

import pytest

from rlhf_prm.cli import main
from rlhf_prm.evaluation.mr_ben import MRBenItem, load_mr_ben
from rlhf_prm.evaluation.mr_ben_reasons import Examined, graded_mr_ben, read_decision, read_examined
from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.judges.load import load_judge
from tests.judges.scripted_judge import JudgeServer, Scripted


def verdict(correct="incorrect", step="Step 2", reason="it is bad"):
    return f"Solution Analysis: …\nSolution Correctness: {correct}\nFirst Error Step: {step}\nError Reason: {reason}"


def test_an_examination_is_read_strictly():
    assert read_examined(verdict(), 3) == Examined(1, "it is bad")
    assert read_examined(verdict("correct", "N/A", "N/A"), 3) == Examined(-1, "")
    bold = "**Solution Correctness:** incorrect\n**First Error Step:** 3\n**Error Reason:** two\nlines"
    assert read_examined(bold, 3) == Examined(2, "two\nlines")
    for answer in ("so it is", verdict(step="Step 4"), verdict(step="N/A"), verdict("partly")):
        with pytest.raises(UnparseableAnswer):
            read_examined(answer, 3)
    assert read_decision("1. …\nFinal Decision: Correct") and not read_decision("**Final Decision:** Wrong")
    with pytest.raises(UnparseableAnswer):
        read_decision("Final Decision: incorrect")


ITEMS = [
    MRBenItem("q0", ["a", "b"], -1, "maths"),
    MRBenItem("q1", ["a", "bad"], 1, "maths", ("bad is bad",), ("good",)),  # step and reason right
    MRBenItem("q2", ["a", "bad"], 1, "maths", ("other",)),  # step right, reason wrong
    MRBenItem("q3", ["bad", "bad"], 0, "logic", ("bad is bad",)),  # another step named
    MRBenItem("q4", ["a"], -1, "logic"),  # cannot be read: a miss
]


def examiner(question):
    if "q4" in question:
        return "hm"
    return verdict() if "bad" in question else verdict("correct", "N/A", "N/A")


def grader(question):
    return f"Final Decision: {'Correct' if 'bad is bad' in question else 'Wrong'}"


def test_the_mr_score_by_hand():
    judge = load_judge("m", generator=Scripted(lambda text: examiner))
    asked = Scripted(lambda text: grader)
    found = graded_mr_ben(judge, load_judge("g", generator=asked), ITEMS)
    # maths: MCC 1, both steps, one reason of two: .2 + .3 + .25; logic: TP 0, TN 1, FP 0, FN 1: MCC 0, nothing else
    maths = {"mcc": 1.0, "acc_step": 1.0, "acc_reason": 0.5, "mr_score": pytest.approx(0.75)}
    assert found["maths"] == maths | {"samples": 3, "unreadable": 0, "ungraded": 0}
    assert (found["logic"]["mr_score"], found["logic"]["unreadable"], found["logic"]["acc_step"]) == (0.0, 1, 0.0)
    # all: TP 1, TN 3, FP 0, FN 1: MCC 3/√(1·2·3·4) = .612; steps 2/3, reasons 1/3
    assert found["all"]["mr_score"] == pytest.approx(0.2 * 3 / 24**0.5 + 0.3 * 2 / 3 + 0.5 / 3)
    assert found["mean"] == {"mr_score": pytest.approx(0.375)}
    assert len(asked.asked) == 2  # reasons are graded where the step is right, and only there
    (first, _) = asked.asked[0]
    assert "- bad is bad" in first and "- good" in first and "it is bad" in first and "{" not in first
    silent = graded_mr_ben(judge, load_judge("g", generator=Scripted(lambda text: "well")), ITEMS[:3])
    assert (silent["all"]["ungraded"], silent["all"]["acc_reason"]) == (2, 0.0)


def test_a_budget_that_does_not_last_is_said():
    judge = load_judge("m", generator=Scripted(lambda text: examiner), budget_calls=2)
    with pytest.raises(ValueError, match="the budget of m is spent before all 5"):
        graded_mr_ben(judge, judge, ITEMS)


def row(item):
    found = {"Question": item.problem, "Subject": item.subject, "Model_Solution_Steps": item.steps}
    found["Model_Solution_Correctness"] = "correct" if item.label < 0 else "incorrect"
    found["Model_Solution_First_Error_Step"] = "N/A" if item.label < 0 else str(item.label + 1)
    return found | {"Model_Solution_Error_Reason": list(item.reasons) or "N/A"}


def test_from_the_command_line_on_the_published_layout(tmp_path, capsys):
    path = tmp_path / "math.json"
    path.write_text(json.dumps({"uuid-1": [row(ITEMS[0]), row(ITEMS[1])], "uuid-2": [row(ITEMS[2])]}))
    assert [item.reasons for item in load_mr_ben(path)] == [(), ("bad is bad",), ("other",)]
    with (
        JudgeServer(answer_to=lambda question, seed: examiner(question)) as server,
        JudgeServer(answer_to=lambda question, seed: grader(question)) as other,
    ):
        judge = ("--judge", "m", "--endpoint", server.url, "--grader", "g", "--grader-endpoint", other.url)
        assert main(["evaluate", "mr_ben", *judge, "--data", str(path)]) == 0
        assert (len(server.bodies), len(other.bodies)) == (3, 2)
    assert "0.750" in capsys.readouterr().out
    assert main(["evaluate", "mr_ben", "--prm", "x", "--grader", "g", "--data", str(path)]) == 2
    assert "gives none: use --judge MODEL" in capsys.readouterr().err
    path.write_text(json.dumps({"uuid-1": [{"Question": "q"}]}))
    with pytest.raises(ValueError, match=r"math\.json, uuid-1: Model_Solution_Steps: got nothing"):
        load_mr_ben(path)


def test_every_wrong_solution_of_the_real_file_has_reasons(shared_data):
    items = load_mr_ben(shared_data / "mrben_math.jsonl")
    wrong = [item for item in items if item.label >= 0]
    assert len(wrong) == 769 and all(item.reasons and item.corrections for item in wrong)
