"""The table of methods in docs/methods.md is the one generated from the docstrings."""

import runpy
from pathlib import Path

import pytest

from reward import METHODS
from reward.methods.table import baseline_bias, baselines_table, methods_table, sections

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "made"), [("methods", methods_table), ("baselines", baselines_table)])
def test_the_docs_page_holds_the_generated_tables(name, made):
    _, _, after = (ROOT / "docs" / "methods.md").read_text().partition(f"<!-- {name} -->\n")
    table, marker, _ = after.partition(f"\n<!-- /{name} -->")
    assert marker, f"docs/methods.md lacks the markers <!-- {name} --> and <!-- /{name} -->"
    assert table == made(), "run `python -m reward.methods` and put its output between the markers"


def test_every_method_has_a_row_with_four_filled_cells():
    rows = methods_table().splitlines()[2:]
    assert len(rows) == len(METHODS)
    for row, name in zip(rows, METHODS, strict=True):
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 4 and all(cells) and cells[0].startswith(f"`{name}`")


def test_the_command_prints_the_table(capsys):
    runpy.run_module("reward.methods", run_name="__main__")
    assert capsys.readouterr().out.strip() == f"{methods_table()}\n\n{baselines_table()}"


def test_a_docstring_without_its_paragraphs_is_refused():
    def bare(rollouts):
        """Formula: A = 0"""

    with pytest.raises(
        ValueError, match="bare: its docstring has no paragraph Use when, Known failure, Baseline, Source"
    ):
        sections(bare)


def test_a_baseline_of_no_known_kind_is_refused():
    def vague(rollouts):
        """Formula: A = 0

        Use when: never

        Known failure: all

        Baseline: it depends.

        Source: none
        """

    with pytest.raises(ValueError, match=r"vague: got the Baseline 'it depends\.', expected one of unaffected"):
        baseline_bias(vague)
