"""The PRM measured on the run's own first rollouts: by hand, and in a training run."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest

from rlhf_prm.rl.rollout_scoring import ScoredRollout
from rlhf_prm.runs.prm_check import PRMCheck, verified_groups
from tests.tiny import DigitVerifier, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

STATE = SimpleNamespace(global_step=0, is_world_process_zero=True)


def rollout(right, scores, step="step", tokens=2):
    reward = None if right is None else float(right)
    status = {None: "unlabelled", True: "correct", False: "incorrect"}[right]
    return ScoredRollout("p", "text", [step] * len(scores), [tokens] * len(scores), scores, reward, status)


def batch(rows, group=2, mode="train"):
    return SimpleNamespace(rows=rows, rollouts=SimpleNamespace(num_generations=group), mode=mode)


def checked(batches, group=2, start=0, **settings):
    """The callback after these batches, one per update, and what it logged."""
    trainer = SimpleNamespace(num_generations=group, last_rollouts=None, _metrics={"train": defaultdict(list)})
    check = PRMCheck(trainer, **settings)
    state = SimpleNamespace(global_step=start, is_world_process_zero=True)
    check.on_train_begin(None, state, None)
    for trainer.last_rollouts in batches:
        check.on_step_end(None, state, None)
    return check, trainer._metrics["train"]["prm/auroc_within"]


# In each group one right and one wrong rollout; the lowest score decides.
KNOWS = [rollout(True, [0.9, 0.8]), rollout(False, [0.95, 0.1])]
MISLEADS = [rollout(True, [0.9, 0.1]), rollout(False, [0.9, 0.8])]
SAME = [rollout(True, [0.7]), rollout(False, [0.7])]
ALL_RIGHT = [rollout(True, [0.9]), rollout(True, [0.1])]


def test_groups_of_verified_rollouts_by_hand():
    rows = [*KNOWS, rollout(None, [0.5]), *SAME, rollout(None, [0.2])]
    (first,) = verified_groups(rows, 3)[:1]
    assert first.correct == [True, False] and first.step_scores == [[0.9, 0.8], [0.95, 0.1]]
    assert first.steps == [["step", "step"]] * 2
    # One verified rollout has nobody to be compared with.
    assert verified_groups([rollout(True, [0.9]), rollout(None, [0.5])], 2) == []
    assert verified_groups([rollout(None, [0.9]), rollout(None, [0.5])], 2) == []


def test_empty_rollouts_are_left_out_and_those_without_their_text_are_not():
    """A PRM that knows nothing but that an empty completion is bad would pass for one that ranks."""
    at_once, blank = rollout(False, [0.1], step="", tokens=1), rollout(False, [0.1], step=" \n", tokens=3)
    [group] = verified_groups([*SAME, at_once, blank], 4)
    assert group.correct == [True, False] and group.step_scores == [[0.7], [0.7]]
    assert verified_groups([rollout(True, [0.9]), at_once], 2) == []
    check, logged = checked([batch([*SAME, at_once, blank] * 8, group=4)], group=4, enough=16)
    assert logged == [0.5] and check.warning  # 0.83 with them
    told = [row.without_text() for row in KNOWS]
    assert verified_groups(told, 2)[0].step_scores == verified_groups(KNOWS, 2)[0].step_scores
    assert checked([batch(told * 8)], enough=16)[1] == [1.0]


def test_a_prm_that_knows_gives_a_number_and_no_warning(capsys):
    check, logged = checked([batch(KNOWS * 8)] * 1, enough=16)
    assert logged == [1.0] and check.warning is None and capsys.readouterr().out == ""


@pytest.mark.parametrize(("rows", "number", "said"), [(MISLEADS, 0.0, "worse than chance"), (SAME, 0.5, "no better")])
def test_a_prm_that_does_not_gives_a_warning_once_that_names_the_number(rows, number, said, capsys):
    batches = [batch(rows * 8) for _ in range(3)]
    check, logged = checked(batches, enough=16)
    assert logged == [number]
    printed = capsys.readouterr().out
    assert printed == f"warning: {check.warning}\n" and said in printed and "over 8 problems" in printed
    assert f"AUROC within groups {number:.3f}" in printed.replace(" .", " 0.") and "method=outcome" in printed


def test_it_waits_for_enough_mixed_groups():
    batches = [batch(rows) for rows in (ALL_RIGHT * 20, KNOWS * 3, KNOWS * 4)]
    assert checked(batches[:2], enough=8)[1] == []
    assert checked(batches, enough=8)[1] == [1.0]


def test_without_mixed_groups_it_says_so_in_the_end(capsys):
    check, logged = checked([batch(ALL_RIGHT * 8)] * 1, enough=8, at_most=16)
    assert logged == [] and "no group holds a scored right and a scored wrong answer" in check.warning


def test_what_is_not_measured(capsys):
    assert checked([batch(MISLEADS * 8, mode="eval")], enough=8)[1] == []  # rollouts of an evaluation
    assert checked([batch(MISLEADS * 8)], start=3, enough=8)[1] == []  # a run that goes on
    assert checked([batch(MISLEADS * 8, group=1)], group=1, enough=8)[1] == []  # nobody to compare with
    assert checked([batch([rollout(None, [0.5])] * 16)], enough=8, at_most=8)[1] == []  # nothing is verified
    assert checked([batch(MISLEADS)] * 9, enough=8)[1] == []  # one batch that serves nine updates
    assert capsys.readouterr().out == ""


def test_every_rank_logs_and_one_prints(capsys):
    trainer = SimpleNamespace(num_generations=2, last_rollouts=batch(SAME * 8), _metrics={"train": defaultdict(list)})
    check, other = PRMCheck(trainer, enough=16), SimpleNamespace(global_step=0, is_world_process_zero=False)
    check.on_train_begin(None, other, None)
    check.on_step_end(None, other, None)
    assert check.warning and trainer._metrics["train"]["prm/auroc_within"] == [0.5] and capsys.readouterr().out == ""


class KnownDigit:
    """``right`` for all steps where the gold digit, the problem's first, occurs; else ``wrong``."""

    def __init__(self, right, wrong):
        self.scores = {True: right, False: wrong}

    def score(self, problems, steps):
        return [
            [self.scores[problem.split()[0] in "".join(row)]] * len(row)
            for problem, row in zip(problems, steps, strict=True)
        ]


@pytest.mark.parametrize(
    ("right", "wrong", "number", "warns"), [(0.9, 0.1, 1.0, False), (0.1, 0.9, 0.0, True), (0.5, 0.5, 0.5, True)]
)
def test_in_a_training_run(tmp_path, capsys, right, wrong, number, warns):
    from rlhf_prm.rl.grpo import ProcessGRPOTrainer

    check = PRMCheck(enough=24)
    check.trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, method="immediate", max_steps=8),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=KnownDigit(right, wrong),
        verifier=DigitVerifier(),
        callbacks=[check],
    )
    check.trainer.train()
    logged = [log["prm/auroc_within"] for log in check.trainer.state.log_history if "prm/auroc_within" in log]
    assert logged == [pytest.approx(number)]
    assert capsys.readouterr().out.count("on the policy's own rollouts") == warns
    assert not math.isnan(logged[0])
