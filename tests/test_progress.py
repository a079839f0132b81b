"""Progress: what a log gets, what is counted, and that watching a scorer changes no score."""

import sys

import pytest

from rlhf_prm.progress import Bar, WatchedScorer, parts
from tests.tiny import HashScorer


def test_a_log_gets_a_line_now_and_then_and_no_carriage_returns(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Bar(10, "score", "rollout") as bar:
        bar.skip(2)
        for _ in range(5):
            now[0] += 9.0
            bar.add(lost=1)
    told = capsys.readouterr().err
    assert told == "score: 6 of 10 rollouts in 36 s, 36 s left, lost 1\n"  # 4 in 36 s, and 4 are left


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bar(4, "score") as bar:
        bar.skip()
        bar.add(3, lost=2)
    told = capsys.readouterr().err
    assert "4/4" in told and "lost=2" in told and told.endswith("\n")


def test_parts_cut_no_problem_in_two():
    problems = ["a", "a", "a", "b", "c", "c", "d"]
    assert list(parts(problems, 2)) == [(0, 3), (3, 6), (6, 7)]
    assert list(parts(problems, 100)) == [(0, 7)] and list(parts([], 3)) == []


class Recorder(HashScorer):
    def __init__(self):
        self.calls = []

    def score(self, problems, steps):
        self.calls.append(len(problems))
        return super().score(problems, steps)


def test_a_watched_scorer_gives_the_same_scores_in_parts():
    problems, steps = [f"p{i // 3}" for i in range(10)], [["s"] * (i % 4 + 1) for i in range(10)]
    scorer = Recorder()
    assert WatchedScorer(scorer, "x", part=4).score(problems, steps) == HashScorer().score(problems, steps)
    assert scorer.calls == [6, 4]
    with pytest.raises(ValueError, match="got 10 problems and 9 lists"):
        WatchedScorer(scorer, "x").score(problems, steps[1:])
