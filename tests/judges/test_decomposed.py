"""Small questions about each paragraph: asked, read, brought together, and made into a student's rows."""

import json
import math
import re

import pytest

from rlhf_prm.cli import main
from rlhf_prm.judges.decomposed import (
    ASPECTS,
    MARKS,
    DecomposedScorer,
    aspect_messages,
    decomposed_verdicts,
    read_aspect,
    step_score,
    student_rows,
    together_row,
)
from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.judges.load import load_judge
from tests.judges.scripted_judge import STEP, JudgeServer, Scripted

NAN = math.nan


def says(question):
    """A step that names an aspect is wrong in it; one that says "mute:" and an aspect is not answered."""
    step = STEP.findall(question)[-1]
    aspect = next(name for name, text in ASPECTS.items() if text in question)
    if f"mute:{aspect}" in step:
        return "hm"
    return f"\\boxed{{{'incorrect' if re.search(rf'(?<!:){aspect}', step) else 'correct'}}}"


def judge():
    return load_judge("m", generator=Scripted(lambda text: says), form="decomposed", attempts=1)


def test_a_step_is_wrong_if_one_answer_says_so():
    assert step_score({"a": 1.0, "b": 1.0}) == 1.0
    assert step_score({"a": NAN, "b": 0.0}) == 0.0
    assert math.isnan(step_score({"a": NAN, "b": 1.0}))
    assert read_aspect("<think>\\boxed{incorrect}</think> \\boxed{\\text{Correct}}") == 1.0
    with pytest.raises(UnparseableAnswer):
        read_aspect("correct")


def test_the_question_shows_the_paragraphs_so_far_and_asks_about_the_last():
    ((message,),) = (aspect_messages("p {number}", ["a {question}", "b"], "givens"),)
    text = message["content"]
    assert "p {number}" in text and STEP.findall(text) == ["a {question}", "b"]
    assert "Judge paragraph 2" in text and ASPECTS["givens"] in text and ASPECTS["inference"] not in text
    assert "\\boxed{correct} or \\boxed{incorrect}" in text


def test_scores_stop_at_the_first_wrong_step():
    scorer = judge()
    found = scorer.score(["p", "p", "p"], [["a", "givens", "inference"], ["a", "mute:inference", "b"], ["a"]])
    assert found[0][:2] == [1.0, 0.0] and math.isnan(found[0][2])
    assert found[1][0] == found[1][2] == 1.0 and math.isnan(found[1][1])
    assert found[2] == [1.0]
    assert len(scorer.generator.asked) == 6 + 9 + 3 and scorer.stats.judge_calls == 18


def test_verdicts_become_a_row_for_each_question():
    (verdicts,) = decomposed_verdicts(judge(), ["p"], [["a", "calculation givens", "c"]], attempts=1)
    assert [list(verdict.values()) for verdict in verdicts] == [[1, 1, 1], [0, 1, 0]]
    rows = student_rows("p", ["a", "calculation givens", "c"], verdicts)
    assert [row["labels"] for row in rows] == [[True, False], [True, True], [True, False]]
    assert [row["prompt"] for row in rows] == [mark + "p" for mark in MARKS.values()]
    assert {tuple(row["completions"]) for row in rows} == {("a", "calculation givens")}
    (verdicts,) = decomposed_verdicts(judge(), ["p"], [["a", "mute:givens"]], attempts=1)
    assert [row["completions"] for row in student_rows("p", ["a", "mute:givens"], verdicts)] == [
        ["a", "mute:givens"], ["a", "mute:givens"], ["a"],
    ]  # fmt: skip
    (row,) = together_row("p", ["a", "mute:givens"], verdicts)
    assert (row["completions"], row["labels"]) == (["a"], [True])
    assert together_row("p", ["a"], [{"calculation": NAN, "inference": 1.0}]) == []
    with pytest.raises(ValueError, match="the budget of m is spent before all 2"):
        spent = load_judge("m", generator=Scripted(lambda text: says), budget_calls=4)
        decomposed_verdicts(spent, ["p", "q"], [["a"], ["a"]])


def test_a_student_scores_by_its_lowest_answer():
    class Marked:
        def score(self, problems, steps):
            table = {"calculation": [0.9, 0.4], "inference": [0.7, 0.8], "givens": [0.8, NAN]}
            told = {MARKS[name]: row for name, row in table.items()}
            return [told[problem[:-1]][: len(row)] for problem, row in zip(problems, steps, strict=True)]

    ((first, second), (only,)) = DecomposedScorer(Marked()).score(["p", "q"], [["a", "b"], ["a"]])
    assert (first, only) == (0.7, 0.7) and math.isnan(second)
    assert DecomposedScorer(Marked()).score([], []) == []


def test_label_decomposed_from_the_command_line(tmp_path, capsys):
    source, output, verdicts = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "verdicts.jsonl"))
    source.write_text(json.dumps({"problem": "p", "response": "a\n\ngivens\n\nb"}) + "\n")
    with JudgeServer(answer_to=lambda question, seed: says(question)) as server:
        judge = ("--judge", "m", "--endpoint", server.url, "--input", str(source))
        files = ("--output", str(output), "--verdicts", str(verdicts))
        assert main(["label", "decomposed", *judge, *files]) == 0
        assert len(server.bodies) == 6
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["labels"] for row in rows] == [[True, True], [True, True], [True, False]]
    (told,) = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert told["step_scores"] == [1.0, 0.0] and told["answers"][1]["givens"] == 0.0
    assert "calculation 0, inference 0, givens 1" in capsys.readouterr().out
    with JudgeServer(answer_to=lambda question, seed: says(question)) as server:
        judge = ("--judge", "m", "--endpoint", server.url, "--input", str(source), "--together")
        assert main(["label", "decomposed", *judge, "--output", str(output)]) == 0
    (row,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (row["prompt"], row["completions"], row["labels"]) == ("p", ["a", "givens"], [True, False])
    source.write_text(json.dumps({"problem": "p"}) + "\n")
    assert main(["label", "decomposed", "--judge", "m", "--input", str(source), "--output", str(output)]) == 2
    assert "in.jsonl:1: no steps" in capsys.readouterr().err
