"""QualEval's written insight: the table is all the model sees, and numbers it makes up are named."""

import json

import pytest

from rlhf_prm.cli import main
from rlhf_prm.evaluation.insight import unsupported_numbers, written_insight
from tests.evaluation.fakes import ScriptedGenerator
from tests.judges.scripted_judge import JudgeServer, first_bad

TABLE = {
    "Algebra 2": {"accuracy": 0.5, "low": 0.25, "high": 0.75, "samples": 20},
    "geometry": {"accuracy": 0.875, "low": 0.8, "high": 0.934, "samples": 200},
}


def test_the_table_is_the_evidence():
    asked = []

    def script(prompt, draw):
        asked.append(prompt[0]["content"])
        return "<think>0.99?</think>Algebra 2 has 50 % of 20."

    insight = written_insight(ScriptedGenerator(script), TABLE)
    assert "| Algebra 2 | 0.50 | 0.25 to 0.75 | 20 |" in asked[0] and "{" not in asked[0]
    assert (insight.text, insight.evidence, insight.unsupported) == ("Algebra 2 has 50 % of 20.", TABLE, [])
    with pytest.raises(ValueError, match="got no categories"):
        written_insight(ScriptedGenerator(script), {})
    with pytest.raises(ValueError, match="wrote no insight"):
        written_insight(ScriptedGenerator(lambda prompt, draw: " "), TABLE)


@pytest.mark.parametrize(
    ("text", "unsupported"),
    [
        ("0.5, .50 apart; 50% of 20 and 87.5 percent, 88 % or 0.88 of 200, together 220", []),
        ("The 95 % interval ends at 0.93; two of 3 kinds overlap.", []),
        ("It fails in 60 % of 21 cases, at 0.6.", ["60 %", "21", "0.6"]),
        ("0.876", ["0.876"]),
        ("step 13", ["13"]),
    ],
)
def test_numbers_that_are_not_in_the_table_are_found(text, unsupported):
    assert unsupported_numbers(text, TABLE) == unsupported


def test_from_the_command_line(tmp_path, capsys, prm_folder):
    texts = ["good\n\n\\boxed{1}", "bad\n\n\\boxed{2}"]
    rows = [{"problem": f"step {i}", "completions": texts, "solution": "1", "category": "maths"} for i in range(3)]
    samples, out = tmp_path / "s.jsonl", tmp_path / "o.json"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(question, seed):
        return "All is well in 100 % and 33 %." if "kind of problem" in question else first_bad(question)

    verifier = ("--verifier", "tests.evaluation.fakes.BoxVerifier", "--n", "2", "--probe-problems", "1")
    with JudgeServer(answer_to=answer) as server:
        judge = ("--judge", "m", "--judge-endpoint", server.url, "--insight", "w", "--insight-endpoint", server.url)
        assert main(["audit", *judge, "--samples", str(samples), *verifier, "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "w on this table:\nAll is well" in printed and "warning: not in the table: 33 %" in printed
    found = json.loads(out.read_text())["insights"]["judge:m"]
    assert found["unsupported"] == ["33 %"] and found["evidence"]["maths"]["samples"] == 6
    for row in rows:
        del row["category"]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["audit", "--prm", str(prm_folder), "--insight", "w", "--samples", str(samples), *verifier]) == 2
    assert "--insight writes about results by category" in capsys.readouterr().err
