"""A rollout in turns and steps: by hand."""

import copy
import json
import math
import pickle
from types import SimpleNamespace

import pytest
import torch

from rlhf_prm.rl.environments import EnvironmentReports, Reported
from rlhf_prm.rl.policy_tokens import compacted, in_front, policy_tokens, scattered
from rlhf_prm.rl.rollout_scoring import RolloutScoring, step_rollouts
from rlhf_prm.rl.turn_scores import TurnScores, turn_scores
from rlhf_prm.rl.turns import Told, cut_rollout, num_turns, told_by_messages, told_by_trl
from rlhf_prm.steps import StepSplitter, ToolResult, step_lengths
from tests.tiny import WORDS, DigitVerifier, HashScorer, tiny_tokenizer

NAN = math.nan


def ids(text: str) -> list[int]:
    return [{"|": WORDS.index("\n\n"), "$": WORDS.index("<eos>")}.get(c) or WORDS.index(f" {c}") for c in text]


def cut(text: str, mask: str, splitter=None, **told):
    return cut_rollout(
        ids(text), tiny_tokenizer(), splitter or StepSplitter(), Told([int(m) for m in mask] or None, **told)
    )


def test_steps_lie_within_turns():
    #           turn 0 | result | turn 1: two steps, the end of the text counts to the last
    rollout = cut("a|b7=c|d$", "111001111")
    assert rollout.turns == [" a\n\n b", " c\n\n d"]
    assert rollout.steps == ["a", "b", "c", "d"]
    assert rollout.lengths == [2, 1, 2, 2]  # of the policy's seven tokens
    assert rollout.turn_of_step == [0, 0, 1, 1]
    assert rollout.results == [(1, "7 =")] and rollout.results_after_steps == [(2, "7 =")]
    assert rollout.answer == " c\n\n d" and rollout.text == " a\n\n b\n\n c\n\n d"
    assert rollout.shown_steps == ["a", "b", "Tool result:\n7 =", "c", "d"]
    assert [isinstance(step, ToolResult) for step in rollout.shown_steps] == [False, False, True, False, False]
    assert rollout.shown_turns == [" a\n\n b", "Tool result:\n7 =", " c\n\n d"]


def test_a_result_that_is_copied_or_sent_is_the_same():
    result = ToolResult("7")
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert again == result == "Tool result:\n7" and isinstance(again, ToolResult)
    assert json.dumps(result) == '"Tool result:\\n7"'


def test_a_step_does_not_go_on_past_a_result():
    """Without a separator anywhere the result still ends the step."""
    assert cut("ab7cd", "11011").lengths == [2, 2]
    assert cut("ab7cd", "11111").lengths == [5]


def test_separators_in_a_result_end_no_step():
    rollout = cut("a||b", "1001")
    assert rollout.steps == ["a", "b"] and rollout.lengths == [1, 1]


@pytest.mark.parametrize("text", ["a|b|c$", "abc", "", "$", "|a"])
def test_without_others_tokens_it_is_the_steps_of_today(text):
    rollout = cut(text, "")
    assert (rollout.steps, rollout.lengths) == step_lengths(ids(text), tiny_tokenizer(), StepSplitter())
    assert rollout.text == rollout.answer == tiny_tokenizer().decode(ids(text), skip_special_tokens=True)
    assert rollout.shown_steps is rollout.steps and rollout.turn_of_step == [0] * len(rollout.steps)
    assert cut(text, "1" * len(text)) == rollout


def test_a_result_before_the_first_turn_after_the_last_and_in_place_of_all():
    first = cut("7ab", "011")
    assert first.results == [(0, "7")] and first.shown_steps == [ToolResult("7"), "a b"]
    last = cut("ab7", "110")
    assert last.results == [(1, "7")] and last.answer == " a b" and last.lengths == [2]
    alone = cut("77", "00")
    assert alone.steps == [""] and alone.lengths == [0] and alone.answer == ""
    assert num_turns(ids("77"), [0, 0]) == 1 and num_turns(ids("a7a"), [1, 0, 1]) == 2


def test_the_unit_turn_makes_one_step_of_each():
    rollout = cut("a|b7c|d", "1110111", StepSplitter(pattern="(?!)"))
    assert rollout.steps == ["a\n\n b", "c\n\n d"] and rollout.lengths == [3, 3] and rollout.turn_of_step == [0, 1]


