"""Finding and comparing answers: hand-written pairs, labelled cases, and the cheap layer against the others."""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from reward import MathVerifier
from reward.verifier.answers.extract import MAX_TEXT, final_answer, gold_answer
from reward.verifier.answers.judge import judge
from reward.verifier.answers.quick import quick_status

HERE = Path(__file__).parent


def pairs(name):
    lines = (HERE / name).read_text().splitlines()[1:]
    return [tuple(line.split(" | ", 1)) for line in lines]


def statuses(name):
    found = {}
    for gold, answer in pairs(name):
        extracted = final_answer(f"So it is $\\boxed{{{answer}}}$.").text
        found[gold, answer] = judge(extracted, gold_answer(gold)) if extracted else "no_answer"
    return found


def test_the_same_answer_in_other_words():
    found = statuses("same_answers.txt")
    assert len(found) > 500
    assert [pair for pair, status in found.items() if status != "correct"] == []


def test_another_answer():
    found = statuses("other_answers.txt")
    assert len(found) > 400
    assert [pair for pair, status in found.items() if status == "correct"] == []


@pytest.fixture(scope="module")
def cases():
    return [json.loads(line) for line in (HERE / "data" / "verifier_cases.jsonl").read_text().splitlines()]


def test_labelled_cases(cases):
    wrong = Counter()
    for case in cases:
        answer = final_answer(case["completion"]).text
        accepted = answer is not None and judge(answer, gold_answer(case["gold"])) == "correct"
        if accepted != case["expected"]:
            wrong["false positive" if accepted else "false negative"] += 1
    assert len(cases) == 492 and wrong.total() == 0


def test_cheap_comparison_never_changes_a_verdict(cases):
    decided = 0
    golds = sorted({gold_answer(case["gold"]) for case in cases})
    for case in cases:
        answer = final_answer(case["completion"]).text
        for gold in {gold_answer(case["gold"]), *golds[::20]}:
            quick = answer and quick_status(answer, gold)
            if quick is not None:
                decided += 1
                assert quick == judge(answer, gold), (answer, gold)
    assert decided > 500


def test_a_gold_solution_agrees_with_its_answer(shared_data):
    rows = [json.loads(line) for line in (shared_data / "math500.jsonl").read_text().splitlines()]
    statuses = Counter(judge(final_answer(row["solution"]).text, row["answer"]) for row in rows)
    assert statuses == {"correct": 500}


def test_real_model_outputs_are_graded_as_their_authors_did(shared_data):
    lines = (shared_data / "gsm8k_example_model_solutions.jsonl").read_text().splitlines()
    graded = Counter()
    for row in map(json.loads, lines[::4]):
        gold = gold_answer(row["ground_truth"])
        outputs = [ast.literal_eval(v) if isinstance(v, str) else v for key, v in row.items() if "b_" in key]
        for output in outputs:
            answer = final_answer(output["solution"]).text
            right = answer is not None and judge(answer, gold) == "correct"
            graded[right == output["is_correct"]] += 1
    assert graded == {True: 1320}


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} \quad", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{x = \boxed{3}}", r"x = \boxed{3}"),
        (r"\boxed 7", "7"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1} but \boxed{2", None),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxedtimes{1}", None),
        ("so\n#### 1,234\n", "1,234"),
        ("The final answer is: $5$. I hope it is correct.", "$5$"),
        ("The answer is 3.5 apples. Really.", "3.5 apples"),
        ("**Answer:** 12", "12"),
        ("x = 5", None),
        ("", None),
    ],
)
def test_where_the_answer_is(completion, answer):
    assert final_answer(completion).text == answer


def test_long_texts_are_cut_and_say_so():
    text = "x " * MAX_TEXT + r"\boxed{1}"
    assert final_answer(text).text == "1" and final_answer(text).cut
    assert final_answer(r"\boxed{1}" + " " * MAX_TEXT).text is None
    assert not final_answer(r"\boxed{1}").cut


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        ("7", "7"),
        ("$7$", "$7$"),
        (r"we get \boxed{7}", "7"),
        ("2+5=<<2+5=7>>7\n#### 7", "7"),
        ("2+5=<<2+5=7>>7\nA: 7", "7"),
        ("word " * 200 + "The answer is: $7$", "$7$"),
        ("\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}"),
        ("", None),
        (None, None),
        ("???", None),
        ("∞", "∞"),
        (r"\boxed{7", None),
        ("word " * 200, None),
    ],
)
def test_golds(solution, gold):
    assert gold_answer(solution) == gold


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>perhaps \boxed{4}", None),
        (r"<think>perhaps \boxed{4} or the answer is 5", None),
        (r"<think>perhaps \boxed{4}</think> So \boxed{5}", "5"),
        (r"<think>perhaps \boxed{4}</think> So the answer is 5.", "5"),
        (r"<think>perhaps \boxed{4}</think> I do not know", None),
        (r"perhaps \boxed{4}</think> So \boxed{5}", "5"),  # the prompt ended in <think>
        (r"perhaps \boxed{4}</think>", None),
        (r"<think>\boxed{1}</think> \boxed{2} <think> wait: \boxed{3}", None),
        (r"<think>\boxed{1}</think> so <think>\boxed{2}</think> \boxed{3}", "3"),
        (r"<think></think>\boxed{3}", "3"),
        (r"<THINK> \boxed{3}", None),
        (r"<thinking> \boxed{3}", None),
        (r"<reasoning>\boxed{3}</reasoning> \boxed{4}", "4"),
        (r"we think \boxed{3} of it", "3"),
    ],
)
def test_what_is_only_thought_is_no_answer(completion, answer):
    assert final_answer(completion).text == answer


def test_where_the_prompt_opens_the_thought():
    assert final_answer(r"perhaps \boxed{4}", in_thought=True).text is None
    assert final_answer(r"perhaps \boxed{4}</think> \boxed{5}", in_thought=True).text == "5"
    with MathVerifier(workers=1, in_thought=True) as verifier:
        verdicts = verifier.verify([r"perhaps \boxed{4}", r"hm</think> \boxed{4}"], ["4", "4"])
    assert [verdict.status for verdict in verdicts] == ["no_answer", "correct"]


def test_a_thought_that_began_before_the_part_that_is_read():
    thought = "<think>" + "so x " * MAX_TEXT
    assert final_answer(thought + r"\boxed{1}").text is None
    assert final_answer(thought + r"</think>\boxed{1}").text == "1"


def test_a_gold_solution_keeps_what_it_says():
    assert gold_answer(r"<think>hm</think> \boxed{2}") == "2"
