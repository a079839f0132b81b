"""Step labels for code: mutants that tests kill, by hand and in the toy Python world."""

import json

import pytest

from rlhf_prm.annotate.mutations import Program, code_steps, mutants, mutation_rows, passes
from rlhf_prm.cli import main
from rlhf_prm.step_data import read_rows
from rlhf_prm.toyworld.programs import TEMPLATES, draw_programs

CODE = "def f(x):\n    if x < 3 and x > 0:\n        return x + 1\n    return 0"
TESTS = "assert f(2) == 3\nassert f(3) == 0\nassert f(0) == 0"


def test_statements_are_steps():
    code = "# sum\nimport math\n\ndef f(\n    x,\n):\n    # why\n    y = (x +\n"
    code += "         1)\n    if y:\n        return 1\n    else:\n        return 2\n"
    steps = code_steps(code)
    assert steps == [
        "# sum\nimport math",
        "\ndef f(\n    x,\n):",
        "    # why\n    y = (x +\n         1)",
        "    if y:",
        "        return 1\n    else:",
        "        return 2",
    ]
    assert "\n".join(steps) == code.strip("\n")
    with pytest.raises(ValueError, match="not a Python program: line 1"):
        code_steps("f = = 3")


def test_a_mutant_differs_in_one_place():
    found = {(mutant.line, mutant.kind, mutant.code.split("\n")[mutant.line].strip()) for mutant in mutants(CODE)}
    assert found == {
        (1, "comparison", "if x <= 3 and x > 0:"),
        (1, "comparison", "if x < 3 and x >= 0:"),
        (1, "boolean", "if x < 3 or x > 0:"),
        (1, "number", "if x < 4 and x > 0:"),
        (1, "number", "if x < 3 and x > 1:"),
        (2, "arithmetic", "return x - 1"),
        (2, "number", "return x + 2"),
        (3, "number", "return 1"),
    }
    assert mutants("x = True\ny = 'ä' + 'b'") == []  # no number; bytes and characters differ


def test_a_program_runs_apart_and_not_for_ever():
    assert passes(CODE, TESTS)
    assert not passes(CODE, "assert f(2) == 4")
    assert not passes("while True: pass", "", timeout=0.5)
    assert not passes("x = bytearray(2**31)", "")
    assert passes("import os", "assert 'PYTHONPATH' not in os.environ")


def test_labels_by_hand():
    """f(1) is never tested: the mutant x > 1 of line 1 survives, all others are killed."""
    rows, report = mutation_rows([Program("p", CODE, TESTS)], most=10, timeout=5)
    assert len(rows) == 1 + 7 and rows[0]["labels"] == [True] * 4
    by_change = {tuple(row["completions"]): row["labels"] for row in rows}
    steps = CODE.split("\n")
    assert by_change[tuple([*steps[:2], "        return x - 1", steps[3]])] == [True, True, False, False]
    assert by_change[tuple([*steps[:3], "    return 1"])] == [True, True, True, False]
    assert not any("x > 1:" in step for row in rows for step in row["completions"])
    assert report.table()["all"] == {"mutants": 8, "killed": 7, "share": 7 / 8}
    assert report.table()["number"] == {"mutants": 4, "killed": 3, "share": 0.75}
    assert {row["source"] for row in rows} == {"mutation"}


def test_most_and_seed_and_a_program_that_fails_its_tests():
    programs = [Program("p", CODE, TESTS), Program("bad", CODE, "assert f(2) == 0")]
    rows, report = mutation_rows(programs, most=2, seed=1)
    assert len(rows) == 3 and report.failing == ["bad"]
    assert rows == mutation_rows(programs, most=2, seed=1)[0]


def test_the_toy_python_world_is_right_before_it_is_changed():
    programs = draw_programs(0, len(TEMPLATES))
    assert programs == draw_programs(0, len(TEMPLATES)) != draw_programs(1, len(TEMPLATES))
    rows, report = mutation_rows(programs, most=2, timeout=3)
    assert report.failing == [] and len(rows) == 3 * len(TEMPLATES)
    assert sum(all(row["labels"]) for row in rows) == len(TEMPLATES)


def test_label_mutations_from_the_command_line(tmp_path, capsys):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"problem": "p", "code": CODE, "tests": TESTS.split("\n")}) + "\n")
    report = tmp_path / "report.json"
    arguments = ["label", "mutations", "--output", str(output)]
    assert main([*arguments, "--input", str(source), "--most", "1", "--report", str(report)]) == 0
    assert [row["labels"].count(False) > 0 for row in read_rows(output)] == [False, True]
    assert json.loads(report.read_text())["rows"] == 2 and "killed" in capsys.readouterr().out
    assert main([*arguments, "--toy", "1", "--most", "1"]) == 0
    source.write_text(json.dumps({"problem": "p", "code": "f = = 3", "tests": "x"}) + "\n")
    assert main([*arguments, "--input", str(source)]) == 2
    assert "in.jsonl:1: not a Python program" in capsys.readouterr().err
