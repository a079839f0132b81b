"""``--judge MODEL`` and ``--prm judge:MODEL`` in the commands: a scripted server in place of the model."""

import json
import re

import pytest

from rlhf_prm.cli import main
from tests.judges.scripted_judge import STEP, JudgeServer, first_bad, paper

KEYWORDS = '{"votes": 2, "timeout": 5, "deadline": 20}'


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def processbench_folder(folder):
    rows = [
        {"problem": "p1", "steps": ["a", "bad", "c"], "label": 1},
        {"problem": "p2", "steps": ["a", "bad"], "label": 0},
        {"problem": "p3", "steps": ["a", "b"], "label": -1},
        {"problem": "p4", "steps": ["mute", "b"], "label": -1},
    ]
    write(folder / "gsm8k.jsonl", rows)
    return folder


def unless_mute(question, seed):
    return "I would rather not say." if "mute" in question else first_bad(question)


def test_processbench_f1_of_a_judge(tmp_path, capsys):
    """Finds 1 of 2 errors, says 1 of 2 right ones are right (of the other it says nothing): F1 ½."""
    out = tmp_path / "results.json"
    with JudgeServer(answer_to=unless_mute) as server:
        arguments = ("--judge", "m", "--endpoint", server.url, "--data", processbench_folder(tmp_path), "--output", out)
        assert run("evaluate", "processbench", *arguments, "--prm-kwargs", KEYWORDS) == 0
        assert len(server.bodies) == 4 * 2 + 2  # the mute one is asked again for each vote
    found = json.loads(out.read_text())
    assert found["prm"] == "judge:m"
    gsm8k = found["results"]["gsm8k"]
    assert (gsm8k["error_accuracy"], gsm8k["correct_accuracy"], gsm8k["f1"]) == (0.5, 0.5, 0.5)
    assert (gsm8k["samples"], gsm8k["unscorable"]) == (4, 1)


MR_BEN = {"Subject": "s", "Model_Solution_Correctness": "correct"}


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        (
            "mr_ben",
            [
                {"Question": "p", "Model_Solution_Steps": ["a"], **MR_BEN},
                {"Question": "q", "Model_Solution_Steps": ["mute"], **MR_BEN},
                {
                    "Question": "r", "Model_Solution_Steps": ["bad"], **MR_BEN,
                    "Model_Solution_Correctness": "incorrect", "Model_Solution_First_Error_Step": "1",
                },
            ],
            {"mcc": 0.5, "acc_step": 1.0},  # TP 1, TN 1, FN 1, FP 0: 1/√(1·2·1·2)
        ),
        (
            "prmbench",
            [
                {"modified_question": "p", "modified_process": ["a", "bad"], "error_steps": [2], "classification": "c"},
                {"modified_question": "q", "modified_process": ["mute", "b"], "error_steps": [], "classification": "c"},
            ],
            {"accuracy": 0.5, "f1_right": 0.5, "f1_wrong": 0.5},
        ),
        (
            "rmb",
            [
                {"prompt": "p", "winner": "a", "losers": ["bad"]},
                {"prompt": "p", "winner": "b", "losers": ["mute"]},
            ],
            {"accuracy": 0.5},
        ),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_missed_and_reported(name, rows, expected, tmp_path):
    data, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "results.json"
    with JudgeServer(answer_to=unless_mute) as server:
        judge = ("--judge", "m", "--endpoint", server.url, "--prm-kwargs", KEYWORDS)
        assert run("evaluate", name, *judge, "--data", data, "--output", out) == 0
    found = json.loads(out.read_text())["results"]["all"]
    assert {key: found[key] for key in expected} == pytest.approx(expected) and found["unscorable"] == 1


def test_best_of_n_by_a_judge(tmp_path, capsys):
    texts = ["good\n\n\\boxed{1}", "bad\n\n\\boxed{2}"]
    samples = write(tmp_path / "samples.jsonl", [{"problem": "p", "completions": texts, "solution": "1"}])
    with JudgeServer() as server:
        judged = ("--prm", "judge:m", "--prm_kwargs", json.dumps({"endpoint": server.url}), "--samples", samples)
        verifier = ("--verifier", "tests.evaluation.fakes.BoxVerifier", "--n", 2)
        assert run("evaluate", "best_of_n", *judged, *verifier) == 0
    printed = capsys.readouterr().out
    for rule in ("mean@2", "min@2", "last@2", "product@2"):
        assert re.search(rf"^{rule} +1.000", printed, re.MULTILINE), printed


