"""Micro-batches: every rollout once, within the budget, little padding."""

from hypothesis import given, settings, strategies as st

from rlhf_prm.prm.batching import (
    collated,
    common_prefix,
    packed,
    plan,
    token_budget_batches,
    within_context,
    without_prefix,
)
from rlhf_prm.prm.texts import Rendered


@settings(deadline=None)
@given(st.lists(st.integers(1, 2000)), st.integers(1, 5000))
def test_each_once_and_within_the_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_by_hand():
    assert token_budget_batches([10, 40, 20, 39, 5], 80) == [[1, 3], [2, 0, 4]]


def test_collated_by_hand():
    batch = collated([Rendered([5, 6, 7], [1, 2], 1), Rendered([8], [0], 0)], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert (batch.rows.tolist(), batch.columns.tolist(), batch.starts.tolist()) == ([0, 0, 1], [1, 2, 0], [1, 0])


def test_packed_by_hand():
    batch = packed([Rendered([5, 6, 7], [1, 2], 1), Rendered([8, 9], [0, 1], 1)])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]] and batch.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert (batch.rows.tolist(), batch.columns.tolist()) == ([0, 0, 0, 0], [1, 2, 3, 4])


def test_within_context_keeps_whole_steps():
    rendered = Rendered([1, 2, 3, 4, 5, 6], [1, 3, 5], 1)
    assert within_context(rendered, 5) == Rendered([1, 2, 3, 4], [1, 3], 1)
    assert within_context(rendered, 6) == rendered
    assert within_context(rendered, 1) == Rendered([], [], 1)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=5))
@settings(deadline=None)
def test_common_prefix(rows):
    shared = common_prefix(rows)
    assert all(row[: len(shared)] == shared for row in rows)
    longer = {tuple(row[: len(shared) + 1]) for row in rows}
    assert len(longer) > 1 or min(map(len, rows)) == len(shared)


def test_plan_by_hand():
    """Group 0 shares [1, 2, 3] (3 of 13 tokens saved), group 1 shares [7] (1 of 5), group 2 is alone."""
    rendered = [
        Rendered([1, 2, 3, 4, 5], [4], 3),
        Rendered([7, 8], [1], 1),
        Rendered([1, 2, 3, 9, 9, 9, 9, 9], [3, 7], 3),
        Rendered([7, 9, 9], [2], 1),
        Rendered([1, 2, 3], [2], 1),
    ]
    groups = [0, 1, 0, 1, 2]
    units = plan(rendered, groups, budget=100, sharing_from=0.22)
    assert [(unit.prefix, unit.batches) for unit in units] == [([1, 2, 3], [[2, 0]]), ([], [[3, 4, 1]])]
    assert without_prefix(rendered[2], 3) == Rendered([9, 9, 9, 9, 9], [0, 4], 0)
    units = plan(rendered, groups, budget=100, sharing_from=0.0)
    assert [unit.prefix for unit in units] == [[1, 2, 3], [7], []]
    units = plan(rendered, groups, budget=100, sharing_from=float("inf"))
    assert [(unit.prefix, unit.batches) for unit in units] == [([], [[2, 0, 3, 4, 1]])]
    assert plan([], [], 100, 0.0)[0].batches == []
