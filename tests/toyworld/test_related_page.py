"""The tables of ``benchmarks/related.py``: means over builds, written between the marks of the page."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import related_page

from rlhf_prm.files import read_json_lines

ROOT = Path(__file__).parents[2]


def f1(value: float) -> dict:
    return {"error_accuracy": value, "correct_accuracy": value, "f1": value}


def test_a_line_names_the_builds_that_have_it():
    rows = [
        {"study": "decomposed", "build": 2, "results": {"teacher, at once": f1(0.4), "student, at once": f1(0.1)}},
        {"study": "decomposed", "build": 1, "results": {"teacher, at once": f1(0.2)}},
    ]
    lines = related_page.tables(rows)["decomposed"].splitlines()
    # mean .3, standard error |.4 − .2| / 2 = .1
    assert lines[2] == "| teacher, at once | 1, 2 | 0.300 ± 0.100 | 0.300 ± 0.100 | 0.300 ± 0.100 |"
    assert lines[3] == "| student, at once | 2 | 0.100 | 0.100 | 0.100 |"


def test_the_last_run_counts_and_one_without_students_keeps_them():
    first = {"study": "decomposed", "build": 1, "results": {"teacher, at once": f1(0.2), "student, at once": f1(0.1)}}
    again = {"study": "decomposed", "build": 1, "results": {"teacher, at once": f1(0.6)}}
    (row,) = related_page.latest([first, again])
    assert row["results"] == {"teacher, at once": f1(0.6), "student, at once": f1(0.1)}


def test_a_table_replaces_what_stood_between_its_marks():
    rows = [{"study": "decomposed", "build": 1, "results": {"teacher, at once": f1(0.25)}}]
    page = "a\n<!-- decomposed: x -->\nold\n\nold\n<!-- end of decomposed -->\nb\n"
    told = related_page.filled(page, rows)
    assert told.startswith("a\n<!-- decomposed: x -->\n| | builds |") and "old" not in told
    assert told.endswith("| 0.250 |\n<!-- end of decomposed -->\nb\n") and related_page.filled(told, rows) == told
    with pytest.raises(ValueError, match="got 0 places for the table of decomposed"):
        related_page.filled("nothing", rows)


def test_the_page_is_what_the_results_say():
    page = (ROOT / "docs" / "related_work.md").read_text()
    assert related_page.filled(page, read_json_lines(ROOT / "benchmarks" / "results" / "related.jsonl")) == page
