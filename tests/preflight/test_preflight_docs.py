"""docs/preflight.md says of every line what the page says, and names what is there."""

from pathlib import Path

import pytest

from rlhf_prm.preflight.verdict import RULE
from rlhf_prm.preflight.wording import SECTIONS, WORDINGS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "preflight.md").read_text()


@pytest.mark.parametrize("line", WORDINGS.values(), ids=WORDINGS)
def test_every_line_is_explained_as_on_the_page(line):
    assert f"| {line.title} | {line.meaning} |" in PAGE and line.meaning


def test_every_section_is_there_and_provisional_limits_are_called_so():
    assert all(f"### {title}\n" in PAGE for title in SECTIONS)
    assert ("provisional" in RULE.origin) == ("provisional" in PAGE)
