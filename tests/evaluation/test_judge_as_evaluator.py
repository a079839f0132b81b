"""A judge as evaluator: first errors written into samples, and best-of-n by shares of right steps or by a knock-out."""

import json
import math
import re

import pytest

from rlhf_prm.cli import main
from rlhf_prm.evaluation.first_errors import first_error_known, process_by_answer
from rlhf_prm.evaluation.judge_best_of_n import JudgeChoice, judge_best_of_n
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.generation.drivers import run_batched
from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.judges.load import load_judge
from rlhf_prm.judges.pairwise import knockout, pair_messages, read_letter
from tests.judges.scripted_judge import JudgeServer, Scripted, first_bad

PAIR = re.compile(r"<solution_[AB]>\n(.*?)\n</solution_[AB]>", re.DOTALL)
BOX = ("--verifier", "tests.evaluation.fakes.BoxVerifier")


def fewer_bad(question):
    """Answers about single solutions as ``first_bad``; of two solutions the one with fewer "bad" steps wins."""
    if pair := PAIR.findall(question):
        bad = [text.count("bad") for text in pair]
        return f"so \\boxed{{{'A' if bad[0] <= bad[1] else 'B'}}}"
    return first_bad(question)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_what_is_known_of_a_first_error():
    nan = math.nan
    assert first_error_known([0.9, 0.9]) == -1
    assert first_error_known([0.9, 0.2, nan]) == 1
    assert first_error_known([0.9, nan, 0.2]) is None  # the step without a score may be the first wrong one
    assert first_error_known([0.9, nan]) is None
    assert first_error_known([]) is None


def test_right_answers_by_a_wrong_process_are_counted():
    samples = [
        SampledProblem("p", [["a"]] * 4, [True, True, False, True], [None] * 4, None, [-1, 0, 0, None], "algebra"),
        SampledProblem("q", [["a"]] * 2, [True, False], [None] * 2, None, [0, -1], "geometry"),
    ]
    counted = process_by_answer(samples)
    assert list(counted) == ["algebra", "geometry", "all"]
    found = counted["all"]
    assert (found["solutions"], found["known"], found["right_answers"]) == (6, 5, 3)
    assert found["wrong_process"] == pytest.approx(2 / 3) and found["low"] < 2 / 3 < found["high"]
    assert found["error_found"] == 0.5
    assert math.isnan(process_by_answer([])["all"]["wrong_process"])


def test_first_errors_are_written_into_the_samples_and_asked_once(tmp_path, capsys):
    rows = [
        {"problem": "p", "completions": ["a\n\nbad\n\n\\boxed{1}", "a\n\n\\boxed{1}"], "solution": "1", "note": "kept"},
        {"problem": "q", "completions": ["bad\n\n\\boxed{2}", "mute\n\n\\boxed{1}"], "solution": "1"},
        {"problem": "r", "completions": ["a", "b"], "solution": "?", "first_errors": [None, 0]},
    ]
    samples, labelled, out = write(tmp_path / "s.jsonl", rows), tmp_path / "l.jsonl", tmp_path / "r.json"
    with JudgeServer(answer_to=lambda q, seed: "no" if "mute" in q else first_bad(q)) as server:
        judge = ("--judge", "m", "--endpoint", server.url)
        files = ("--samples", samples, "--labelled", labelled, "--output", out)
        assert run("first_errors", *judge, *files, *BOX) == 0
        assert len(server.bodies) == 6  # five unknown solutions, the mute one twice
    written = [json.loads(line) for line in labelled.read_text().splitlines()]
    assert [row["first_errors"] for row in written] == [[1, -1], [0, None], [-1, 0]]
    assert written[0]["note"] == "kept"
    assert "1 of 3 problems are not counted" in capsys.readouterr().out
    found = json.loads(out.read_text())["results"]["all"]
    assert (found["solutions"], found["known"], found["right_answers"], found["wrong_process"]) == (4, 3, 2, 0.5)
    assert run("first_errors", "--judge", "m", "--samples", samples, "--labelled", samples) == 2
    assert "is the file of samples" in capsys.readouterr().err


def held(solutions, answer, seed=0):
    asked = Scripted(answer)
    ((_, result),) = run_batched([(0, knockout("p", solutions, seed))], asked)
    return result, asked


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_knockout_finds_the_best_in_one_question_less_than_solutions(size, seed):
    solutions = ["bad " * (size - index) for index in range(size)]
    result, asked = held(solutions, lambda text: fewer_bad, seed)
    assert (result.winner, result.asked, result.unreadable) == (size - 1, size - 1, 0)
    assert len(asked.asked) == size - 1