@pytest.mark.parametrize(
    ("mask", "message"), [([1, 0], "got 2 values.*for 3 tokens"), ([1, 2, 0], r"got 3 values \[0, 1, 2\]")]
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(ValueError, match=f"env_mask: {message}"):
        cut_rollout(ids("abc"), tiny_tokenizer(), StepSplitter(), Told(mask))


def test_one_text_for_each_result():
    assert cut("a7b", "101", results=["seven"]).results == [(1, "seven")]
    with pytest.raises(ValueError, match="tool results: got 2 texts, expected one for each of the 1 runs"):
        cut("a7b", "101", results=["seven", "eight"])


CALL = {"type": "function", "function": {"name": "add", "arguments": {}}}


def test_messages_tell_results_and_the_answer():
    called = {"role": "assistant", "content": "so", "tool_calls": [CALL]}
    said = [{"role": "tool", "name": "add", "content": "7"}, {"role": "tool", "name": "add", "content": "8"}]
    told = told_by_messages([1, 0, 1], [called, *said, {"role": "assistant", "content": "7"}])
    assert told == Told([1, 0, 1], ["7\n8"], None)
    # It ended with a call: what it called with is no answer. The result comes last where no room was left behind it.
    assert told_by_messages([1], [called]).answer == "so"
    assert told_by_messages([1, 0], [called, *said]) == Told([1, 0], ["7\n8"], "so")


def test_what_trl_gives():
    assert told_by_trl(None, ["x", "y"], 2, with_tools=False) == [Told(), Told()]
    assert told_by_trl([[1, 0]], ["x"], 1, with_tools=False) == [Told([1, 0])]
    assert told_by_trl([[1]], [[{"role": "assistant", "content": "x"}]], 1, with_tools=True) == [Told([1], [])]


# Compaction


def test_values_move_together_and_back():
    mask = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    values = torch.tensor([[1.0, 2, 9, 9, 3, 9], [9, 4, 5, 6, 9, 9], [9.0] * 6])
    front = torch.tensor([[1.0, 2, 3, 0, 0, 0], [4, 5, 6, 0, 0, 0], [0.0] * 6])
    assert torch.equal(compacted(values, mask), front)
    assert torch.equal(in_front(mask), front > 0)
    assert torch.equal(scattered(front, mask), torch.where(mask, values, 0))


def test_a_contiguous_mask_moves_nothing():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    values = torch.randn(2, 4)
    for moved in (compacted, scattered):
        assert torch.equal(moved(values, mask), torch.where(mask, values, 0))


def test_tokens_that_count():
    inputs = {"completion_mask": torch.tensor([[1, 1, 1, 0]]), "tool_mask": torch.tensor([[1, 0, 1, 1]])}
    assert policy_tokens(inputs).tolist() == [[True, False, True, False]]
    del inputs["tool_mask"]
    assert policy_tokens(inputs).tolist() == [[True, True, True, False]]


# What environments report


class Counter:
    """Pays for each call of its tool; knows the state at its start and after every call."""

    def __init__(self):
        self.paid, self.states = [], ["start"]

    def turn_rewards(self):
        return list(self.paid)

    def state_keys(self):
        return list(self.states)

    def add(self, reward):
        self.paid.append(reward)
        self.states.append(f"after {len(self.paid)}")


def test_rewards_belong_to_the_turn_they_came_in():
    counter, quiet = Counter(), object()
    reports = EnvironmentReports([counter, quiet])
    reports.before_turn()
    counter.add(0.5)
    reports.before_turn()  # the turn in between called a tool that there is not
    reports.before_turn()
    counter.add(0.2)
    counter.add(0.4)
    reports.before_turn()
    counter.add(NAN)  # and then it ended
    told, nothing = reports.of_rollouts([4, 1])
    assert told.rewards[:1] == [0.5] and math.isnan(told.rewards[1]) and math.isnan(told.rewards[3])
    assert told.rewards[2] == pytest.approx(0.3)
    assert told.keys == ["start", "after 1", "after 1", "after 3"]
    assert nothing == Reported(None, None)


def test_a_turn_without_room_for_its_result_keeps_its_reward():
    counter = Counter()
    reports = EnvironmentReports([counter])
    reports.before_turn()
    counter.add(0.5)
    reports.before_turn()
    counter.add(0.25)  # TRL drops the result, and the rollout ends with this turn
    reports.before_turn()  # of another rollout
    assert reports.of_rollouts([2]) == [Reported([0.5, 0.25], ["start", "after 1"])]


def test_rewards_must_be_numbers():
    counter = Counter()
    counter.add("0.5")
    reports = EnvironmentReports([counter])
    reports.before_turn()
    with pytest.raises(ValueError, match=r"Counter.turn_rewards: got .*expected numbers"):
        reports.of_rollouts([1])


# Scores of turns


@pytest.mark.parametrize(
    ("rule", "merged"),
    [
        ("replace", [0.4, 0.4, 0.9, 0.3]),
        ("last", [0.2, 0.4, 0.9, 0.3]),
        ("mean", [0.3, 0.5, 0.9, 0.3]),
        ("min", [0.2, 0.4, 0.9, 0.3]),
    ],
)
def test_rules_by_hand(rule, merged):
    """Turn 0 has 0.4; nothing is said of turn 1."""
    scores = TurnScores("environment", rule).merged([0.2, 0.6, 0.9, 0.3], [0, 0, 1, 1], [0.4, NAN])
    assert scores == pytest.approx(merged)


def test_steps_without_a_score():
    assert math.isnan(TurnScores("environment", "mean").merged([NAN], [0], [0.4])[0])
    assert math.isnan(TurnScores("environment", "min").merged([NAN], [0], [0.4])[0])
    assert TurnScores("environment", "replace").merged([NAN], [0], [0.4]) == [0.4]


def test_a_range_becomes_probabilities():
    scores = TurnScores("environment", low=-1.0, high=1.0)
    rollout = cut("a7b7c", "10101")
    assert scores.of_turns([""], [rollout], [Reported([-1.0, 0.5, 1.0])]) == [[0.0, 0.75, 1.0]]
    with pytest.raises(ValueError, match=r"turn scores: got 1.5, expected between -1 and 1; turn_range"):
        scores.of_turns([""], [rollout], [Reported([1.5, 0.0, 0.0])])
    with pytest.raises(ValueError, match="turn scores: got 2 for 3 turns"):
        scores.of_turns([""], [rollout], [Reported([0.0, 0.0])])


def test_a_scorer_and_a_function_read_turns_with_the_results_between():
    seen = []

    def judge(problems, turns):
        seen.append((problems, turns))
        return [[0.25, 0.99, 0.75] for _ in turns]

    class Judge:
        score = staticmethod(judge)

    for source in (judge, Judge()):
        assert TurnScores(source).of_turns(["p"], [cut("a|b7c", "11101")], [Reported()]) == [[0.25, 0.75]]
    assert seen[0] == seen[1] == (["p"], [[" a\n\n b", ToolResult("7"), " c"]])
    with pytest.raises(ValueError, match=r"turn_scorer: got \[3\] scores, expected one per step: \[1\]"):
        TurnScores(judge).of_turns(["p"], [cut("a", "1")], [Reported()])


def test_what_is_no_scorer_is_refused():
    args = SimpleNamespace(reads_tokens_only=False, turn_scores=None, turn_rule="replace", turn_range=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"turn_scorer: got 3, expected score\(problems, turns\)"):
        turn_scores(args, 3, True, [])


# Scoring


class Recorder(HashScorer):
    def score(self, problems, steps):
        self.read = steps
        return super().score(problems, steps)


def scored(scorer, *, told, reports=None, turn_scores=None, text="a|b7c"):
    scoring = RolloutScoring(StepSplitter(), tiny_tokenizer(), scorer, DigitVerifier(), turn_scores)
    return scoring(["p"], ["p"], ["7"], [ids(text)], told=[told], reports=reports)[0]


def test_the_prm_reads_results_as_context_and_the_verifier_the_last_turn():
    """The 7 is the tool's: it is in what the PRM reads, and the verifier does not see it."""
    scorer, told = Recorder(), Told([1, 1, 1, 0, 1])
    row = scored(scorer, told=told)
    assert scorer.read == [["a", "b", ToolResult("7"), "c"]]
    every = HashScorer().score(["p"], scorer.read)[0]
    assert row.scores == [every[0], every[1], every[3]]  # c is scored behind the result
    assert row.status == "incorrect" and scored(scorer, told=Told()).status == "correct"
    assert row.steps == ["a", "b", "c"] and row.lengths == [2, 1, 1] and row.tool_results == [(2, "7")]


def test_states_stand_at_the_first_step_of_a_turn():
    rows = [
        scored(HashScorer(), told=Told([1, 1, 1, 0, 1]), reports=[Reported(None, ["start", "seven"])]),
        scored(HashScorer(), told=Told(), reports=[Reported(None, ["start"])], text="a|b"),
        scored(HashScorer(), told=Told(), reports=[Reported(None, [None])], text="a"),
    ]
    rollouts = step_rollouts(rows * 2, torch.zeros(6), 2)
    assert rollouts.state_keys.tolist()[:3] == [[0, -1, 1], [0, -1, -1], [-1, -1, -1]]
    assert step_rollouts([scored(HashScorer(), told=Told())] * 2, torch.zeros(2), 2).state_keys is None


def test_turn_scores_are_merged_into_those_of_steps():
    turns = TurnScores("environment", "replace")
    row = scored(HashScorer(), told=Told([1, 1, 1, 0, 1]), reports=[Reported([0.5, NAN], None)], turn_scores=turns)
    plain = scored(HashScorer(), told=Told([1, 1, 1, 0, 1]))
    assert row.scores == [0.5, 0.5, plain.scores[2]] and row.turn_scores[0] == 0.5


def test_turn_scores_alone():
    """No PRM: a step that its turn says nothing of carries the last score on."""
    turns = TurnScores("environment", "last")
    row = scored(None, told=Told([1, 1, 1, 0, 1]), reports=[Reported([0.25, NAN], None)], turn_scores=turns)
    rollouts = step_rollouts([row, row], torch.zeros(2), 2)
    assert rollouts.scored.tolist() == [[False, True, False]] * 2
    assert rollouts.step_scores.tolist() == [[0.25, 0.25, 0.25]] * 2


def test_labels_are_not_asked_for_a_rollout_with_results():
    assert scored(HashScorer(), told=Told()).fresh.steps == ("a", "b 7 c")
    with pytest.raises(ValueError, match="labels of steps: got a rollout with tool results"):
        _ = scored(HashScorer(), told=Told([1, 1, 1, 0, 1])).fresh