def test_scores_of_a_file_by_a_judge(tmp_path, capsys):
    rows = [{"problem": "p", "steps": ["a", "bad", "c"]}, {"problem": "q", "steps": ["mute"]}]
    path = write(tmp_path / "rows.jsonl", rows)
    with JudgeServer(answer_to=unless_mute) as server:
        keywords = json.dumps({"endpoint": server.url})
        assert run("score", "--prm", "judge:m", "--input", path, "--prm-kwargs", keywords) == 0
    scored = [json.loads(line) for line in (tmp_path / "rows.scored.jsonl").read_text().splitlines()]
    assert [row["step_scores"] for row in scored] == [[1.0, 0.0, 0.0], [None]]
    assert "3 questions to the judge" in capsys.readouterr().out


def test_the_settings_of_a_prm_do_nothing_for_a_judge(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", [{"problem": "p", "steps": ["a"]}])
    assert run("score", "--prm", "judge:m", "--input", path, "--score-scale", 2) == 2
    assert "--score-scale 2.0 has no effect on judge:m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prm", "x", "--judge", "m"), "got --prm x and --judge m, expected one of them"),
        ((), "--prm is needed: a PRM's folder or Hub name, or --judge MODEL"),
        (("--prm", "x", "--endpoint", "http://h/v1"), "--judge-endpoint needs --judge"),
        (("--judge", "m", "--prm-kwargs", '{"vote": 3}'), "--prm judge:m: a judge has no keyword 'vote'"),
        (("--judge", "m", "--family", "qwen_prm"), "--family qwen_prm has no effect on judge:m"),
        (("--judge", "m", "--endpoint", "http://127.0.0.1:9/v1"), "no endpoint of 'm' can be reached"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert run("evaluate", "processbench", *arguments, "--data", processbench_folder(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_json_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("evaluate", "processbench", "--judge", "m", "--prm-kwargs", "votes=3", "--data", tmp_path)
    assert "expected a JSON object such as" in capsys.readouterr().err


def test_preflight_of_a_judge(tmp_path):
    samples = [
        {"problem": f"p{i}", "completions": ["a\n\n\\boxed{1}", "bad\n\n\\boxed{2}"], "solution": "1"} for i in range(4)
    ]
    path = write(tmp_path / "samples.jsonl", samples)
    page = tmp_path / "page.html"
    with JudgeServer() as server:
        judged = ("--judge", "m", "--judge-endpoint", server.url, "--prm-kwargs", KEYWORDS)
        verifier = ("--verifier", "tests.evaluation.fakes.BoxVerifier", "--probe-problems", 0)
        assert run("preflight", *judged, "--samples", path, *verifier, "--n", 2, "--output", page) == 0
    assert "judge:m" in page.read_text()


def test_prompts_on_the_real_processbench_files(shared_data):
    """Each form's question holds each step once, and an answer about it is read, on real problems and steps."""
    from rlhf_prm.evaluation.processbench import load_processbench
    from rlhf_prm.judges.forms import FORMS

    items = [item for subset in load_processbench(shared_data).values() for item in subset[:50]]
    assert len(items) >= 100
    for item in items:
        for name, form in FORMS.items():
            ((message,),) = (form.messages(item.problem, item.steps),)
            assert item.problem in message["content"]
            assert STEP.findall(message["content"]) == item.steps, name
            listed = "\n".join(f"{n}: correct" for n in range(1, len(item.steps) + 1))
            answers = {
                "paper": paper(-1, len(item.steps)),
                "processbench": "It holds: \\boxed{-1}",
                "verdicts": f"<verdicts>\n{listed}\n</verdicts>",
            }
            assert form.scores(item.problem, item.steps, answers[name]) == [1.0] * len(item.steps)