def test_no_place_has_an_advantage_and_equal_texts_are_not_asked_about():
    first = [held(["x", "y"], lambda text: "\\boxed{A}", seed)[0].winner for seed in range(40)]
    assert 8 < sum(first) < 32
    result, asked = held(["x", "x"], lambda text: "\\boxed{A}")
    assert (result.winner, result.asked, asked.asked) == (0, 0, [])
    result, asked = held(["x", "y"], lambda text: "neither")
    assert (result.asked, result.unreadable, len(asked.asked)) == (1, 1, 2)


def test_the_letter_and_the_question():
    assert read_letter("A is wrong \\boxed{A} no: \\boxed{\\text{B}}") == 1
    assert read_letter("<think>\\boxed{B}</think>\\boxed{ A }") == 0
    with pytest.raises(UnparseableAnswer):
        read_letter("\\boxed{C}")
    ((message,),) = (pair_messages("p {first}", "one {second}", "two"),)
    assert "p {first}" in message["content"] and PAIR.findall(message["content"]) == ["one {second}", "two"]


def test_best_of_n_by_hand():
    """Two problems: the judge's favourite is right in one of them whatever the way; a third sample is left out."""
    samples = [
        SampledProblem("p", [["bad", "x"], ["a", "x"]], [False, True], ["2", "1"]),
        SampledProblem("q", [["a", "x"], ["a", "bad"]], [False, True], ["2", "1"]),
    ]
    judge = load_judge("m", generator=Scripted(lambda text: fewer_bad), behind_error="wrong")
    found = judge_best_of_n(judge, samples, JudgeChoice(n=2))
    assert {name: row["mean"] for name, row in found.items()} == {
        "mean@1": 0.5, "pass@2": 1.0, "maj@2": 0.5, "pointwise@2": 0.5, "pairwise@2": 0.5,
    }  # fmt: skip
    assert (found["pointwise@2"]["questions"], found["pairwise@2"]["questions"]) == (4, 2)
    with pytest.raises(ValueError, match="best of 3 needs 3 samples"):
        judge_best_of_n(judge, samples, JudgeChoice(n=3))
    spent = load_judge("m", generator=Scripted(lambda text: fewer_bad), budget_calls=1)
    with pytest.raises(ValueError, match="budget is spent"):
        judge_best_of_n(spent, samples, JudgeChoice(n=2, ways=("pairwise",)))


def test_judge_best_of_n_from_the_command_line(tmp_path, capsys):
    texts = ["bad\n\n\\boxed{2}", "good\n\n\\boxed{1}", "bad\n\nbad\n\n\\boxed{3}"]
    samples = write(tmp_path / "s.jsonl", [{"problem": "p", "completions": texts, "solution": "1"}])
    with JudgeServer(answer_to=lambda question, seed: fewer_bad(question)) as server:
        judge = ("--judge", "m", "--endpoint", server.url)
        assert run("judge_best_of_n", *judge, "--samples", samples, "--n", 3, *BOX) == 0
        assert len(server.bodies) == 3 + 2
    printed = capsys.readouterr().out
    assert re.search(r"pairwise@3 +1\.000", printed) and re.search(r"pointwise@3 +1\.000", printed)
    assert run("judge_best_of_n", "--prm", "x", "--samples", samples) == 2
    assert "expected --judge MODEL" in capsys.readouterr().err
    assert run("judge_best_of_n", "--judge", "m", "--samples", samples) == 2
    assert "row 1 has 3 samples" in capsys.readouterr().err


def test_a_student_of_small_questions_is_a_prm_by_its_prefix(prm_folder, tmp_path):
    from rlhf_prm.evaluation.processbench import load_processbench, processbench
    from rlhf_prm.judges.decomposed import DecomposedScorer
    from rlhf_prm.prm import load_prm

    rows = [{"problem": f"step {k}", "steps": ["good 1", "bad 2", "good"], "label": 1} for k in range(4)]
    write(tmp_path / "gsm8k.jsonl", rows)
    out = tmp_path / "o.json"
    assert run("processbench", "--prm", f"decomposed:{prm_folder}", "--data", tmp_path, "--output", out) == 0
    expected = processbench(DecomposedScorer(load_prm(prm_folder)), load_processbench(tmp_path))
    assert json.loads(out.read_text())["results"] == expected
