"""Steps merged to a limit, and thinking cut from the answer."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from rlhf_prm.merged_steps import RULES
from rlhf_prm.steps import StepSplitter, step_lengths
from rlhf_prm.thinking import Thinking
from tests.tiny_models import byte_level_tokenizer

TEXT = "the sum of these numbers must be divided by their product before we compare it with that remainder"
WORDS = TEXT.split()
TURNS = ["Wait,", "Alternatively,", "So", "But", "Let me check"]


def paragraphs(count: int, draw: random.Random) -> list[str]:
    return [
        (draw.choice(TURNS) + " " if draw.random() < 0.3 else "It is: ")
        + " ".join(draw.choices(WORDS, k=draw.randint(1, 40)))
        for _ in range(count)
    ]


def test_the_shortest_neighbours_are_merged_first_by_hand():
    """Lengths 20, 2, 2, 30 of content: first the two short ones, then these with the 20."""
    text = "a" * 20 + "\n\n" + "bb" + "\n\n" + "cc" + "\n\n" + "d" * 30
    assert StepSplitter(limit=4).split(text) == StepSplitter().split(text)
    assert StepSplitter(limit=3).split(text) == ["a" * 20, "bb\n\ncc", "d" * 30]
    assert StepSplitter(limit=2).split(text) == ["a" * 20 + "\n\nbb\n\ncc", "d" * 30]
    assert StepSplitter(limit=1).split(text) == [text]


def test_turns_of_the_reasoning_are_kept_by_hand():
    text = (
        "It is 1.\n\nWait, no.\n\nIt is 2 for a reason that takes long to write down.\n\nIt is 3, which takes as long."
    )
    assert StepSplitter(limit=2, merge="breaks").split(text)[1].startswith("Wait, no.")
    assert StepSplitter(limit=3, merge="length").split(text)[0] == "It is 1.\n\nWait, no."


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), limit=st.integers(1, 30))
def test_merged_steps_are_unions_of_the_plain_ones(rule, seed, count, limit):
    text = "\n\n".join(paragraphs(count, random.Random(seed)))
    plain, fewer = StepSplitter().spans(text), StepSplitter(limit=limit, merge=rule).spans(text)
    assert len(fewer) == min(limit, len(plain))
    assert {end for _, end in fewer} <= {end for _, end in plain}
    assert "".join(text[start:end] for start, end in fewer) == text


@pytest.mark.parametrize("rule", RULES)
def test_an_edit_moves_few_boundaries(rule):
    """One word put into one of 300 paragraphs: on the average one in 50 of the 63 boundaries is elsewhere."""
    draw, splitter, moved = random.Random(1), StepSplitter(limit=64, merge=rule), []
    for _ in range(40):
        parts = paragraphs(300, draw)
        edited = parts[:]
        place = draw.randrange(300)
        edited[place] += " " + draw.choice(WORDS)
        before, after = (
            {len(StepSplitter().spans(text[:end])) for _, end in splitter.spans(text)}
            for text in ("\n\n".join(parts), "\n\n".join(edited))
        )
        moved.append(len(before ^ after) / 2)
    assert sum(moved) / len(moved) < 63 / 50 and max(moved) <= 6


def test_a_limit_makes_even_steps():
    text = "\n\n".join(paragraphs(400, random.Random(0)))
    sizes = [end - start for start, end in StepSplitter(limit=50).spans(text)]
    assert max(sizes) < 4 * len(text) / 50


def test_thinking_and_answer_are_cut_apart():
    splitter = StepSplitter(thinking=Thinking())
    text = "<think>\nFirst.\n\nWait.</think> The answer\n\nis 3."
    assert splitter.split(text) == ["<think>\nFirst.", "Wait.</think>", "The answer", "is 3."]
    assert Thinking().is_answer(splitter.split(text)) == [False, False, True, True]
    assert StepSplitter(thinking=Thinking(), limit=2).split(text) == [
        "<think>\nFirst.\n\nWait.</think>",
        "The answer\n\nis 3.",
    ]
    assert StepSplitter(thinking=Thinking()).split("<think>a</think>\n\n") == ["<think>a</think>"]
    assert StepSplitter().split(text)[1].startswith("Wait.</think> The")


def test_what_has_no_end_is_thinking_where_it_was_begun():
    assert Thinking().part("<think> so 3", "answer") == ""
    assert Thinking().part("so 3", "answer") == "so 3"
    assert (
        Thinking(opened=True).part("so 3", "answer") == "" and Thinking(opened=True).part("so 3", "thinking") == "so 3"
    )
    assert Thinking(opened=True).part("so </think> 3", "answer") == "3"
    assert Thinking().is_answer(["a", "b"]) == [True, True] and Thinking(opened=True).is_answer(["a"]) == [False]


def test_tokens_of_a_cut_between_thinking_and_answer():
    tokenizer = byte_level_tokenizer(["a b c"], ["<eos>"], 300, eos_token="<eos>", pad_token="<eos>")
    tokenizer.add_tokens(["<think>", "</think>"])
    ids = tokenizer("<think>a</think>\n\nb")["input_ids"]
    texts, lengths = step_lengths([*ids, tokenizer.eos_token_id], tokenizer, StepSplitter(thinking=Thinking()))
    assert texts == ["<think>a</think>", "b"] and lengths == [5, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "step limit: got 0, expected 1"),
        ({"limit": 1, "thinking": Thinking()}, "got 1, expected 2 or more: thinking and answer"),
        ({"merge": "size"}, "step merge: got 'size'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StepSplitter(**settings)
    with pytest.raises(ValueError, match="think tags"):
        Thinking("", "x")
