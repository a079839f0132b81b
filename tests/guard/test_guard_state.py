"""The guard's parts by themselves: what a checkpoint holds, when accuracy is asked for, which action is taken."""

import json
from dataclasses import asdict, fields

from rlhf_prm.guard.actions import Actions
from rlhf_prm.guard.arbiter import Arbiter
from rlhf_prm.guard.detectors import DETECTORS, TripRule
from rlhf_prm.guard.rules import RULES, Trip, Watch
from rlhf_prm.guard.schedule import Schedule
from rlhf_prm.guard.state import GuardState

SAVED = {  # as a checkpoint of the first edition has it
    "watch": {"first": [{"auroc": 0.8}], "newest": [{"auroc": 0.7}], "process": [0.5, 0.6], "outcome": [0.3, 0.2]},
    "arbiter": {
        **{"problems": 64, "drop": 0.25, "errors": 1.0, "patience": 7},
        **{"start": 0.3, "best": 0.5, "last": 0.4, "kept": 0.45, "waited": 3},
    },
    **{"process_scale": 0.25, "asked": 9, "suspected": 8, "made_up": 5, "rolled_back": 6, "last_good": 4},
    "quiet_until": 12,
}


def test_a_checkpoint_gives_every_field_back():
    state = GuardState.from_json(json.dumps(SAVED))
    assert asdict(state) == SAVED and set(SAVED) == {field.name for field in fields(GuardState)}
    assert isinstance(state.arbiter, Arbiter) and state.arbiter.limit == 0.375  # a quarter below the best
    assert json.loads(state.to_json(state.watch, 0.25, 4)) == SAVED


def test_a_checkpoint_holds_of_the_two_series_what_a_divergence_needs():
    watch = Watch(reference=1, window=2, divergence_window=3)
    for update in range(6):
        watch.observe({"auroc": 0.5}, float(update), 1.0)
    kept = watch.kept()
    assert kept.process == [3.0, 4.0, 5.0] and kept.outcome == [1.0] * 3
    assert len(kept.first) == 1 and len(kept.newest) == 2 and len(watch.memory.process) == 6


def test_which_way_is_worse_is_said_once():
    assert {name: detector.rule for name, detector in DETECTORS.items()} == RULES
    assert {name for name, rule in RULES.items() if rule.worse == "down"} == {"tokens_per_rollout", "auroc"}
    assert TripRule("down", 0.1).sign == -TripRule("up", 0.1).sign == -1.0


def state_of(**changes) -> GuardState:
    arbiter = Arbiter()
    arbiter.begin(0.5)
    return GuardState(Watch().memory, arbiter, **changes)


def test_accuracy_is_asked_for_more_often_under_suspicion_and_not_before_the_window_is_full():
    schedule, state = Schedule(every=2, quiet_every=6), state_of(asked=10)
    assert [u for u in range(11, 18) if schedule.is_due(state, u, suspicious=True)] == [12, 13, 14, 15, 16, 17]
    assert [u for u in range(11, 18) if schedule.is_due(state, u, suspicious=False)] == [16, 17]
    state.quiet_until = 15
    assert [u for u in range(11, 18) if schedule.is_due(state, u, suspicious=True)] == [15, 16, 17]


def test_a_suspicion_that_comes_back_after_a_while_is_another_one():
    schedule, state = Schedule(every=2), state_of(asked=10, suspected=10)
    assert schedule.note(state, 12, suspicious=True) == 2 and (state.asked, state.suspected) == (12, 12)
    assert schedule.note(state, 14, suspicious=False) is None and (state.asked, state.suspected) == (14, 12)
    assert schedule.note(state, 16, suspicious=True) == 4  # 2 · every: still the same
    assert schedule.note(state, 21, suspicious=True) == 0


def test_the_strongest_action_of_those_that_tripped_is_taken():
    actions = Actions("warn", {"auroc": "rollback", "prompt_overlap": "off"})
    trips = {name: Trip(name, 1.0, 0.0, 0.5) for name in ("auroc", "prompt_overlap", "suffix_repetition")}
    assert actions.strongest([trips["prompt_overlap"]], 1.0) == "off"
    assert actions.strongest([trips["prompt_overlap"], trips["suffix_repetition"]], 1.0) == "warn"
    assert actions.strongest(trips.values(), 1.0) == "rollback" and actions.strongest(trips.values(), 0.0) == "warn"
    assert not actions.are_off and Actions("off").are_off
