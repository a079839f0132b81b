"""Rollouts past a PRM's context, scored in windows; and a scorer that is shown one part of a completion."""

import math

import naive
import pytest
from prm_checkpoints import implicit, qwen_prm

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.batching import within_context
from rlhf_prm.prm.parts import PartScorer
from rlhf_prm.prm.texts import Rendered
from rlhf_prm.prm.windows import windows
from rlhf_prm.thinking import Thinking

STEPS = [f"Then 3 + {k} = {3 + k}." for k in range(30)]


def render(context: int):
    """A problem of 4 tokens, and a step of as many as it has letters."""

    def rendered(steps: list[str]) -> Rendered:
        ends, at = [], 3
        for step in steps:
            at += len(step)
            ends.append(at)
        return within_context(Rendered(list(range(at + 1)), ends, 4), context)

    return rendered


def test_windows_by_hand():
    """Context 14 less a problem of 4: five steps of 2 tokens; two of them, 4 of 10 tokens, are read again."""
    steps = ["aa"] * 9
    found = windows(render(14), steps, render(14)(steps))
    assert [(one.first, one.skip, list(one.new)) for one in found] == [
        (0, 0, [0, 1, 2, 3, 4]),
        (3, 2, [5, 6, 7]),
        (6, 2, [8]),
    ]


def test_a_step_that_never_fits_is_in_no_window():
    steps = ["aa", "bb", "c" * 50, "d" * 9, "ee"]
    found = windows(render(14), steps, render(14)(steps))
    assert [k for one in found for k in one.new] == [0, 1, 3, 4]
    assert windows(render(14), ["c" * 50], render(14)(["c" * 50])) == []


def test_each_window_has_the_scores_of_its_own_text(tmp_path):
    folder = qwen_prm(tmp_path)
    whole, short = load_prm(folder), load_prm(folder, max_length=160, past_context="window")
    problem = "What is 3 + 4?"
    (scores,) = short.score([problem], [STEPS])
    first = within_context(short.family.rendered(short.texts, problem, STEPS), 160)
    cut = windows(lambda s: within_context(short.family.rendered(short.texts, problem, s), 160), STEPS, first)
    assert len(cut) > 2 and [k for one in cut for k in one.new] == list(range(30))
    for one in cut:
        alone = naive.qwen_prm(folder, problem, STEPS[one.first : one.new.stop])
        assert [scores[k] for k in one.new] == pytest.approx(alone[one.skip :], abs=1e-5)
    assert short.stats.windowed_steps == 30 - len(first.ends) and short.stats.unscored_steps == 0
    (full,) = whole.score([problem], [STEPS])
    assert scores[: len(first.ends)] == pytest.approx(full[: len(first.ends)], abs=1e-5)
    with pytest.warns(UserWarning, match="1 step.s. of 1 rollout.s. lie past"):
        (with_long,) = short.score([problem], [[*STEPS[:3], "9 " * 300, *STEPS[3:]]])
    assert [k for k, score in enumerate(with_long) if math.isnan(score)] == [3]
    with pytest.raises(ValueError, match="past_context='half': expected one of nan, window"):
        load_prm(folder, past_context="half")
    model = implicit(folder / "implicit")
    with pytest.raises(ValueError, match=r"past_context='window': got .*, an implicit PRM, expected 'nan'"):
        load_prm(model, reference=model, past_context="window")


class Recorder:
    """Scores each step by its letters, and keeps what it was shown."""

    stats = "its own"

    def score(self, problems, steps):
        self.shown = list(zip(problems, steps, strict=True))
        return [[len(step) / 10 for step in row] for row in steps]

    def submit(self, problems, steps):
        scores = self.score(problems, steps)
        return type("Pending", (), {"result": lambda _: scores})()


ROLLOUTS = [["<think>ab", "c</think>", "abc"], ["no tags"], ["<think>cut off"]]


@pytest.mark.parametrize(
    ("which", "shown", "expected"),
    [
        ("answer", [("p", ["abc"]), ("q", ["no tags"])], [[None, None, 0.3], [0.7], [None]]),
        ("thinking", [("p", ["ab", "c"]), ("r", ["cut off"])], [[0.2, 0.1, None], [None], [0.7]]),
    ],
)
def test_a_part_by_itself(which, shown, expected):
    inner = Recorder()
    scorer = PartScorer(inner, which, Thinking())
    for scores in (scorer.score(["p", "q", "r"], ROLLOUTS), scorer.submit(["p", "q", "r"], ROLLOUTS).result()):
        assert inner.shown == shown
        assert [[None if math.isnan(score) else score for score in row] for row in scores] == expected
    assert scorer.stats == "its own" and not hasattr(scorer, "update")


def test_a_scorer_of_tokens_has_no_parts():
    with pytest.raises(ValueError, match="prm_reads: got 'answer' for object"):
        PartScorer(object(), "answer", Thinking())
