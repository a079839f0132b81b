"""What stands between two steps: taken from the policy's separator, unless the user or the family has another mind."""

import warnings

import prm_checkpoints
import pytest
from prm_rollouts import ragged

from rlhf_prm.prm import load_prm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("skywork")
    prm_checkpoints.skywork(path)
    return path


def load(folder, **arguments):
    return load_prm(folder, family="skywork_prm", **arguments)


def test_the_policys_separator_is_read(folder):
    at_lines, told = load(folder), load(folder, between_steps="\n")
    problems, steps = ragged()
    blank = at_lines.score(problems, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at_lines.follow_separator("\n")
    assert at_lines.score(problems, steps) == told.score(problems, steps) != blank


def test_what_the_user_gave_stays_with_a_warning(folder):
    scorer = load(folder, between_steps="\n")
    with pytest.warns(UserWarning, match=r"end at '\\n\\n', but the PRM reads '\\n' between them \(set in load_prm"):
        scorer.follow_separator("\n\n")
    assert scorer.family.between_steps == "\n"


def test_a_separator_at_which_the_prm_cannot_read_is_warned_about(folder):
    scorer = load(folder)
    with pytest.warns(UserWarning, match=r"this PRM reads steps at '\\n'"):
        scorer.follow_separator("; ")
    assert scorer.family.between_steps == "\n\n"


def test_marks_that_a_family_does_not_have_are_refused(folder):
    with pytest.raises(ValueError, match=r"good='\+' has no effect: PRMs of family 'skywork_prm' have none"):
        load(folder, good="+")
    with pytest.raises(ValueError, match=r"between_steps='; ': family 'skywork_prm' reads a step at '\\n'"):
        load(folder, between_steps="; ")
