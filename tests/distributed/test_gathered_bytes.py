"""What two ranks receive of each other in one update, counted in the collectives: numbers of all, texts of a sample."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from gathered_bytes import measured

ROLLOUTS, TOKENS = 16, 512


@pytest.fixture(scope="module")
def cases():
    """All texts, and those of one group of 8, on two ranks of 16 rollouts."""
    return {budget: measured(2, ROLLOUTS, TOKENS, budget) for budget in (0, 8)}


def test_texts_of_a_sample_are_received_and_numbers_of_all(cases):
    every, few = cases[0], cases[8]
    assert (every["rows"], every["texts"]) == (2 * ROLLOUTS, 2 * ROLLOUTS)
    assert (few["rows"], few["texts"]) == (2 * ROLLOUTS, 8)
    tensors = [{who: count for who, count in case["received"].items() if "tensors" in who} for case in (every, few)]
    assert tensors[0] == tensors[1]  # nothing but texts is left out
    for who in ("ours: objects", "TRL: objects"):
        assert few["received"][who] < 0.6 * every["received"][who]


def test_a_rollout_of_512_tokens_is_a_few_hundred_bytes_of_numbers(cases):
    every, few = cases[0], cases[8]
    # A rank sends as much as the one that sends most: one rank has the group with texts, and both are counted as it.
    blank, whole = 2 * (ROLLOUTS - 8), 2 * 8
    text = (every["bytes"] - few["bytes"]) / (2 * ROLLOUTS - whole)
    numbers = (few["bytes"] - whole * text) / (blank + whole)
    assert text > 4 * TOKENS  # some five characters a token, and more than once
    assert 0 < numbers < 600
