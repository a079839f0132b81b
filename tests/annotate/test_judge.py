"""The judge: its parser on hand-written answers, its prompts, its retries and votes."""

import json
import re
from pathlib import Path

import pytest
from annotate_fakes import ScriptedGenerator

from rlhf_prm.annotate import JudgeSettings, Rejection, judge
from rlhf_prm.annotate.judge import judge_task
from rlhf_prm.generation.requests import Generate
from rlhf_prm.generation.tasks import RejectedRow
from rlhf_prm.judges.forms import FORMS, UnparseableAnswer
from rlhf_prm.judges.votes import Vote, labels_from_votes

OUTPUTS = [json.loads(line) for line in (Path(__file__).parent / "judge_outputs.jsonl").read_text().splitlines()]
STEPS = ["one", "two", "three"]


def paper(first_error, num_steps=3):
    looked_at = num_steps if first_error < 0 else first_error + 1
    analyses = "".join(f"<analysis_{i}>x</analysis_{i}>" for i in range(1, looked_at + 1))
    return f"{analyses}<conclusion>{'Correct' if first_error < 0 else 'Incorrect'}</conclusion>"


@pytest.mark.parametrize("case", OUTPUTS, ids=[case["name"] for case in OUTPUTS])
def test_parser(case):
    parse = FORMS[case["form"]].parse
    if "first_error" in case:
        assert parse(case["answer"], case["num_steps"]) == case["first_error"]
    else:
        with pytest.raises(UnparseableAnswer) as error:
            parse(case["answer"], case["num_steps"])
        assert case["unparseable"] in str(error.value)


def test_there_are_fifty():
    assert len(OUTPUTS) >= 50 and sum("unparseable" in case for case in OUTPUTS) >= 20


@pytest.mark.parametrize(("form", "tags"), [("paper", ["1", "2", "3"]), ("processbench", ["0", "1", "2"])])
def test_prompts_hold_the_problem_and_the_tagged_steps_in_order(form, tags):
    ((message),) = FORMS[form].messages("What is {x}? {paragraphs} {problem}", STEPS)
    text = message["content"]
    assert text.count("What is {x}? {paragraphs} {problem}") == 1
    found = re.findall(r"<paragraph_(\d+)>\n(\w+)\n</paragraph_(\d+)>", text)
    assert found == [(tag, step, tag) for tag, step in zip(tags, STEPS, strict=True)]


def test_labels():
    def script(prompt):
        return [paper(1)] if "bad" in prompt else [paper(-1)]

    wrong, right = judge(["bad", "good"], [STEPS, STEPS], ScriptedGenerator(script))
    assert (wrong.labels, wrong.soft_labels, wrong.source) == ([True, False], [1.0, 0.0], "judge")
    assert right.labels == [True] * 3


def test_unparseable_answers_are_asked_again_with_new_seeds():
    answers = iter(["what?", "<think> hm", paper(2)])
    generator = ScriptedGenerator(lambda _: [next(answers)])
    (labels,) = judge(["p"], [STEPS], generator, settings=JudgeSettings(attempts=3))
    assert labels.first_error == 2
    assert len({seeds[0] for _, _, seeds in generator.calls}) == 3
    (rejected,) = judge(["p"], [STEPS], ScriptedGenerator(lambda _: ["no"]), settings=JudgeSettings(attempts=2))
    assert isinstance(rejected, Rejection) and "2 attempts" in rejected.reason


def test_votes():
    def votes(*errors):
        return [Vote(i, e, 1, []) for i, e in enumerate(errors)]

    labels = labels_from_votes(votes(1, -1, 1, None, 2), 3)
    assert labels.labels == [True, False] and labels.soft_labels == [1.0, 0.5]
    assert labels_from_votes(votes(-1, -1, 0), 3).soft_labels == [2 / 3] * 3
    with pytest.raises(RejectedRow, match=re.escape("tied votes {-1: 1, 2: 1}")):
        labels_from_votes(votes(-1, 2, None), 3)


def test_votes_are_asked_for_one_by_one_and_known_ones_not_again():
    answers = iter([paper(-1), paper(0), paper(0)])
    generator = ScriptedGenerator(lambda _: [next(answers)])
    (labels,) = judge(["p"], [STEPS], generator, settings=JudgeSettings(votes=3))
    assert labels.first_error == 0 and len(generator.calls) == 3
    task = judge_task("k", "p", STEPS, JudgeSettings(votes=2), known=[Vote(0, 1, 1, [])])
    assert isinstance(next(task), Generate)
    emitted = task.send([paper(1)])
    assert emitted.record == {"vote": 1, "first_error": 1, "attempts": 1, "unparseable": []}


def test_settings_say_what_is_wrong():
    with pytest.raises(ValueError, match="unknown judge form 'essay'"):
        JudgeSettings(form="essay")
    with pytest.raises(ValueError, match="votes: got 0"):
        JudgeSettings(votes=0)
